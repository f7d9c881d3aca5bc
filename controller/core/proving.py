"""The one question that proves a user gone: Clerk is asked for him by id.

Decides that the proof is as old as the question. Used by `sweeping`, `absorbing`, `leaving` and `requests`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.core.proofs import Proof
from controller.core.users import Presence

if TYPE_CHECKING:
    from controller.core.ports import Clock, Directory
    from controller.core.users import UserId


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
