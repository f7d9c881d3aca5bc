"""One event, and the claims that events leave behind.

Decides what an event asks for and whether a claim is proved; never touches a row by itself. An announced
deletion is only a claim until Clerk, asked by id, answers that the user is gone. Used by `web`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from controller.core.claims import Claim, ClaimKind
from controller.core.outcomes import Absorbed, Settled
from controller.core.proving import prove_absence
from controller.core.targets import OnUserCreated, OnUserDeleted

if TYPE_CHECKING:
    from controller.core.events import Delivery, Event
    from controller.core.ports import Clock, Directory, Inbox
    from controller.core.proofs import Proof
    from controller.core.targets import Deletion, Spec

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
"""No claim is put off for longer but by a holdback; one that is due later still was recorded before a clock was set
back."""

HOLDBACK_DELAYS = PRESENT_DELAYS[:1]
"""As `PRESENT_DELAYS`, at the end of a holdback: after hours, Clerk has long had the time to forget a user."""

RETRY_DELAY = timedelta(seconds=5)
RETRY_DELAY_MAX = timedelta(minutes=10)


async def absorb(event: Event, delivery: Delivery, spec: Spec, inbox: Inbox) -> Absorbed:
    """Give a verified event of the pinned instance its effect, or record the intent."""
    if event.user_id is None or not _is_asked_for(event.type, spec):
        return Absorbed.IGNORED
    if spec.dry_run:
        return Absorbed.DRY_RUN
    kind = _claim_of(event, spec)
    if kind is None and event.profile is not None:
        return await inbox.update_profile(delivery, event.profile, inserts=event.type == "user.created")
    if kind is None:
        return await inbox.create_profile(delivery, event.user_id)
    if kind is not ClaimKind.HOLDBACK:
        return await inbox.record_claim(delivery, event.user_id, kind)
    held = await inbox.record_claim(delivery, event.user_id, kind, spec.webhook.holdback)
    return Absorbed.RECORDED if spec.suspend and held is Absorbed.HELD else held


def _claim_of(event: Event, spec: Spec) -> ClaimKind | None:
    """Return what is recorded of an event, or None where it has its effect at once."""
    if event.type == "user.deleted" and spec.webhook.on_user_deleted is OnUserDeleted.HOLDBACK:
        return ClaimKind.HOLDBACK
    if spec.suspend:
        return ClaimKind.CATCH_UP
    if event.type == "user.deleted":
        return ClaimKind.DELETION
    if event.type == "user.updated":
        return None if event.profile is not None else ClaimKind.REFRESH
    return ClaimKind.CREATION if event.doubtful else None


def _is_asked_for(event_type: str, spec: Spec) -> bool:
    match event_type:
        case "user.created":
            return spec.webhook.on_user_created is not OnUserCreated.IGNORE
        case "user.updated":
            return bool(spec.target.mapping)
        case "user.deleted":
            return spec.webhook.on_user_deleted is not OnUserDeleted.IGNORE
        case _:
            return False


async def settle(claim: Claim, spec: Spec, directory: Directory, inbox: Inbox, clock: Clock) -> Settled:
    """Look the claim's user up and do what follows.

    Raises:
        TransientError, PermanentError: no usable answer; the caller postpones by `retry_delay`.
    """
    if claim.kind is ClaimKind.SECOND_SWEEP and await inbox.is_swept(claim):
        return Settled.SWEPT
    if claim.kind is ClaimKind.REFRESH:
        return await _refresh(claim, spec, directory, inbox)
    proof = await prove_absence(directory, clock, claim.user_id)
    if claim.kind is ClaimKind.CATCH_UP and not await _may_catch_up(claim, spec, inbox, lives=proof is None):
        await inbox.discard_claim(claim)
        return Settled.LEFT
    if proof is None:
        return await _settle_living(claim, spec, directory, inbox)
    if claim.kind is ClaimKind.CREATION:
        return await _leave_uncreated(claim, inbox)
    return await remove(claim, proof, spec.deletion, inbox)


async def _settle_living(claim: Claim, spec: Spec, directory: Directory, inbox: Inbox) -> Settled:
    if claim.kind not in {ClaimKind.CATCH_UP, ClaimKind.CREATION}:
        return await _wait_for_absence(claim, inbox)
    if directory.maps:
        return await _refresh(claim, spec, directory, inbox)
    await inbox.settle_by_creation(claim)
    return Settled.CREATED


async def _may_catch_up(claim: Claim, spec: Spec, inbox: Inbox, *, lives: bool) -> bool:
    """Whether an event that told what Clerk answers now would have its effect.

    With a holdback, a deletion has a claim of its own that keeps it, whatever the resource has come to say since.
    """
    if lives:
        return spec.webhook.on_user_created is not OnUserCreated.IGNORE or bool(spec.target.mapping)
    if spec.webhook.on_user_deleted is not OnUserDeleted.IMMEDIATE:
        return False
    return not await inbox.is_held_back(claim.user_id)


async def _leave_uncreated(claim: Claim, inbox: Inbox) -> Settled:
    """End the claim of somebody unknown at the second answer: a new user may reach one part of Clerk before another."""
    if claim.attempts == 0:
        await inbox.postpone_claim(claim, RETRY_DELAY, answered_present=False)
        return Settled.POSTPONED
    await inbox.discard_claim(claim)
    return Settled.UNKNOWN


async def _wait_for_absence(claim: Claim, inbox: Inbox) -> Settled:
    delays = HOLDBACK_DELAYS if claim.kind is ClaimKind.HOLDBACK else PRESENT_DELAYS
    if claim.present_answers < len(delays):
        await inbox.postpone_claim(claim, delays[claim.present_answers], answered_present=True)
        return Settled.POSTPONED
    await inbox.discard_claim(claim)
    if await inbox.is_unfinished(claim.user_id):
        return Settled.STOPPED
    return Settled.LIVES if claim.kind is ClaimKind.HOLDBACK else Settled.DISCARDED


async def _refresh(claim: Claim, spec: Spec, directory: Directory, inbox: Inbox) -> Settled:
    """Write what Clerk says now. Whom it does not know is left to `user.deleted` and to the runs."""
    profile = await directory.profile(claim.user_id) if directory.maps else None
    if profile is None and claim.kind is not ClaimKind.REFRESH:
        # Deleted since the look-up: that is to be proved as for everybody else.
        await inbox.postpone_claim(claim, retry_delay(claim), answered_present=False)
        return Settled.POSTPONED
    if profile is None:
        await inbox.discard_claim(claim)
        return Settled.GONE
    inserts = spec.webhook.on_user_created is not OnUserCreated.IGNORE
    await inbox.settle_by_update(claim, profile, inserts=inserts)
    return Settled.UPDATED


async def remove(claim: Claim, proof: Proof, deletion: Deletion, inbox: Inbox) -> Settled:
    """Remove the proved user of a claim, or say when it goes on."""
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
