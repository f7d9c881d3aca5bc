"""Claims: durable work on one user, that an event, a request or a removal left behind.

Holds no decision; what becomes of a claim is `absorbing`'s and `leaving`'s. Kept by the stores, taken by `web`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

from controller.core.outcomes import Absorbed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controller.core.users import UserId


class ClaimKind(Enum):
    """Why a user is to be settled."""

    DELETION = "deletion"
    """`user.deleted` arrived; its proof is owed."""
    CATCH_UP = "catch_up"
    """Something happened to the user while we were suspended."""
    REFRESH = "refresh"
    """Mapped columns and an event differ, and it cannot be told which is later."""
    SECOND_SWEEP = "second_sweep"
    """The user was removed; a token that was still valid may have written rows since."""
    HOLDBACK = "holdback"
    """`user.deleted` arrived; its proof is owed once the holdback is over."""
    CREATION = "creation"
    """A doubtful `user.created` arrived; nothing is created before Clerk has answered that the user lives."""
    OWN_REQUEST = "own_request"
    """The user asked for his own deletion; settled by `leaving`."""


ABSORBED = {
    ClaimKind.DELETION: Absorbed.CLAIMED,
    ClaimKind.CATCH_UP: Absorbed.RECORDED,
    ClaimKind.HOLDBACK: Absorbed.HELD,
    ClaimKind.CREATION: Absorbed.DOUBTED,
    ClaimKind.REFRESH: Absorbed.DOUBTED,
}
"""What recording a claim of each kind is called; a second sweep is recorded by no event."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Durable work. `attempts` counts look-ups that failed, `present_answers` those that found the user.

    `renewals`: how often another message began it anew.
    """

    id: int
    user_id: UserId
    kind: ClaimKind
    attempts: int
    present_answers: int
    renewals: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """The durable work of a target: claims by their kind.

    `held_back`: those of them that wait for the limits. `oldest`: how long ago the oldest was recorded, of those that
    do not wait on purpose: for the end of a holdback, for the limits, for the second look after a removal.
    """

    waiting: Mapping[ClaimKind, int] = field(default_factory=dict)
    held_back: int = 0
    oldest: timedelta = timedelta()
