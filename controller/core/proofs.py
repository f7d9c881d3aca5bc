"""The proof that a user is gone: Clerk, asked by id, answers 404 `resource_not_found`.

Nothing is removed without one. A proof is made here and nowhere else, is good for five minutes and for
one instance, and is checked again by the store between its locks and its DELETE. Used by `sweeping`
and `absorbing`, and by the stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from controller.core.users import Presence, UserId

if TYPE_CHECKING:
    from controller.core.ports import Clock, Directory

MAX_AGE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Proof:
    """`user_id` was unknown to `instance_id` when asked; `asked_at` in seconds of `Clock.elapsed`."""

    user_id: UserId
    instance_id: str
    asked_at: float

    def holds(self, elapsed: float) -> bool:
        """Whether the proof is young enough at `elapsed` (seconds of the same clock)."""
        return 0 <= elapsed - self.asked_at <= MAX_AGE.total_seconds()


async def prove_absence(directory: Directory, clock: Clock, user_id: UserId) -> Proof | None:
    """Ask Clerk for one user; None if the user lives.

    The age counts from before the question, so a slow answer makes an older proof, never a younger one.

    Raises:
        ClerkUnavailable, ClerkRefused, ClerkAnswerOdd: any other answer than a user or the one 404.
    """
    asked_at = clock.elapsed()
    instance = await directory.instance()
    if await directory.look_up(user_id) is Presence.ABSENT:
        return Proof(user_id, instance.id, asked_at)
    return None
