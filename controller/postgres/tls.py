"""How a connection to the database is encrypted, and whether the server must prove who it is.

With a CA (`database.caSecretRef`, `DATABASE_CA`) the server's certificate is verified against it, host name
included, whatever `sslmode` the URL has: only `verify-ca` is taken at its word, which leaves the host name out.
Without one asyncpg does what libpq does, and nothing is verified below `verify-ca`; `doctor` says so. Used by
`connections` and `probing`.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from controller.core.facts import Protection
from controller.errors import InvalidSpec

if TYPE_CHECKING:
    from controller.postgres.urls import Address

FOR_GOOD: Final = frozenset({"verify-ca", "verify-full"})
UNENCRYPTED: Final = "disable"
MAY_BE_PLAIN: Final = frozenset({"allow", "prefer"})
"""Modes that take an unencrypted connection where the server offers no other, or where somebody says that it does."""


def protection(address: Address, ca: str | None) -> Protection:
    """Say how well a connection is protected, by what is configured; nothing is connected to."""
    if _is_local(address.host):
        return Protection.LOCAL
    mode = _mode(address)
    if ca is not None:
        return Protection.CHAIN_ONLY if mode == "verify-ca" else Protection.VERIFIED
    if mode in FOR_GOOD:
        return Protection.VERIFIED if mode == "verify-full" else Protection.CHAIN_ONLY
    if mode == UNENCRYPTED:
        return Protection.NONE
    if mode in MAY_BE_PLAIN:
        return Protection.MAYBE
    # As libpq has it, `require` with a root certificate verifies the chain.
    return Protection.CHAIN_ONLY if _parameters(address).get("sslrootcert") else Protection.UNVERIFIED


def verifying_context(address: Address, ca: str) -> ssl.SSLContext:
    """Return a context that accepts only a server with a certificate of this CA.

    Raises:
        InvalidSpec: `ca` is no certificate, or the URL says that there is to be no TLS, or names another CA.
    """
    parameters = _parameters(address)
    if parameters.get("sslmode") == UNENCRYPTED:
        message = "The database URL says sslmode=disable, and a CA is given to verify the server by; take one away."
        raise InvalidSpec(message)
    if "sslrootcert" in parameters:
        message = "The database URL has sslrootcert, and a CA is given beside it; take one away."
        raise InvalidSpec(message)
    try:
        # Of an empty text it would make the CAs of this machine.
        context = ssl.create_default_context(cadata=ca.strip() or "-")
    except (ssl.SSLError, ValueError) as error:
        message = (
            "The CA of the database holds no certificate in PEM form (-----BEGIN CERTIFICATE-----). On Supabase it is "
            "under Project Settings -> Database -> SSL Configuration."
        )
        raise InvalidSpec(message) from error
    context.check_hostname = parameters.get("sslmode") != "verify-ca"
    # The default asks for more of a certificate than libpq does, and private CAs seldom give it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if "sslcert" in parameters:
        _load_own(context, parameters)
    return context


def _load_own(context: ssl.SSLContext, parameters: dict[str, str]) -> None:
    """Load our own certificate, which some servers ask for."""
    password = parameters.get("sslpassword", "")
    try:
        context.load_cert_chain(parameters["sslcert"], parameters.get("sslkey"), lambda: password)
    except (OSError, ssl.SSLError) as error:
        message = "The certificate that sslcert and sslkey of the database URL name cannot be loaded."
        raise InvalidSpec(message) from error


def _mode(address: Address) -> str:
    return _parameters(address).get("sslmode") or os.environ.get("PGSSLMODE") or "prefer"


def _parameters(address: Address) -> dict[str, str]:
    return dict(parse_qsl(address.tls))


def _is_local(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
