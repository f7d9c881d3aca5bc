"""The centre: from drift, suspects, policy to a plan. Pure; decides, never acts.

Used by `sweeping` alone. Every rule that can hold a deletion back stands here, except the proof of each
single user, which `sweeping` gathers just before the DELETE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.core.plans import (
    Change,
    CreateProfiles,
    HeldBack,
    HoldReason,
    Plan,
    ReduceDuplicates,
    RemoveUsers,
    UpdateProfiles,
)
from controller.core.targets import Action, DeletionPolicy, Limits, Policy

if TYPE_CHECKING:
    from datetime import timedelta

    from controller.core.drift import Drift
    from controller.core.suspects import Suspects

PERCENT_APPLIES_FROM = 50
"""Users with rows from which the percentage counts; below it would stop at the first or second user."""
FEW_USERS = 5
"""How many users may go where the percentage does not count."""


def allowance(limits: Limits, users_with_rows: int) -> int:
    """How many users may go within the window, of `users_with_rows` who have rows or went within it."""
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
    if Action.FIX_PROGRESS in policy.actions and drift.outdated:
        changes.append(UpdateProfiles(drift.outdated))
    held_back = None
    if Action.CLEANUP in policy.actions and (drift.orphaned or suspects.contradicted):
        removes_rows = policy.deletion.policy is not DeletionPolicy.RETAIN
        held_back = _distrust(drift, suspects) or (_cascading(drift, cascades) if removes_rows else None)
        if held_back is None:
            removals, held_back = _removals(drift, suspects, policy.deletion.limits)
            changes += removals
    if Action.FIX_DUPLICATES in policy.actions and drift.duplicates:
        changes.append(ReduceDuplicates(drift.duplicated_users, drift.duplicates))
    return Plan(tuple(changes), held_back)


def _removals(drift: Drift, suspects: Suspects, limits: Limits) -> tuple[list[RemoveUsers], HeldBack | None]:
    removals = [RemoveUsers(suspects.approved)] if suspects.approved else []
    if not suspects.due:
        return removals, None
    base = drift.users_with_rows + suspects.removed - suspects.due_counted
    permitted = allowance(limits, base)
    if suspects.removed + suspects.due - suspects.due_counted > permitted:
        return removals, _beyond(suspects, base, permitted, limits)
    return [*removals, RemoveUsers(suspects.due, permitted)], None


def _distrust(drift: Drift, suspects: Suspects) -> HeldBack | None:
    """Refuse a listing that cannot be right; no approval helps against that."""
    if drift.clerk_users == 0:
        return HeldBack(
            HoldReason.EMPTY_SOURCE,
            drift.orphaned,
            drift.users_with_rows,
            f"Clerk listed no user at all while {drift.orphaned} users have rows; nothing is deleted. "
            "Check that the key is of the right instance.",
        )
    if suspects.contradicted:
        return HeldBack(
            HoldReason.PARTIAL_SOURCE,
            drift.orphaned + suspects.contradicted,
            drift.users_with_rows,
            f"Clerk's listing left out {suspects.contradicted} user(s) whom a look-up finds; nothing is "
            "deleted on such a listing. The next complete listing clears this.",
        )
    return None


def _cascading(drift: Drift, cascades: tuple[str, ...]) -> HeldBack | None:
    """Refuse to delete what would take rows of unlisted tables along, uncounted and not archived."""
    if not cascades:
        return None
    more = f" ({len(cascades) - 1} more such key(s) are among the warnings.)" if cascades[1:] else ""
    return HeldBack(HoldReason.UNLISTED_CASCADE, drift.orphaned, drift.users_with_rows, cascades[0] + more)


def _beyond(suspects: Suspects, base: int, permitted: int, limits: Limits) -> HeldBack:
    before = f" {suspects.removed} went within that time already;" if suspects.removed else ""
    return HeldBack(
        HoldReason.THRESHOLD_EXCEEDED,
        suspects.due,
        base,
        f"{suspects.due} of {base} users with rows are to be removed, more than the {permitted} who may go within "
        f"{in_hours(limits.window)} (limits: {limits.users} users, {limits.percent} percent);{before} none of them is "
        "deleted.",
    )


def in_hours(window: timedelta) -> str:
    """Write a duration for people: `24 h`."""
    hours = window.total_seconds() / 3600
    return f"{hours:g} h"
