"""What a database URL says, checked before anything is connected to.

Decides what of a URL is handed to asyncpg: parameters of other drivers (`pgbouncer`, `connection_limit`,
`channel_binding`) would reach the server as settings that it refuses. A message never shows the URL, as it
holds the password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NoReturn
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from controller.errors import InvalidSpec

SCHEMES: Final = frozenset({"postgres", "postgresql"})
DEFAULT_PORT: Final = 5432
TLS_PARAMETERS: Final = frozenset({
    "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version",
})  # fmt: skip
"""Of libpq's connection parameters those that decide about encryption; asyncpg reads them as libpq does."""
HINT: Final = (
    "Write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of the password "
    "percent-encoded (@ as %40, # as %23, / as %2F)."
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect and as whom; `tls` is a query string, `options` the start-up parameter of that name."""

    host: str
    port: int
    database: str
    user: str | None
    password: str | None = field(repr=False)
    tls: str = ""
    options: str | None = None

    def __str__(self) -> str:
        """For messages: never the password."""
        return f"{self.host}:{self.port}/{self.database}"


def parse_url(url: str) -> Address:
    """Read a database URL.

    Raises:
        InvalidSpec: it is none; the message does not repeat it.
    """
    try:
        parts = urlsplit(url.strip())
        parameters = dict(parse_qsl(parts.query))
        port = int(parameters.get("port") or parts.port or DEFAULT_PORT)
        host, user, password = parts.hostname, parts.username, parts.password
    except ValueError:
        _refuse("The database URL cannot be read.")
    if parts.scheme not in SCHEMES:
        _refuse("The database URL does not begin with postgresql:// or postgres://.")
    if parts.fragment:
        _refuse("The database URL has a # that is not encoded.")
    host = parameters.get("host") or (unquote(host) if host else None)
    if not host:
        _refuse("The database URL names no host.")
    user = unquote(user) if user else parameters.get("user")
    password = unquote(password) if password else parameters.get("password")
    database = unquote(parts.path.removeprefix("/")) or parameters.get("dbname") or user
    if not database:
        _refuse("The database URL names no database.")
    tls = urlencode({name: value for name, value in parameters.items() if name in TLS_PARAMETERS})
    return Address(host, port, database, user, password, tls, parameters.get("options"))


def _refuse(what: str) -> NoReturn:
    message = f"{what} {HINT}"
    # Without the cause: that of urllib quotes parts of the URL.
    raise InvalidSpec(message) from None
