"""What the secret references of a resource resolve to, from whichever place they are looked up in.

Decides what counts as missing, and names everything that is missing at once. Never keeps or shows a value. Used
by `manifests` and `client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.errors import SecretNotFound
from controller.settings import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from controller.kube.specs import SecretKeyRef, SecretRefs

    Lookup = Callable[[SecretKeyRef], str]
    """Returns the secret's text, or raises SecretNotFound saying where it was looked for and what to do."""


def resolve(refs: SecretRefs, look_up: Lookup, *, webhooks: bool) -> Credentials:
    """Look every reference up; `webhooks`: whether the webhook secrets are wanted too.

    Raises:
        SecretNotFound: at least one is missing or empty; the message names all that are.
        InvalidSpec: the Clerk key is not a secret key.
    """
    wanted = [refs.clerk_key, refs.database_url, *(refs.webhook_secrets if webhooks else ())]
    clerk_key, database_url, *webhook_secrets = look_up_all(wanted, look_up)
    return Credentials(clerk_key, database_url, tuple(webhook_secrets))


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
