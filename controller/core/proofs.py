"""The proof that a user is gone: Clerk, asked by id, answers 404 `resource_not_found`.

Nothing is removed without one. A proof is made by `proving` and nowhere else, is good for five minutes and for one
instance, and is checked again by the store between its locks and its DELETE. Used by the stores too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.core.users import UserId

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
