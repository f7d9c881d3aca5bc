"""What a run intends: a closed union of changes, and what is held back and why.

A change names a set of users that the observation left in the database; it never holds ids itself, so
a plan is as small for a million users as for one. Made by `planning`, carried out by `sweeping`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class CreateProfiles:
    """Insert one profile row for each of the `users` missing ones."""

    users: int


@dataclass(frozen=True, slots=True)
class RemoveUsers:
    """Remove all rows of the `users` suspects, each after its own proof."""

    users: int


@dataclass(frozen=True, slots=True)
class ReduceDuplicates:
    """Archive the `rows` surplus profile rows, keeping each user's oldest."""

    users: int
    rows: int


Change = CreateProfiles | RemoveUsers | ReduceDuplicates


class HoldReason(Enum):
    """Why a deletion is held back; the values stand in the condition `DeletionBlocked`."""

    EMPTY_SOURCE = "EmptySource"
    PARTIAL_SOURCE = "PartialSource"
    UNLISTED_CASCADE = "UnlistedCascade"
    THRESHOLD_EXCEEDED = "ThresholdExceeded"


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A removal that the plan does not permit: `users` of `base` users with rows."""

    reason: HoldReason
    users: int
    base: int
    message: str

    @property
    def percent(self) -> float:
        """Share of the users with rows, in percent, to one digit."""
        return round(100 * self.users / self.base, 1) if self.base else 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes in the order in which they are applied."""

    changes: tuple[Change, ...] = ()
    held_back: HeldBack | None = None
