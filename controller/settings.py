"""What a process is told at its start, and the secrets of one resource.

Decides where Clerk's key may go. Read from flags and the environment by `cli`, never at import; passed
down from there.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from controller.errors import ClerkURLNotAllowed, InsecureClerkURL, InvalidSpec

CLERK_API_URL = "https://api.clerk.com"
ALLOW_INSECURE_VARIABLE = "USERSYNC_ALLOW_INSECURE_CLERK_URL"


@dataclass(frozen=True, slots=True)
class Access:
    """How one database is reached.

    `ca`: certificates in PEM form that the server is verified by. `admin_url`: the same database under a role that
    may do what ours may not; used for migrations and policies only.
    """

    url: str = field(repr=False)
    ca: str | None = field(default=None, repr=False)
    admin_url: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str | Access) -> Access:
        """Return what needs nothing but a URL as what it is."""
        return cls(url) if isinstance(url, str) else url


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secrets of one resource, read afresh for each use; their text never shows in a repr.

    `webhook_secrets` are `whsec_...`, several while one rotates, none where no webhook is served.
    """

    clerk_secret_key: str = field(repr=False)
    database_url: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    database_ca: str | None = field(default=None, repr=False)
    admin_url: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse a key that is not Clerk's secret key: it must never be sent anywhere."""
        if not self.clerk_secret_key.startswith("sk_"):
            message = (
                "The Clerk secret key does not begin with sk_: it is not a secret key (a publishable key begins "
                "with pk_). Take it from the API keys page of Clerk's dashboard."
            )
            raise InvalidSpec(message)

    @property
    def database(self) -> Access:
        """How the database is reached."""
        return Access(self.database_url, self.database_ca, self.admin_url)


@dataclass(frozen=True, slots=True)
class ClerkURLs:
    """Where Clerk's key may be sent.

    `allow_insecure` permits http, and loopback addresses beside the allowed ones; for the demo and tests.
    """

    allowed: tuple[str, ...] = (CLERK_API_URL,)
    allow_insecure: bool = False

    def check(self, api_url: str) -> str:
        """Return the base URL without a trailing slash or `/v1`.

        Raises:
            InsecureClerkURL: not https, and not permitted.
            ClerkURLNotAllowed: not among the allowed ones.
        """
        base = _base(api_url)
        parts = urlsplit(base)
        if parts.scheme != "https" and not self.allow_insecure:
            message = (
                f"spec.clerk.apiUrl is {parts.scheme}://{parts.netloc}: Clerk's secret key would travel unencrypted. "
                f"Use https, or start usersync with --allow-insecure-clerk-url (or {ALLOW_INSECURE_VARIABLE}=1)."
            )
            raise InsecureClerkURL(message)
        if base in {_base(allowed) for allowed in self.allowed}:
            return base
        if self.allow_insecure and _is_loopback(parts.hostname):
            return base
        message = (
            f"spec.clerk.apiUrl is {parts.scheme}://{parts.netloc}, which is not among the URLs that Clerk's key may "
            f"be sent to ({', '.join(self.allowed)}). Start usersync with --clerk-url-allow to add it."
        )
        raise ClerkURLNotAllowed(message)


def _base(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
