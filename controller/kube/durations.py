"""Durations as people write them in a `UserSync`: `45s`, `1h30m`, `2d`.

The same form that the CRD accepts: whole days, or hours, minutes and seconds in this order. Used by `specs`.
"""

from __future__ import annotations

import re
from datetime import timedelta

_DAYS = re.compile(r"([1-9][0-9]{0,3})d", re.ASCII)
_CLOCK = re.compile(r"(?:([0-9]{1,5})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})s)?", re.ASCII)


def parse_duration(text: str) -> timedelta | None:
    """Return the duration, or None if the text is not of the form."""
    if days := _DAYS.fullmatch(text):
        return timedelta(days=int(days[1]))
    clock = _CLOCK.fullmatch(text)
    if clock is None or not text:
        return None
    hours, minutes, seconds = (int(part or 0) for part in clock.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
