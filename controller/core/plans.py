"""What a run intends: a closed union of changes, and what is held back and why.

A change names a set of users that the observation left in the database; it never holds ids itself, so
a plan is as small for a million users as for one. Made by `planning`, carried out by `sweeping`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class CreateProfiles:
    """Insert one profile row for each of the `users` missing ones."""

    users: int


@dataclass(frozen=True, slots=True)
class UpdateProfiles:
    """Bring the mapped columns of the `users` outdated ones in step."""

    users: int


@dataclass(frozen=True, slots=True)
class RemoveUsers:
    """Remove the `users` who are due, each after his own proof.

    `permitted`: how many users may be gone from the window at its end; None for an `approved` set, which the
    limits do not touch.
    """

    users: int
    permitted: int | None = None

    @property
    def approved(self) -> bool:
        """Whether a person permitted this set."""
        return self.permitted is None


@dataclass(frozen=True, slots=True)
class ReduceDuplicates:
    """Archive the `rows` surplus profile rows, keeping each user's oldest."""

    users: int
    rows: int


Change = CreateProfiles | UpdateProfiles | RemoveUsers | ReduceDuplicates


class HoldReason(Enum):
    """Why a deletion is held back; the values stand in the condition `DeletionBlocked`."""

    EMPTY_SOURCE = "EmptySource"
    PARTIAL_SOURCE = "PartialSource"
    UNLISTED_CASCADE = "UnlistedCascade"
    THRESHOLD_EXCEEDED = "ThresholdExceeded"
    """The set passes the limits, and has not been held back before."""
    AWAITING_APPROVAL = "AwaitingApproval"
    """The same set was held back before, and still waits for a person."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A removal that the plan does not permit: `users` of `base` users with rows.

    `digest` names the stored set, where approving it would let it go; `since`: held back from then on.
    """

    reason: HoldReason
    users: int
    base: int
    message: str
    digest: str | None = None
    since: datetime | None = None

    @property
    def percent(self) -> float:
        """Share of the users with rows, in percent, to one digit."""
        return round(100 * self.users / self.base, 1) if self.base else 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes in the order in which they are applied."""

    changes: tuple[Change, ...] = ()
    held_back: HeldBack | None = None
