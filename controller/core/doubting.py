"""Does a sign-up look like one that has just happened?

Decides which `user.created` is looked up at Clerk before it creates anything: the sample event that Clerk's dashboard
sends tells of nobody, and one that comes days late may tell of somebody who is gone by now. Never says that an event is
false. Used by `web.events`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

DOUBT_AFTER: Final = timedelta(minutes=10)
"""Svix makes its first three attempts within five minutes, and what Clerk announces has happened just before."""

_MILLISECONDS_FROM: Final = 1e11
"""Clerk writes the time of an event in seconds or in milliseconds: a larger number is in milliseconds."""


def is_doubtful(told_at: object, created_at: object, now: datetime) -> bool:
    """Whether the event's own time, or the user's creation before it, is missing, odd, or not of the last minutes.

    `told_at`: the event's `timestamp`; `created_at`: that of its user, in milliseconds.
    """
    told, created = _moment(told_at), _moment(created_at)
    if told is None or created is None:
        return True
    return abs(now - told) > DOUBT_AFTER or abs(told - created) > DOUBT_AFTER


def _moment(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS_FROM else value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
