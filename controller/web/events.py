"""What a verified message tells, of which only a few fields are read.

Decides what is malformed; never what an event asks for, which is `core.absorbing`. Used by `webhooks`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from controller.core.absorbing import Event
from controller.core.doubting import is_doubtful
from controller.core.users import parse_user_id
from controller.web.refusals import RefusalKind, Refused


class _Envelope(msgspec.Struct):
    """Clerk's description of its webhooks promises all four; `data` differs by type.

    Of any type is what decides no more than whether Clerk is asked: an odd one is no reason to lose the event.
    """

    type: str
    instance_id: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    timestamp: Any = None


class _User(msgspec.Struct):
    """In `user.deleted` the id is optional, by Clerk's description."""

    id: str | None = None
    created_at: Any = None


_envelopes = msgspec.json.Decoder(_Envelope)
_users = msgspec.json.Decoder(_User)


def read_event(body: bytes) -> Event:
    """Read the body of a verified message; a user is looked for in `user.*` alone.

    Raises:
        Refused: it is not JSON, not an object, or lacks what every event has.
    """
    try:
        envelope = _envelopes.decode(body)
        user = _users.decode(envelope.data) if envelope.type.startswith("user.") else _User()
    # nested a few hundred thousand deep, a body ends msgspec by the interpreter's own guard
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = "The body is not an event: a JSON object with type, instance_id and data."
        raise Refused(RefusalKind.MALFORMED_BODY, message) from error
    doubtful = is_doubtful(envelope.timestamp, user.created_at, datetime.now(UTC))
    return Event(envelope.type, envelope.instance_id, parse_user_id(user.id), doubtful)
