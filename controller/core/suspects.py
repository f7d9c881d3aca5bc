"""Users with rows whom Clerk does not list: since when, and which of them may go by now.

Decides what a store is asked to weigh and what it answers, in counts; the ages are taken by the database's
clock. Used by `planning` and `sweeping`, and by the stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Terms:
    """By which rules a store weighs suspects.

    - `grace_period`: how long a user must have been absent from one complete listing to the next.
    - `longest_gap`: a longer time between two complete listings begins the absence anew.
    - `window`: how far back removals count against the limits.
    """

    grace_period: timedelta
    longest_gap: timedelta
    window: timedelta


@dataclass(frozen=True, slots=True)
class Suspects:
    """The users whom a complete listing left out.

    - `due`: those who may go: absent for the grace period, tombstoned before, or announced by an event whose
      proof was found and which only the limits hold back.
    - `due_counted`: those of `due` who count already, as they were removed within the window.
    - `waiting`: those who are not absent for long enough.
    - `removed`: users removed within the window and not approved, by runs and events.
    - `contradicted`: found by the second look although they should have been listed: the listing hid somebody.
    - `approved`: users who are due and of the set that a person permitted; no part of `due`.
    """

    due: int = 0
    due_counted: int = 0
    waiting: int = 0
    removed: int = 0
    contradicted: int = 0
    approved: int = 0
