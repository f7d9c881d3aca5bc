"""The whole status of a UserSync, from the old one and what a run came to. Pure.

Decides what people and tools read: counts, never ids; sizes are bounded. Always the whole status, since what a
server-side apply leaves out is removed. Used by `reconciling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller.core.plans import HoldReason
from controller.errors import PermanentError, TransientError, UserSyncError
from controller.kube.events import Notice, Severity
from controller.kube.shapes import (
    changes_shape,
    claims_held,
    describe_drift,
    drift_shape,
    outcome_reason,
    pending_deletion_shape,
    receipts_shape,
    summarize,
)
from controller.reconciler import deciding
from controller.reconciler.conditions import Condition, ConditionType, State, cut, find, merge
from controller.reconciler.deciding import Trigger, write_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from controller.core.outcomes import Outcome
    from controller.core.targets import Action

Status = dict[str, Any]

WARNINGS_MAX = 20
SECURITY = ConditionType.ROW_LEVEL_SECURITY


@dataclass(frozen=True, slots=True)
class Look:
    """What a report speaks of: the resource as it was when the run began. `actions` is empty if it is invalid."""

    generation: int
    requested: str | None
    interval: timedelta
    actions: tuple[Action, ...] = ()
    dry_run: bool = False
    approval: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """When a run began and ended."""

    start: datetime
    finish: datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed, freed from its exception."""

    reason: str
    message: str
    permanent: bool = False
    retry_after: timedelta | None = None

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Read an error; one from outside our tree is a fault of usersync, and is tried again."""
        match error:
            case ExceptionGroup():
                known = error.subgroup(UserSyncError)
                return cls.of((known or error).exceptions[0])
            case PermanentError():
                return cls(error.reason, str(error), permanent=True)
            case TransientError():
                return cls(error.reason, str(error), retry_after=error.retry_after)
            case UserSyncError():
                return cls(error.reason, str(error))
            case _:
                return cls("InternalError", f"A fault of usersync ({type(error).__name__}); its log has the details.")


def started(before: Mapping[str, Any], look: Look, trigger: Trigger, now: datetime) -> Status:
    """Note that a new spec, or a request, is being worked on; `observedGeneration` moves at the end only."""
    why = {
        Trigger.GENERATION: "NewGeneration",
        Trigger.REQUEST: "RunRequested",
        Trigger.APPROVAL: "DeletionApproved",
    }.get(trigger, "Retrying")
    wanted = [
        Condition(ConditionType.RECONCILING, State.TRUE, why, "A run is under way."),
        Condition(ConditionType.STALLED, State.FALSE, why, ""),
    ]
    if find(before, ConditionType.READY) is None:
        wanted.append(Condition(ConditionType.READY, State.UNKNOWN, "FirstRun", "The first run is under way."))
    return {**before, "conditions": _conditions(before, wanted, look, now), "actions": _words(look.actions)}


def suspended(before: Mapping[str, Any], look: Look, now: datetime) -> Status:
    """Note a suspension: the spec is observed, a request is answered, nothing is due, `Ready` stays as it is."""
    wanted = [Condition(ConditionType.RECONCILING, State.FALSE, "Suspended", "Runs are suspended by spec.suspend.")]
    if find(before, ConditionType.READY) is None:
        wanted.append(Condition(ConditionType.READY, State.UNKNOWN, "Suspended", "There has been no run yet."))
    status = _handled(before, look)
    status["conditions"] = _conditions(before, wanted, look, now)
    status.pop("nextRunTime", None)
    return status


def succeeded(before: Mapping[str, Any], look: Look, outcome: Outcome, span: Span) -> Status:
    """Report a run that ended well; a blocked deletion, or drift that is only reported, is no failure."""
    summary = summarize(outcome)
    reason = outcome_reason(outcome)
    drift = outcome.remaining
    wanted = [
        Condition(ConditionType.READY, State.TRUE, reason, summary),
        Condition(ConditionType.RECONCILING, State.FALSE, "RunFinished", ""),
        Condition(ConditionType.STALLED, State.FALSE, "RunFinished", ""),
        Condition(
            ConditionType.IN_SYNC,
            State.of(not drift.total),
            "DriftFound" if drift.total else "NoDrift",
            describe_drift(drift),
        ),
        _deletion_blocked(outcome),
    ]
    if outcome.security is not None:
        verdict = outcome.security
        state = State.UNKNOWN if verdict.holds is None else State.of(verdict.holds)
        wanted.append(Condition(SECURITY, state, verdict.reason.value, verdict.message))
    status = _handled(before, look)
    status |= {
        "conditions": _conditions(before, wanted, look, span.finish),
        "drift": drift_shape(drift),
        "changes": changes_shape(outcome.changes),
        "lastRun": _last_run(look, span, outcome.run_id, ("Succeeded", reason, summary)),
        "lastSuccessTime": write_time(span.finish),
        "nextRunTime": write_time(deciding.next_run(span.start, span.finish, look.interval)),
        "consecutiveFailures": 0,
    }
    _set(status, "warnings", [cut(warning) for warning in outcome.warnings[:WARNINGS_MAX]])
    _set(status, "pendingDeletion", _pending_deletion(before, outcome, span))
    status["receipts"] = receipts_shape(outcome.closing)
    if outcome.security is None:
        # Nobody looks any more: what was found before would be read as today's.
        status["conditions"] = [each for each in status["conditions"] if each["type"] != SECURITY.value]
    return status


def _deletion_blocked(outcome: Outcome) -> Condition:
    held_back, claims = outcome.held_back, claims_held(outcome.closing)
    if held_back is not None:
        return Condition(ConditionType.DELETION_BLOCKED, State.TRUE, held_back.reason.value, held_back.message)
    if claims:
        return Condition(ConditionType.DELETION_BLOCKED, State.TRUE, HoldReason.AWAITING_APPROVAL.value, claims)
    return Condition(ConditionType.DELETION_BLOCKED, State.FALSE, "NothingHeldBack", "")


def failed(before: Mapping[str, Any], look: Look, failure: Failure, span: Span) -> Status:
    """Report a run that failed; what an earlier run found stays, for it is the last that is known."""
    failures = int(before.get("consecutiveFailures", 0)) + 1
    wait = deciding.retry_delay(failures, permanent=failure.permanent, retry_after=failure.retry_after)
    since = before.get("lastSuccessTime")
    wanted = [
        Condition(ConditionType.READY, State.FALSE, failure.reason, failure.message),
        Condition(
            ConditionType.RECONCILING,
            State.of(not failure.permanent),
            "Stalled" if failure.permanent else "Retrying",
            "" if failure.permanent else "The run is tried again.",
        ),
        Condition(
            ConditionType.STALLED,
            State.of(failure.permanent),
            failure.reason if failure.permanent else "Retrying",
            failure.message if failure.permanent else "",
        ),
        Condition(
            ConditionType.IN_SYNC,
            State.UNKNOWN,
            failure.reason,
            f"Not known since {since}." if since else "No run has succeeded yet.",
        ),
    ]
    status = _handled(before, look)
    status |= {
        "conditions": _conditions(before, wanted, look, span.finish),
        "lastRun": _last_run(look, span, None, ("Failed", failure.reason, failure.message)),
        "nextRunTime": write_time(span.finish + wait),
        "consecutiveFailures": failures,
    }
    # they would be read as this run's, which did not end
    status.pop("changes", None)
    return status


def transition(before: Mapping[str, Any], after: Mapping[str, Any]) -> Notice | None:
    """Return what an Event should tell of the step from one status to the next; at most one thing."""
    blocked = find(after, ConditionType.DELETION_BLOCKED)
    if blocked and blocked[0] == State.TRUE.value and _changed(before, after, ConditionType.DELETION_BLOCKED):
        return Notice(Severity.WARNING, blocked[1], blocked[2])
    for kind in (ConditionType.READY, ConditionType.DELETION_BLOCKED, ConditionType.IN_SYNC):
        condition = find(after, kind)
        if condition is None or condition[0] == State.UNKNOWN.value or not _changed(before, after, kind):
            continue
        state, reason, message = condition
        if kind is ConditionType.READY and state == State.FALSE.value:
            return Notice(Severity.WARNING, reason, message)
        if find(before, kind) is None and kind is not ConditionType.READY:
            continue
        return Notice(Severity.NORMAL, reason, message or f"{kind.value} is {state}.")
    return None


def _changed(before: Mapping[str, Any], after: Mapping[str, Any], kind: ConditionType) -> bool:
    old, new = find(before, kind), find(after, kind)
    return (old and old[:2]) != (new and new[:2])


def _handled(before: Mapping[str, Any], look: Look) -> Status:
    status = {**before, "observedGeneration": look.generation}
    if look.actions:
        status["actions"] = _words(look.actions)
    if look.requested is not None:
        # an empty value is echoed as well: unanswered, it would ask for run after run
        status["lastHandledReconcileAt"] = look.requested
    _set(status, "lastHandledApproval", look.approval)
    return status


def _conditions(
    before: Mapping[str, Any], wanted: Sequence[Condition], look: Look, now: datetime
) -> list[dict[str, Any]]:
    return merge(before.get("conditions", ()), wanted, generation=look.generation, now=write_time(now))


def _last_run(look: Look, span: Span, run_id: str | None, verdict: tuple[str, str, str]) -> Status:
    result, reason, message = verdict
    last_run: Status = {
        "startTime": write_time(span.start),
        "finishTime": write_time(span.finish),
        "result": result,
        "reason": reason,
        "message": cut(message),
        "actions": [action.value for action in look.actions],
        "dryRun": look.dry_run,
    }
    _set(last_run, "id", run_id)
    return last_run


def _pending_deletion(before: Mapping[str, Any], outcome: Outcome, span: Span) -> Status | None:
    held_back = outcome.held_back
    if held_back is None:
        return None
    old = before.get("pendingDeletion") or {}
    # Without a set in the database the status alone knows since when.
    same = held_back.since is None and old.get("reason") == held_back.reason.value
    since = old.get("since") if same else None
    return pending_deletion_shape(held_back, since or write_time(held_back.since or span.finish))


def _words(actions: tuple[Action, ...]) -> str:
    return ", ".join(action.value for action in actions)


def _set(status: Status, field: str, value: object) -> None:
    """Set a field, or leave it out: the API server refuses null."""
    if value:
        status[field] = value
    else:
        status.pop(field, None)
