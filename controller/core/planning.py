"""The centre: from drift, suspects, policy to a plan. Pure; decides, never acts.

Used by `sweeping` alone. Every rule that can hold a deletion back stands here, except the proof of each
single user, which `sweeping` gathers just before the DELETE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.core.plans import (
    Change,
    CreateProfiles,
    HeldBack,
    HoldReason,
    Plan,
    ReduceDuplicates,
    RemoveUsers,
)
from controller.core.targets import Action, Limits, Policy

if TYPE_CHECKING:
    from controller.core.drift import Drift

PERCENT_APPLIES_FROM = 50
"""Users with rows from which the percentage counts; below it would stop at the first or second user."""
FEW_USERS = 5
"""How many users may go where the percentage does not count."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """What the second look said of the users missing from the listing.

    `absent` were not found by the `user_id` filter either; the look may stop early, so `absent` is a
    lower bound once it is above every limit. `contradicted` were found although they should have been
    listed: proof that the listing hid somebody.
    """

    absent: int = 0
    contradicted: int = 0


def allowance(limits: Limits, users_with_rows: int) -> int:
    """How many of `users_with_rows` users one run may remove."""
    if users_with_rows < PERCENT_APPLIES_FROM:
        return min(limits.users, FEW_USERS)
    return min(limits.users, users_with_rows * limits.percent // 100)


def plan(drift: Drift, suspects: Suspects, policy: Policy, cascades: tuple[str, ...] = ()) -> Plan:
    """Decide what the run may change.

    `cascades`: why a removal would take rows along that nobody has listed (`Inspection.unlisted_cascades`).
    A `dry_run` is planned like any other; it is `sweeping` that does not apply.
    """
    changes: list[Change] = []
    if Action.FIX_PROGRESS in policy.actions and drift.missing:
        changes.append(CreateProfiles(drift.missing))
    held_back = None
    if Action.CLEANUP in policy.actions and (drift.orphaned or suspects.contradicted):
        held_back = _hold_back(drift, suspects, policy.limits, cascades)
        if held_back is None and suspects.absent:
            changes.append(RemoveUsers(suspects.absent))
    if Action.FIX_DUPLICATES in policy.actions and drift.duplicates:
        changes.append(ReduceDuplicates(drift.duplicated_users, drift.duplicates))
    return Plan(tuple(changes), held_back)


def _hold_back(drift: Drift, suspects: Suspects, limits: Limits, cascades: tuple[str, ...]) -> HeldBack | None:
    base = drift.users_with_rows
    if drift.clerk_users == 0:
        return HeldBack(
            HoldReason.EMPTY_SOURCE,
            drift.orphaned,
            base,
            f"Clerk listed no user at all while {drift.orphaned} users have rows; nothing is deleted. "
            "Check that the key is of the right instance.",
        )
    if suspects.contradicted:
        return HeldBack(
            HoldReason.PARTIAL_SOURCE,
            drift.orphaned + suspects.contradicted,
            base,
            f"Clerk's listing left out {suspects.contradicted} user(s) whom a look-up finds; nothing is "
            "deleted on such a listing. The next complete listing clears this.",
        )
    if cascades:
        more = f" ({len(cascades) - 1} more such key(s) are among the warnings.)" if cascades[1:] else ""
        return HeldBack(HoldReason.UNLISTED_CASCADE, drift.orphaned, base, cascades[0] + more)
    permitted = allowance(limits, base)
    if suspects.absent > permitted:
        return HeldBack(
            HoldReason.THRESHOLD_EXCEEDED,
            drift.orphaned,
            base,
            f"{drift.orphaned} of {base} users with rows are gone from Clerk, more than the {permitted} that "
            f"one run may remove (limits: {limits.users} users, {limits.percent} percent); nothing is "
            "deleted. If this is right, raise spec.deletion.limits for one run.",
        )
    return None
