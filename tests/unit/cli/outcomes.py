"""Builds drifts and outcomes for the tests of the command line, in sync unless said otherwise."""

from __future__ import annotations

from typing import Any

from controller.core.drift import Drift, TableDrift
from controller.core.outcomes import Changes, Outcome
from controller.core.plans import HeldBack, HoldReason, Plan

TABLES = (TableDrift("user_progress", 98, 98, 0), TableDrift("tasks", 1204, 77, 0))
IN_SYNC: dict[str, Any] = {
    "clerk_users": 98,
    "users_with_rows": 98,
    "synced": 98,
    "missing": 0,
    "clerk_only": 0,
    "orphaned": 0,
    "duplicates": 0,
    "duplicated_users": 0,
    "foreign": 0,
    "tables": TABLES,
}


def drift(**counts: Any) -> Drift:
    """A drift in sync but for `counts`."""
    return Drift(**(IN_SYNC | counts))


def outcome(found: Drift | None = None, remaining: Drift | None = None, **rest: Any) -> Outcome:
    """A finished run; what remains is what was found, unless said otherwise."""
    found = found or drift()
    given: dict[str, Any] = {"plan": Plan(), "changes": Changes()} | rest
    return Outcome("6f1c", found, remaining or found, **given)


def held_back(reason: HoldReason = HoldReason.THRESHOLD_EXCEEDED) -> Plan:
    """A plan whose removal was stopped."""
    return Plan((), HeldBack(reason, 30, 240, "30 of 240 users with rows are gone from Clerk; nothing is deleted."))
