"""Webhook events as Clerk words them, and their signature as Svix makes it.

Pure but for the clock. Used by the sender, and by tests to forge deliveries. The envelope follows Clerk's
description of its webhooks; its `timestamp` is in seconds in that description's examples and in
milliseconds in Clerk's documentation, so either can be sent.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HTTP_REQUEST = {"client_ip": "192.0.2.7", "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0"}


class TimestampUnit(Enum):
    """What the envelope's `timestamp` counts; the value is how many of them a second has."""

    SECONDS = 1
    MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class Message:
    """One event on its way to an endpoint; the id stays the same over all attempts and copies."""

    id: str
    event_type: str
    body: bytes


def new_message_id() -> str:
    """Return an id of Svix's form."""
    return f"msg_{secrets.token_hex(14)}"


def envelope(
    event_type: str,
    data: Mapping[str, Any],
    *,
    instance_id: str,
    at: datetime | None = None,
    unit: TimestampUnit = TimestampUnit.MILLISECONDS,
) -> dict[str, Any]:
    """Return the body of an event that happened at `at`, now if None."""
    moment = datetime.now(UTC) if at is None else at
    return {
        "object": "event",
        "type": event_type,
        "instance_id": instance_id,
        "timestamp": int(moment.timestamp() * unit.value),
        "event_attributes": {"http_request": _HTTP_REQUEST},
        "data": data,
    }


def encode(event: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed and sent."""
    return msgspec.json.encode(event)


def deleted_user(user_id: str, external_id: str | None = None) -> dict[str, Any]:
    """Return the data of `user.deleted`; `external_id` is there only if the user had one."""
    data: dict[str, Any] = {"object": "user", "id": user_id, "deleted": True}
    if external_id is not None:
        data["external_id"] = external_id
    return data


EXAMPLE_INSTANCE = "ins_2g7np7Hrk0SN6kj5EDMLDaKNL0S"
EXAMPLE_USER = "user_29w83sxmDNGwOuEthce5gg56FcC"
_EXAMPLE_AT = datetime(2022, 5, 31, 13, 33, 11, 835_000, tzinfo=UTC)
"""Of the payloads that Clerk's documentation shows; nobody has this id."""


def example(event_type: str, instance_id: str) -> dict[str, Any]:
    """Return what "Send Example" in Clerk's dashboard sends: a genuine signature around a user who never was."""
    created = int(_EXAMPLE_AT.timestamp() * 1000) - 321
    living = {"object": "user", "id": EXAMPLE_USER, "first_name": "Example", "created_at": created}
    data = deleted_user(EXAMPLE_USER) if event_type == "user.deleted" else living | {"updated_at": created}
    return envelope(event_type, data, instance_id=instance_id, at=_EXAMPLE_AT)


def sign(
    webhook_secret: str | Sequence[str],
    body: bytes | str,
    *,
    message_id: str | None = None,
    at: datetime | None = None,
    prefix: str = "svix",
) -> dict[str, str]:
    """Return the headers of an attempt: id, timestamp and signature.

    Several secrets give several signatures, as Svix does while a secret rotates. `prefix` is `svix` or the
    white-labelled `webhook`. Not by way of Svix's library, which can only sign what is UTF-8: a test may
    want to sign what is not.
    """
    chosen = new_message_id() if message_id is None else message_id
    moment = datetime.now(UTC) if at is None else at.astimezone(UTC)
    stamp = str(int(moment.timestamp()))
    signed = f"{chosen}.{stamp}.".encode() + (body.encode() if isinstance(body, str) else body)
    keys = [webhook_secret] if isinstance(webhook_secret, str) else webhook_secret
    return {
        f"{prefix}-id": chosen,
        f"{prefix}-timestamp": stamp,
        f"{prefix}-signature": " ".join(_signature(key, signed) for key in keys),
    }


def _signature(webhook_secret: str, signed: bytes) -> str:
    key = base64.b64decode(webhook_secret.removeprefix("whsec_") + "==")
    return f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"
