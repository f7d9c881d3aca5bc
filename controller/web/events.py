"""What a verified message tells, of which only a few fields are read, and of the user what is mapped.

Decides what is malformed; never what an event asks for, which is `core.absorbing`. Used by `webhooks`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from controller.clerk import profile_reader
from controller.core.doubting import is_doubtful
from controller.core.events import Event
from controller.core.users import parse_user_id
from controller.web.refusals import RefusalKind, Refused

if TYPE_CHECKING:
    from controller.core.mapping import MappedColumn
    from controller.core.users import Profile, UserId

DESCRIBING = frozenset({"user.created", "user.updated"})
"""Types whose data is a whole user."""

TYPE_CHARACTERS_MAX = 100
"""Clerk's longest is a third of it; it stands in the log, where whoever holds the secret could write a megabyte."""


class _Envelope(msgspec.Struct):
    """Clerk's description of its webhooks promises all four; `data` differs by type.

    Of any type is what decides no more than whether Clerk is asked: an odd one is no reason to lose the event.
    """

    type: Annotated[str, msgspec.Meta(max_length=TYPE_CHARACTERS_MAX)]
    instance_id: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    timestamp: Any = None


class _User(msgspec.Struct):
    """In `user.deleted` the id is optional, by Clerk's description."""

    id: str | None = None
    created_at: Any = None


_envelopes = msgspec.json.Decoder(_Envelope)
_users = msgspec.json.Decoder(_User)


def read_event(body: bytes, mapping: tuple[MappedColumn, ...] = ()) -> Event:
    """Read the body of a verified message; a user is looked for in `user.*` alone.

    What is mapped is left out where the message does not describe a user as Clerk does, as an example may not.

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
    mapped = bool(mapping) and envelope.type in DESCRIBING
    named = parse_user_id(user.id)
    return Event(
        envelope.type,
        envelope.instance_id,
        named,
        is_doubtful(envelope.timestamp, user.created_at, datetime.now(UTC)),
        _read_profile(envelope.data, named, mapping) if mapped and named is not None else None,
    )


def _read_profile(data: msgspec.Raw, user_id: UserId, mapping: tuple[MappedColumn, ...]) -> Profile | None:
    reader = profile_reader(mapping)
    user = reader.decode(data)
    return None if user is None else reader.read(user, user_id)
