"""What a command works on: the UserSyncs of a manifest, or the environment alone.

Decides which environment variables count, and what to say to somebody who brought the variables of Supabase's
front-end. Resolves every secret before anything begins, so that a missing one stops the command and not half of
it. Used by all commands but the demo.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from controller.core.targets import ClerkSource, Spec
from controller.errors import InvalidSpec, SecretNotFound
from controller.settings import CLERK_API_URL, Access, Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controller.kube.manifests import Declared

CLERK_SECRET_KEY = "CLERK_SECRET_KEY"  # noqa: S105 - the name of a variable
CLERK_WEBHOOK_SECRET = "CLERK_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
CLERK_API = "CLERK_API_URL"
DATABASE_URL = "DATABASE_URL"
DATABASE_ADMIN_URL = "DATABASE_ADMIN_URL"
DATABASE_CA = "DATABASE_CA"
STDIN = "-"

_FRONT_END = (
    "NEXT_PUBLIC_SUPABASE_URL",
    "SUPABASE_URL",
    "NEXT_PUBLIC_SUPABASE_ANON_KEY",
    "SUPABASE_ANON_KEY",
    "SUPABASE_SERVICE_ROLE_KEY",
)
"""Variables of Supabase's HTTP interface, which applications have and usersync cannot use."""

_OR_MANIFEST = "Or give a manifest with -f."


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing to work on, with its secrets."""

    spec: Spec
    credentials: Credentials = field(repr=False)


def read_resources(manifest: str | None, environ: Mapping[str, str], *, webhooks: bool = False) -> list[Resource]:
    """Read the manifest, or without one the environment. `webhooks`: the webhook secrets too.

    Raises:
        InvalidSpec: the manifest or a variable is wrong; the message names the field.
        SecretNotFound: a secret is missing; the message names what to set.
    """
    if manifest is None:
        return [from_environment(environ, webhooks=webhooks)]
    return [
        Resource(declared.user_sync.spec, declared.credentials(webhooks=webhooks))
        for declared in declared_in(manifest, environ)
    ]


def read_databases(manifest: str | None, environ: Mapping[str, str]) -> list[Access]:
    """Read the databases alone, each once, for a command that needs nothing of Clerk.

    Raises:
        InvalidSpec, SecretNotFound: as `read_resources`.
    """
    if manifest is None:
        return [_access(environ)]
    return list(dict.fromkeys(declared.database() for declared in declared_in(manifest, environ)))


def read_resource(manifest: str | None, environ: Mapping[str, str], name: str | None) -> Resource:
    """Read the one thing to work on; `name` says which of several in the manifest.

    Raises:
        InvalidSpec, SecretNotFound: as `read_resources`; or there are several and `name` names none of them.
    """
    if manifest is None:
        return from_environment(environ)
    declared = _one_of(declared_in(manifest, environ), manifest, name)
    return Resource(declared.user_sync.spec, declared.credentials())


def read_place(manifest: str | None, environ: Mapping[str, str], name: str | None) -> tuple[Spec, Access]:
    """Read the one thing to look at and how its database is reached, for a command that needs nothing of Clerk.

    Raises:
        InvalidSpec, SecretNotFound: as `read_resource`.
    """
    if manifest is None:
        return Spec("environment"), _access(environ)
    declared = _one_of(declared_in(manifest, environ), manifest, name)
    return declared.user_sync.spec, declared.database()


def _one_of(declared: list[Declared], manifest: str, name: str | None) -> Declared:
    if name is None and len(declared) == 1:
        return declared[0]
    found = [each for each in declared if name in {each.user_sync.name, each.user_sync.spec.name}]
    if len(found) == 1:
        return found[0]
    names = ", ".join(each.user_sync.spec.name for each in declared)
    message = f"{manifest} has {names}; say with --name which of them is meant."
    raise InvalidSpec(message)


def from_environment(environ: Mapping[str, str], *, webhooks: bool = False) -> Resource:
    """Make the default spec for what the environment names.

    Raises:
        SecretNotFound: a variable is missing; all that are missing are named.
        InvalidSpec: the Clerk key is not a secret key.
    """
    problems = [
        f"{name} is not set. Set it to the value that Clerk's dashboard shows under {place}."
        for name, place, wanted in (
            (CLERK_SECRET_KEY, "API keys", True),
            (CLERK_WEBHOOK_SECRET, "Webhooks -> the endpoint -> Signing Secret", webhooks),
        )
        if wanted and not _value(environ, name)
    ]
    if not _value(environ, DATABASE_URL):
        problems.append(_missing_database(environ))
    if problems:
        raise SecretNotFound(" ".join([*problems, _OR_MANIFEST]))
    webhook_secrets = (_value(environ, CLERK_WEBHOOK_SECRET),) if webhooks else ()
    database = _access(environ)
    credentials = Credentials(
        _value(environ, CLERK_SECRET_KEY),
        database.url,
        webhook_secrets,
        database.ca,
        None if webhooks else database.admin_url,
    )
    return Resource(Spec("environment", clerk=ClerkSource(_value(environ, CLERK_API) or CLERK_API_URL)), credentials)


def declared_in(manifest: str, environ: Mapping[str, str]) -> list[Declared]:
    """Read a file, or standard input for `-`.

    Raises:
        InvalidSpec: not readable text, not YAML, or an invalid document.
    """
    # msgspec and yaml cost a tenth of a second that the environment alone does not need
    from controller.kube.manifests import read_manifest  # noqa: PLC0415

    origin = "standard input" if manifest == STDIN else manifest
    try:
        text = sys.stdin.read() if manifest == STDIN else Path(manifest).read_text()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{origin} cannot be read: {error}"
        raise InvalidSpec(message) from error
    return read_manifest(text, environ, origin=origin)


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()


def _access(environ: Mapping[str, str]) -> Access:
    """Read how the database is reached: `DATABASE_URL`, and `DATABASE_CA`, `DATABASE_ADMIN_URL` if they are set.

    Raises:
        SecretNotFound, InvalidSpec: see `_database_url`; the file that `DATABASE_CA` names cannot be read.
    """
    return Access(_database_url(environ), read_ca(environ), _value(environ, DATABASE_ADMIN_URL) or None)


def read_ca(environ: Mapping[str, str]) -> str | None:
    """Read the CA of the database: the certificates themselves, or the file that they are in.

    Raises:
        InvalidSpec: the file cannot be read.
    """
    given = _value(environ, DATABASE_CA)
    if not given or given.startswith("-----BEGIN"):
        return given or None
    try:
        return Path(given).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        message = f"{DATABASE_CA} is neither a certificate (-----BEGIN ...) nor a file that can be read: {reason}."
        raise InvalidSpec(message) from error


def _database_url(environ: Mapping[str, str]) -> str:
    url = _value(environ, DATABASE_URL)
    if not url:
        message = f"{_missing_database(environ)} {_OR_MANIFEST}"
        raise SecretNotFound(message)
    if url.startswith(("http://", "https://")):
        message = f"{DATABASE_URL} is the address of Supabase's HTTP interface; {_where_it_stands()}"
        raise InvalidSpec(message)
    return url


def front_end_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables of Supabase's HTTP interface that are set."""
    return [name for name in _FRONT_END if _value(environ, name)]


def _missing_database(environ: Mapping[str, str]) -> str:
    present = front_end_variables(environ)
    if not present:
        return f"{DATABASE_URL} is not set. Set it to the database's connection string."
    return (
        f"{DATABASE_URL} is not set. {' and '.join(present)} cannot take its place: usersync works in the database "
        f"itself, where no row is hidden from it; {_where_it_stands()}"
    )


def _where_it_stands() -> str:
    return (
        f"set {DATABASE_URL} to the connection string that Supabase shows under Project -> Connect "
        "(postgresql://postgres...; with the database's password filled in)."
    )
