"""Is a run of this resource due, and if not, when? Pure.

Reads the schedule from the status alone, so that a restart neither skips a run nor repeats one. Used by
`reconciling` at every look.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from controller.kube.approvals import approved_digest
from controller.kube.fields import RECONCILE_AT

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_FIRST = timedelta(seconds=10)
RETRY_FIRST_PERMANENT = timedelta(seconds=30)
RETRY_MAX = timedelta(minutes=10)
PAUSE = timedelta(seconds=30)
"""Between a run that outlasts its interval and the next: Clerk's limit is shared with the live application."""
JITTER_MAX = timedelta(seconds=30)


class Trigger(Enum):
    """Why a run is due; the values stand in logs."""

    GENERATION = "spec_changed"
    REQUEST = "requested"
    APPROVAL = "approved"
    SCHEDULE = "interval"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Run:
    """A run is due now."""

    trigger: Trigger


@dataclass(frozen=True, slots=True)
class Suspend:
    """No run; that the resource is suspended has to be noted in its status."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until then; None: until something happens."""

    until: datetime | None = None


Decision = Run | Suspend | Wait


@dataclass(frozen=True, slots=True)
class Standing:
    """What a look finds in a resource, as far as it matters for the decision."""

    uid: str
    generation: int
    observed_generation: int
    requested: str | None
    handled: str | None
    approval: str | None
    handled_approval: str | None
    suspended: bool
    interval: timedelta
    failed: bool
    next_run: datetime | None
    last_start: datetime | None

    @classmethod
    def of(cls, resource: Mapping[str, Any], interval: timedelta) -> Standing:
        """Read a resource; `interval` comes from its valid spec, or stands in for it."""
        metadata, status = resource["metadata"], resource.get("status") or {}
        last_run = status.get("lastRun") or {}
        return cls(
            uid=metadata["uid"],
            generation=metadata["generation"],
            observed_generation=status.get("observedGeneration", -1),
            requested=requested_at(resource),
            handled=status.get("lastHandledReconcileAt"),
            approval=approved_digest(resource),
            handled_approval=status.get("lastHandledApproval"),
            suspended=resource["spec"].get("suspend") is True,
            interval=interval,
            failed=last_run.get("result") == "Failed",
            next_run=read_time(status.get("nextRunTime")),
            last_start=read_time(last_run.get("startTime")),
        )


def requested_at(resource: Mapping[str, Any]) -> str | None:
    """Return the value of the annotation that asks for a run."""
    value: str | None = (resource["metadata"].get("annotations") or {}).get(RECONCILE_AT)
    return value


def decide(standing: Standing, now: datetime, first_seen: datetime) -> Decision:
    """Decide; `first_seen` is when this process first looked at the resource."""
    unhandled = standing.requested is not None and standing.requested != standing.handled
    unobserved = standing.generation != standing.observed_generation
    if standing.suspended:
        noted = not unobserved and not unhandled and standing.next_run is None
        return Wait() if noted else Suspend()
    if unobserved:
        return Run(Trigger.GENERATION)
    if unhandled:
        return Run(Trigger.REQUEST)
    if standing.approval is not None and standing.approval != standing.handled_approval:
        return Run(Trigger.APPROVAL)
    due = _due(standing, now, first_seen)
    if due > now:
        return Wait(due)
    return Run(Trigger.RETRY if standing.failed else Trigger.SCHEDULE)


def _due(standing: Standing, now: datetime, first_seen: datetime) -> datetime:
    due = standing.next_run
    if due is None:
        due = standing.last_start + standing.interval if standing.last_start else now
    # a clock that was set back, or a status written by hand, must not put the runs off for long
    due = min(due, now + max(standing.interval, RETRY_MAX))
    if due < first_seen:
        # overdue when this process started, and so is every other resource: not all at once
        due = first_seen + jitter(standing.uid, standing.interval)
    return due


def jitter(uid: str, interval: timedelta) -> timedelta:
    """Return the resource's own small delay: the same at every start."""
    share = zlib.crc32(uid.encode()) / 2**32
    return share * min(interval / 10, JITTER_MAX)


def next_run(start: datetime, finish: datetime, interval: timedelta) -> datetime:
    """When the run after a good one is due: an interval from its start."""
    return max(start + interval, finish + PAUSE)


def retry_delay(failures: int, *, permanent: bool, retry_after: timedelta | None = None) -> timedelta:
    """How long to wait after the `failures`-th failure in a row; a longer wait that was asked for is kept to."""
    first = RETRY_FIRST_PERMANENT if permanent else RETRY_FIRST
    delay = min(first * (1 << min(max(failures, 1) - 1, 16)), RETRY_MAX)
    return max(delay, retry_after or delay)


def read_time(text: object) -> datetime | None:
    """Read a time of the status; None for anything that is no time."""
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def write_time(time: datetime) -> str:
    """Write a time as the API server does, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
