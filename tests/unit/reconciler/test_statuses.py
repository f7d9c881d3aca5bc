from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.core.drift import Drift, TableDrift
from controller.core.outcomes import Changes, Outcome
from controller.core.plans import HeldBack, HoldReason, Plan
from controller.core.securing import SecurityReason, Verdict
from controller.core.targets import Action
from controller.errors import ClerkUnavailable, SecretNotFound, UserSyncError
from controller.kube.events import Severity
from controller.reconciler.conditions import ConditionType, find
from controller.reconciler.deciding import Trigger
from controller.reconciler.statuses import Failure, Look, Span, failed, started, succeeded, suspended, transition

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SPAN = Span(START, START + timedelta(seconds=20))
LATER = Span(START + timedelta(hours=1), START + timedelta(hours=1, seconds=20))
LOOK = Look(2, "r1", timedelta(hours=1), (Action.FULL_SYNC,))
CLEAN = Drift(100, 100, 100, 0, 0, 0, 0, 0, 3, (TableDrift("user_progress", 100, 100, 0),))
DRIFTED = Drift(100, 104, 98, 2, 1, 4, 1, 1, 3)
BLOCKED = Plan((), HeldBack(HoldReason.THRESHOLD_EXCEEDED, 60, 104, "60 of 104 users are gone; nothing is deleted."))
NEW: dict[str, Any] = {"observedGeneration": -1}


def outcome(found: Drift = DRIFTED, left: Drift = CLEAN, plan: Plan | None = None, **more: Any) -> Outcome:
    changes = more.pop("changes", Changes(2, 4, 9, 1))
    return Outcome("run-1", found, left, plan or Plan(), changes, **more)


def state(status: dict[str, Any], kind: ConditionType) -> str | None:
    found = find(status, kind)
    return found[0] if found else None


def states(status: dict[str, Any]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in status["conditions"]}


def since(status: dict[str, Any], kind: ConditionType) -> str:
    (time,) = [c["lastTransitionTime"] for c in status["conditions"] if c["type"] == kind.value]
    return str(time)


GOOD = succeeded(NEW, LOOK, outcome(), SPAN)
TRANSIENT = Failure.of(ClerkUnavailable("Clerk does not answer.", retry_after=timedelta(seconds=5)))
PERMANENT = Failure.of(SecretNotFound("Secret app/clerk does not exist."))


def test_a_good_run_is_ready_and_in_sync() -> None:
    assert states(GOOD) == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "InSync": "True",
        "DeletionBlocked": "False",
    }


def test_a_good_run_is_reported_in_counts() -> None:
    assert GOOD["observedGeneration"] == 2
    assert GOOD["lastHandledReconcileAt"] == "r1"
    assert GOOD["actions"] == "FullSync"
    assert GOOD["drift"] == {
        "total": 0,
        "clerkUsers": 100,
        "synced": 100,
        "missingProgress": 0,
        "orphaned": 0,
        "duplicates": 0,
        "outdated": 0,
        "clerkOnly": 0,
        "foreign": 3,
        "retained": 0,
        "tables": [{"name": "user_progress", "rows": 100, "users": 100, "orphanedRows": 0}],
    }
    assert GOOD["changes"] == {
        "profilesCreated": 2,
        "profilesUpdated": 0,
        "usersRemoved": 4,
        "rowsRemoved": 9,
        "duplicatesRemoved": 1,
        "usersLeft": 0,
    }
    assert GOOD["lastRun"] == {
        "id": "run-1",
        "startTime": "2026-11-23T12:00:00Z",
        "finishTime": "2026-11-23T12:00:20Z",
        "result": "Succeeded",
        "reason": "Succeeded",
        "message": "2 profiles created, 4 users removed (9 rows), 1 duplicate removed. In sync: 100 users.",
        "actions": ["FullSync"],
        "dryRun": False,
    }
    assert (GOOD["lastSuccessTime"], GOOD["nextRunTime"]) == ("2026-11-23T12:00:20Z", "2026-11-23T13:00:00Z")
    assert GOOD["consecutiveFailures"] == 0
    assert GOOD["receipts"] == {"count": 0}


@pytest.mark.parametrize(("holds", "written"), [(True, "True"), (False, "False"), (None, "Unknown")])
def test_what_the_policies_come_to_is_a_condition_and_leaves_ready_true(*, holds: bool | None, written: str) -> None:
    status = succeeded(NEW, LOOK, outcome(security=Verdict(SecurityReason.POLICIES_OPEN, "In words.", holds)), SPAN)
    assert find(status, ConditionType.ROW_LEVEL_SECURITY) == (written, "PoliciesOpen", "In words.")
    assert state(status, ConditionType.READY) == "True"


def test_the_condition_goes_when_nobody_looks_at_the_policies_any_more() -> None:
    before = succeeded(
        NEW, LOOK, outcome(security=Verdict(SecurityReason.POLICIES_OPEN, "In words.", holds=False)), SPAN
    )
    assert find(succeeded(before, LOOK, outcome(), LATER), ConditionType.ROW_LEVEL_SECURITY) is None


def test_a_failed_run_leaves_what_was_known_of_the_policies() -> None:
    before = succeeded(
        NEW, LOOK, outcome(security=Verdict(SecurityReason.POLICIES_OPEN, "In words.", holds=False)), SPAN
    )
    assert state(failed(before, LOOK, TRANSIENT, LATER), ConditionType.ROW_LEVEL_SECURITY) == "False"


def test_drift_that_is_only_reported_leaves_ready_true() -> None:
    status = succeeded(NEW, LOOK, outcome(left=DRIFTED, changes=Changes()), SPAN)
    assert (state(status, ConditionType.READY), state(status, ConditionType.IN_SYNC)) == ("True", "False")
    assert "2 without a profile, 4 orphaned, 1 duplicate" in str(find(status, ConditionType.IN_SYNC))


def test_a_blocked_deletion_leaves_ready_true_and_says_why() -> None:
    status = succeeded(NEW, LOOK, outcome(left=DRIFTED, plan=BLOCKED), SPAN)
    assert find(status, ConditionType.DELETION_BLOCKED) == (
        "True",
        "ThresholdExceeded",
        "60 of 104 users are gone; nothing is deleted.",
    )
    assert state(status, ConditionType.READY) == "True"
    assert status["pendingDeletion"] == {
        "users": 60,
        "percent": 57.7,
        "reason": "ThresholdExceeded",
        "since": "2026-11-23T12:00:20Z",
    }


def test_a_deletion_that_stays_blocked_keeps_its_time() -> None:
    first = succeeded(NEW, LOOK, outcome(plan=BLOCKED), SPAN)
    assert succeeded(first, LOOK, outcome(plan=BLOCKED), LATER)["pendingDeletion"]["since"] == "2026-11-23T12:00:20Z"


def test_a_deletion_that_is_blocked_no_more_is_gone_from_the_status() -> None:
    first = succeeded(NEW, LOOK, outcome(plan=BLOCKED), SPAN)
    status = succeeded(first, LOOK, outcome(), LATER)
    assert "pendingDeletion" not in status
    assert state(status, ConditionType.DELETION_BLOCKED) == "False"


def test_a_dry_run_says_that_nothing_was_changed() -> None:
    status = succeeded(NEW, LOOK, outcome(left=DRIFTED, dry_run=True), SPAN)
    assert "Dry run, nothing was changed" in status["lastRun"]["message"]


def test_a_transient_failure_is_retried() -> None:
    status = failed(GOOD, LOOK, TRANSIENT, LATER)
    assert states(status) == {
        "Ready": "False",
        "Reconciling": "True",
        "Stalled": "False",
        "InSync": "Unknown",
        "DeletionBlocked": "False",
    }
    assert find(status, ConditionType.READY) == ("False", "ClerkUnavailable", "Clerk does not answer.")
    assert status["nextRunTime"] == "2026-11-23T13:00:30Z"


def test_a_permanent_failure_is_stalled() -> None:
    status = failed(GOOD, LOOK, PERMANENT, LATER)
    assert find(status, ConditionType.STALLED) == ("True", "SecretNotFound", "Secret app/clerk does not exist.")
    assert state(status, ConditionType.RECONCILING) == "False"
    assert status["nextRunTime"] == "2026-11-23T13:00:50Z"


def test_a_failure_keeps_what_is_known_and_counts() -> None:
    status = failed(failed(GOOD, LOOK, TRANSIENT, LATER), LOOK, TRANSIENT, LATER)
    assert status["drift"] == GOOD["drift"]
    assert status["lastSuccessTime"] == GOOD["lastSuccessTime"]
    assert status["consecutiveFailures"] == 2
    assert "changes" not in status
    assert status["lastRun"]["result"] == "Failed"
    assert "id" not in status["lastRun"]


def test_the_next_good_run_clears_a_failure() -> None:
    status = succeeded(failed(GOOD, LOOK, PERMANENT, LATER), LOOK, outcome(), LATER)
    assert states(status) == states(GOOD)
    assert status["consecutiveFailures"] == 0


def test_an_unchanged_condition_keeps_its_transition_time() -> None:
    status = succeeded(GOOD, LOOK, outcome(left=DRIFTED), LATER)
    assert since(status, ConditionType.READY) == "2026-11-23T12:00:20Z"
    assert since(status, ConditionType.IN_SYNC) == "2026-11-23T13:00:20Z"


def test_a_new_spec_is_reconciling_until_its_run_has_ended() -> None:
    status = started(GOOD, Look(3, "r1", timedelta(hours=1), (Action.CLEANUP,)), Trigger.GENERATION, LATER.start)
    assert find(status, ConditionType.RECONCILING) == ("True", "NewGeneration", "A run is under way.")
    assert status["observedGeneration"] == 2
    assert state(status, ConditionType.READY) == "True"


def test_before_the_first_run_has_ended_ready_is_unknown() -> None:
    status = started(NEW, LOOK, Trigger.GENERATION, START)
    assert find(status, ConditionType.READY) == ("Unknown", "FirstRun", "The first run is under way.")
    assert "lastHandledReconcileAt" not in status


def test_a_suspension_moves_the_generation_and_answers_requests_and_leaves_ready() -> None:
    look = Look(5, "r9", timedelta(hours=1), (Action.FULL_SYNC,))
    for before, ready in ((GOOD, "True"), (failed(GOOD, LOOK, PERMANENT, LATER), "False"), (NEW, "Unknown")):
        status = suspended(before, look, LATER.start)
        assert (status["observedGeneration"], status["lastHandledReconcileAt"]) == (5, "r9")
        assert state(status, ConditionType.READY) == ready
        assert state(status, ConditionType.RECONCILING) == "False"
        assert "nextRunTime" not in status


def test_an_empty_request_is_answered_too() -> None:
    assert succeeded(NEW, Look(2, "", timedelta(hours=1)), outcome(), SPAN)["lastHandledReconcileAt"] == ""


def test_sizes_are_bounded() -> None:
    status = failed(NEW, LOOK, Failure("X", "x" * 100_000), SPAN)
    status |= succeeded(NEW, LOOK, outcome(warnings=("w" * 9000,) * 1000), SPAN) | {"lastRun": status["lastRun"]}
    assert len(json.dumps(status)) < 40_000


def test_no_null_is_sent() -> None:
    for status in (GOOD, failed(NEW, LOOK, TRANSIENT, SPAN), suspended(NEW, LOOK, START)):
        assert "null" not in json.dumps(status)


def test_every_reason_is_one_that_the_api_server_takes() -> None:
    pattern = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
    statuses = [
        GOOD,
        failed(NEW, LOOK, TRANSIENT, SPAN),
        failed(NEW, LOOK, PERMANENT, SPAN),
        suspended(NEW, LOOK, START),
        succeeded(NEW, LOOK, outcome(plan=BLOCKED), SPAN),
        started(NEW, LOOK, Trigger.REQUEST, START),
    ]
    reasons = [condition["reason"] for status in statuses for condition in status["conditions"]]
    assert [reason for reason in reasons if not pattern.fullmatch(reason)] == []


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (SecretNotFound("gone"), Failure("SecretNotFound", "gone", permanent=True)),
        (ClerkUnavailable("away"), Failure("ClerkUnavailable", "away")),
        (UserSyncError("odd"), Failure("Error", "odd")),
        (
            ExceptionGroup("tasks", [ValueError(), SecretNotFound("gone")]),
            Failure("SecretNotFound", "gone", permanent=True),
        ),
    ],
)
def test_an_error_becomes_its_reason_and_words(error: Exception, failure: Failure) -> None:
    assert Failure.of(error) == failure


def test_a_fault_of_our_own_shows_no_detail() -> None:
    failure = Failure.of(ValueError("user_123 sk_test_1"))
    assert failure.reason == "InternalError"
    assert "user_123" not in failure.message


@pytest.mark.parametrize(
    ("before", "after", "severity", "reason"),
    [
        (NEW, GOOD, Severity.NORMAL, "Succeeded"),
        (NEW, failed(NEW, LOOK, PERMANENT, SPAN), Severity.WARNING, "SecretNotFound"),
        (GOOD, failed(GOOD, LOOK, TRANSIENT, LATER), Severity.WARNING, "ClerkUnavailable"),
        (failed(GOOD, LOOK, TRANSIENT, LATER), GOOD, Severity.NORMAL, "Succeeded"),
        (GOOD, succeeded(GOOD, LOOK, outcome(plan=BLOCKED), LATER), Severity.WARNING, "ThresholdExceeded"),
        (succeeded(GOOD, LOOK, outcome(plan=BLOCKED), LATER), GOOD, Severity.NORMAL, "Succeeded"),
        (GOOD, succeeded(GOOD, LOOK, outcome(left=DRIFTED), LATER), Severity.NORMAL, "DriftFound"),
    ],
)
def test_a_transition_is_told_once(
    before: dict[str, Any], after: dict[str, Any], severity: Severity, reason: str
) -> None:
    notice = transition(before, after)
    assert notice is not None
    assert (notice.severity, notice.reason) == (severity, reason)
    assert transition(after, after) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (GOOD, succeeded(GOOD, LOOK, outcome(changes=Changes()), LATER)),
        (failed(GOOD, LOOK, TRANSIENT, LATER), failed(failed(GOOD, LOOK, TRANSIENT, LATER), LOOK, TRANSIENT, LATER)),
        (NEW, started(NEW, LOOK, Trigger.GENERATION, START)),
        (GOOD, suspended(GOOD, LOOK, START)),
    ],
    ids=["same result", "same failure", "start", "suspension"],
)
def test_what_is_no_transition_is_not_told(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert transition(before, after) is None
