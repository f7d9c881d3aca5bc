"""Is this message from Clerk, and from now? Over the raw bytes, by Svix's own library.

The library trusts its input: on forged headers it raises what it does not document, it reads timestamps as floating
point, and it drops stray characters from secrets and signatures. So everything is held to its exact form before the
library sees it, and nothing that the library refuses is accepted. Used by `endpoints`.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from svix.webhooks import Webhook, WebhookVerificationError

from controller.errors import InvalidSpec
from controller.web.refusals import RefusalKind, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multidict import CIMultiDictProxy

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix that all have
SECRET_BYTES_MIN = 16
"""Clerk's have 24, an example of Svix's manual 18; fewer can be guessed, or are half of a secret."""

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
"""Without a dot: `id.timestamp.body` is signed as one text, and a dot would let its parts be cut elsewhere."""
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
_V1 = re.compile(r"v1,[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", re.ASCII)
"""base64 of the 32 bytes of an HMAC-SHA256, in its one canonical spelling."""
_OTHER_VERSION = re.compile(r"(?!v1,)[A-Za-z0-9]{1,16},[!-+\--~]+", re.ASCII)

_PARTS = ("id", "timestamp", "signature")


class Verifier:
    """The webhook secrets of one resource: several while one rotates, any of them will do."""

    def __init__(self, webhook_secrets: Sequence[str]) -> None:
        """Take the secrets as Clerk's dashboard shows them.

        Raises:
            InvalidSpec: one is not of the form that Clerk shows; the message never holds it.
        """
        if not webhook_secrets:
            message = "There is no webhook secret; name one in spec.clerk.webhookSecretRefs."
            raise InvalidSpec(message)
        self._webhooks = [
            Webhook(_check(secret, place, len(webhook_secrets)))
            for place, secret in enumerate(webhook_secrets, start=1)
        ]

    def verify(self, headers: CIMultiDictProxy[str], body: bytes) -> str:
        """Return the message's id, which stays the same over all attempts.

        Raises:
            Refused: it is not from Clerk, not from the last five minutes, or not text.
        """
        signed = _read(headers)
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            message = "The body is not UTF-8."
            raise Refused(RefusalKind.MALFORMED_BODY, message) from error
        for webhook in self._webhooks:
            try:
                webhook.verify(text, signed)
            except WebhookVerificationError as error:
                if "timestamp" in str(error):
                    message = "The timestamp is more than five minutes from now; compare the clocks."
                    raise Refused(RefusalKind.TIMESTAMP, message) from error
            else:
                return signed["svix-id"]
        message = "No signature matches; compare the endpoint's signing secret with the one that is configured."
        raise Refused(RefusalKind.SIGNATURE, message)


def _check(secret: str, place: int, count: int) -> str:
    which = "The webhook secret" if count == 1 else f"Webhook secret {place} of {count}"
    advice = "Copy it anew from Clerk's dashboard: Webhooks, the endpoint, Signing Secret."
    if not secret.startswith(SECRET_PREFIX):
        message = f"{which} does not begin with {SECRET_PREFIX}. {advice}"
        raise InvalidSpec(message)
    encoded = secret.removeprefix(SECRET_PREFIX)
    try:
        # the library would drop stray characters, and so verify with a key that nobody has
        if not _BASE64.fullmatch(encoded):
            raise binascii.Error  # noqa: TRY301 - both ways of being no base64 end alike
        key = base64.b64decode(encoded.rstrip("=") + "==")
    except binascii.Error as error:
        message = f"{which} is not base64 after {SECRET_PREFIX}. {advice}"
        raise InvalidSpec(message) from error
    if len(key) < SECRET_BYTES_MIN:
        message = f"{which} is too short: {len(key)} bytes, where Clerk's have 24. {advice}"
        raise InvalidSpec(message)
    return secret


def _read(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Return the three headers, all of one family, under the names that the library prefers.

    `webhook-*` are the white-labelled names; if any `svix-*` is there, they count for nothing. Without any, the one
    that is missed is of `svix-*`, which Clerk sends.
    """
    svix, white = (any(f"{family}-{part}" in headers for part in _PARTS) for family in ("svix", "webhook"))
    family = "webhook" if white and not svix else "svix"
    for part, form in (("id", _ID), ("timestamp", _TIMESTAMP), ("signature", None)):
        name = f"{family}-{part}"
        values = headers.getall(name, [])
        if not values:
            message = f"The header {name} is missing."
            raise Refused(RefusalKind.MISSING_HEADER, message)
        # of two, a proxy before us may have looked at the other
        if len(values) > 1 or (form and not form.fullmatch(values[0])):
            raise Refused(RefusalKind.MALFORMED_HEADER, _malformed(name))
    for signature in headers[f"{family}-signature"].split(" "):
        if not (_V1.fullmatch(signature) or _OTHER_VERSION.fullmatch(signature)):
            raise Refused(RefusalKind.MALFORMED_HEADER, _malformed(f"{family}-signature"))
    return {f"svix-{part}": headers[f"{family}-{part}"] for part in _PARTS}


def _malformed(name: str) -> str:
    return f"The header {name} is malformed, or stands twice."
