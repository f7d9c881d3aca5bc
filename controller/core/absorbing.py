"""One event, and the claims that events leave behind.

Decides what an event asks for and whether a claim is proved; never touches a row by itself. An announced
deletion is only a claim until Clerk, asked by id, answers that the user is gone. Used by `web`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

from controller.core.outcomes import Absorbed, Settled
from controller.core.proofs import prove_absence

if TYPE_CHECKING:
    from controller.core.mapping import Profile
    from controller.core.ports import Clock, Directory, Inbox
    from controller.core.proofs import Proof
    from controller.core.targets import Deletion, Spec
    from controller.core.users import UserId

PRESENT_DELAYS = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=5),
)
"""Waits between the look-ups of a claim whose user Clerk still knows; after the last it is discarded."""

SECOND_SWEEP_DELAY = timedelta(seconds=90)
"""A session token of Clerk lives for 60 s; what it wrote after the removal is found then."""

HELD_DELAY = timedelta(minutes=10)
"""Wait of a claim that would pass the limits; runs may take its user before."""

LONGEST_DELAY = timedelta(hours=1)
"""No claim is put off for longer; one that is due later still was recorded before a clock was set back."""

RETRY_DELAY = timedelta(seconds=5)
RETRY_DELAY_MAX = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message, whatever the number of attempts; `message_id` is Svix's id, constant over retries."""

    message_id: str
    event_type: str


@dataclass(frozen=True, slots=True)
class Event:
    """What a verified message tells. `user_id` is None if it names no user of Clerk's form.

    `profile`: where columns are mapped, and the message describes a user.
    """

    type: str
    instance_id: str
    user_id: UserId | None
    profile: Profile | None = None


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


@dataclass(frozen=True, slots=True)
class Claim:
    """Durable work. `attempts` counts look-ups that failed, `present_answers` those that found the user."""

    id: int
    user_id: UserId
    kind: ClaimKind
    attempts: int
    present_answers: int


async def absorb(event: Event, delivery: Delivery, spec: Spec, inbox: Inbox) -> Absorbed:
    """Give a verified event of the pinned instance its effect, or record the intent."""
    asks = {"user.created", "user.deleted"} | ({"user.updated"} if spec.target.mapping else set())
    if event.type not in asks or event.user_id is None:
        return Absorbed.IGNORED
    if spec.dry_run:
        return Absorbed.DRY_RUN
    if spec.suspend:
        return await inbox.record_claim(delivery, event.user_id, ClaimKind.CATCH_UP)
    if event.type == "user.deleted":
        return await inbox.record_claim(delivery, event.user_id, ClaimKind.DELETION)
    return await _keep_in_step(event.type, event.user_id, event.profile, delivery, inbox)


async def _keep_in_step(
    event_type: str, user_id: UserId, profile: Profile | None, delivery: Delivery, inbox: Inbox
) -> Absorbed:
    if profile is not None:
        return await inbox.update_profile(delivery, profile)
    if event_type == "user.created":
        return await inbox.create_profile(delivery, user_id)
    return await inbox.record_claim(delivery, user_id, ClaimKind.REFRESH)


async def settle(claim: Claim, deletion: Deletion, directory: Directory, inbox: Inbox, clock: Clock) -> Settled:
    """Look the claim's user up and do what follows.

    Raises:
        TransientError, PermanentError: no usable answer; the caller postpones by `retry_delay`.
    """
    if claim.kind is ClaimKind.SECOND_SWEEP and await inbox.is_swept(claim):
        return Settled.SWEPT
    if claim.kind is ClaimKind.REFRESH:
        return await _refresh(claim, directory, inbox)
    proof = await prove_absence(directory, clock, claim.user_id)
    if proof is not None:
        return await _remove(claim, proof, deletion, inbox)
    if claim.kind is ClaimKind.CATCH_UP:
        return await _catch_up(claim, directory, inbox)
    if claim.present_answers >= len(PRESENT_DELAYS):
        await inbox.discard_claim(claim)
        return Settled.STOPPED if await inbox.is_unfinished(claim.user_id) else Settled.DISCARDED
    await inbox.postpone_claim(claim, PRESENT_DELAYS[claim.present_answers], answered_present=True)
    return Settled.POSTPONED


async def _catch_up(claim: Claim, directory: Directory, inbox: Inbox) -> Settled:
    if directory.maps:
        return await _refresh(claim, directory, inbox)
    await inbox.settle_by_creation(claim)
    return Settled.CREATED


async def _refresh(claim: Claim, directory: Directory, inbox: Inbox) -> Settled:
    """Write what Clerk says now. Whom it does not know is left to `user.deleted` and to the runs."""
    profile = await directory.profile(claim.user_id) if directory.maps else None
    if profile is None and claim.kind is ClaimKind.CATCH_UP:
        # Deleted since the look-up: that is to be proved as for everybody else.
        await inbox.postpone_claim(claim, retry_delay(claim), answered_present=False)
        return Settled.POSTPONED
    if profile is None:
        await inbox.discard_claim(claim)
        return Settled.GONE
    await inbox.settle_by_update(claim, profile)
    return Settled.UPDATED


async def _remove(claim: Claim, proof: Proof, deletion: Deletion, inbox: Inbox) -> Settled:
    removal = await inbox.settle_by_removal(claim, proof, deletion)
    if removal.limit_reached:
        await inbox.hold_claim(claim, HELD_DELAY)
        return Settled.HELD_BACK
    if removal.users_unfinished:
        await inbox.go_on_later(claim)
        return Settled.CONTINUED
    if removal.users_left:
        await inbox.postpone_claim(claim, retry_delay(claim), answered_present=False)
        return Settled.POSTPONED
    return Settled.SWEPT if claim.kind is ClaimKind.SECOND_SWEEP else Settled.REMOVED


def retry_delay(claim: Claim) -> timedelta:
    """How long to wait after an attempt without a usable answer; doubles up to ten minutes."""
    return min(RETRY_DELAY * (1 << min(claim.attempts, 16)), RETRY_DELAY_MAX)
