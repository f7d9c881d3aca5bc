"""What the secret references of a resource resolve to, from whichever place they are looked up in.

Decides what counts as missing, and names everything that is missing at once. Never keeps or shows a value. Used
by `manifests` and `client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.errors import SecretNotFound
from controller.settings import Access, Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from controller.kube.fields import SecretKeyRef
    from controller.kube.specs import SecretRefs

    Lookup = Callable[[SecretKeyRef], str]
    """Returns the secret's text, or raises SecretNotFound saying where it was looked for and what to do."""


def wanted_by(refs: SecretRefs, *, webhooks: bool) -> list[SecretKeyRef]:
    """Return the references that are looked up.

    With `webhooks` those of the webhook endpoint, and not the database's admin URL: the service that strangers talk
    to never has it.
    """
    optional = (refs.database_ca, None if webhooks else refs.admin_url)
    given = [ref for ref in optional if ref is not None]
    return [refs.clerk_key, refs.database_url, *given, *(refs.webhook_secrets if webhooks else ())]


def resolve(refs: SecretRefs, look_up: Lookup, *, webhooks: bool) -> Credentials:
    """Look up what `wanted_by` says.

    Raises:
        SecretNotFound: at least one is missing or empty; the message names all that are.
        InvalidSpec: the Clerk key is not a secret key.
    """
    values = iter(look_up_all(wanted_by(refs, webhooks=webhooks), look_up))
    clerk_key, database_url = next(values), next(values)
    ca = None if refs.database_ca is None else next(values)
    admin_url = None if refs.admin_url is None or webhooks else next(values)
    return Credentials(clerk_key, database_url, tuple(values), ca, admin_url)


def resolve_database(refs: SecretRefs, look_up: Lookup) -> Access:
    """Look up what the database needs, for what needs nothing of Clerk.

    Raises:
        SecretNotFound: as `resolve`.
    """
    wanted = [ref for ref in (refs.database_url, refs.database_ca, refs.admin_url) if ref is not None]
    values = iter(look_up_all(wanted, look_up))
    url = next(values)
    ca = None if refs.database_ca is None else next(values)
    return Access(url, ca, None if refs.admin_url is None else next(values))


def look_up_all(refs: Sequence[SecretKeyRef], look_up: Lookup) -> list[str]:
    """Look each up; a person who mends one missing secret wants to know of the next one too.

    Raises:
        SecretNotFound: at least one is missing or empty.
    """
    values: list[str] = []
    missing: dict[str, None] = {}
    for ref in refs:
        try:
            values.append(look_up(ref))
        except SecretNotFound as error:
            missing[str(error)] = None
    if missing:
        raise SecretNotFound(" ".join(missing))
    return values


def as_text(value: bytes) -> str | None:
    """Return a secret's text without the line end that `echo` and editors leave; None if empty or not text."""
    try:
        return value.decode().strip() or None
    except UnicodeDecodeError:
        return None
