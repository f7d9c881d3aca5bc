"""One look at one UserSync: is a run due, and if so run it and report.

Decides nothing about users or rows; reads the resource and its Secrets afresh each time, so that nothing old is
acted upon. Every error ends here, as conditions. Used by `dispatching`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from controller.core.targets import Spec
from controller.errors import InvalidSpec, KubernetesUnavailable, TargetBusy, UserSyncError
from controller.kube.approvals import approved_digest, read_approval
from controller.kube.specs import UserSync, read_user_sync
from controller.reconciler import statuses
from controller.reconciler.deciding import Run, Standing, Suspend, Trigger, Wait, decide, read_time, requested_at
from controller.reconciler.statuses import Failure, Look, Span

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from controller.core.outcomes import Outcome
    from controller.core.ports import Clock
    from controller.core.sweeping import Sweeper
    from controller.core.targets import Approval
    from controller.kube.client import Resource, Written
    from controller.kube.events import Notice
    from controller.reconciler.metrics import Metrics
    from controller.reconciler.queue import Key
    from controller.settings import Credentials

log = structlog.get_logger(__name__)

BUSY_RETRY = timedelta(seconds=10)
BUSY_REPORTED_AFTER = timedelta(minutes=2)
"""A run of another process is no failure; one whose process died holds the lock until its heart is missed."""
API_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
ONCE_MORE = 1.0


Build = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Makes a whole status of the present one."""


class Api(Protocol):
    """What of the API server a look needs."""

    async def get_user_sync(self, namespace: str, name: str) -> Resource | None:
        """Read the resource."""

    async def credentials(self, user_sync: UserSync) -> Credentials:
        """Read the Secrets that it names."""

    async def write_status(self, observed: Resource, build: Build) -> Written | None:
        """Replace its status."""


class Teller(Protocol):
    """Who writes Events."""

    async def post(self, resource: Resource, notice: Notice) -> None:
        """Write one; never fails."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a look works with. `open_sweeper` opens Clerk and the database for one run."""

    api: Api
    events: Teller
    open_sweeper: Callable[[Spec, Credentials], AbstractAsyncContextManager[Sweeper]]
    clock: Clock
    metrics: Metrics
    holder: str


@dataclass(slots=True)
class _Memory:
    """What this process alone knows of a resource; losing it costs nothing but a little time."""

    uid: str
    first_seen: datetime
    busy_since: datetime | None = None
    busy_until: datetime | None = None
    unreported: Build | None = None
    """What a run came to that could not be written yet."""
    refusals: int = 0


@dataclass(slots=True)
class Reconciler:
    """Looks at resources; one look at a time for each."""

    tools: Tools
    _memories: dict[Key, _Memory] = field(default_factory=dict)

    async def look(self, key: Key) -> float | None:
        """Do what is due for `key`; returns the seconds until the next look, or None if the resource is gone."""
        try:
            resource = await self.tools.api.get_user_sync(*key)
            if resource is None or resource["metadata"].get("deletionTimestamp"):
                self._forget(key)
                return None
            wait = await self._look_at(key, resource)
            self._memories[key].refusals = 0
        except UserSyncError as error:
            # of Kubernetes, for all others have become a status by now. A refusal too is tried again: an API server
            # that starts refuses everybody for a moment, and a missing right may be given.
            log.warning("api_server_failed", resource=str(key), reason=error.reason, error=str(error))
            return self._wait_for_api(key)
        return wait

    async def _look_at(self, key: Key, resource: Resource) -> float | None:
        now = self.tools.clock.now()
        memory = self._memory(key, resource, now)
        if memory.unreported is not None:
            await self._report(key, resource, memory.unreported)
            return ONCE_MORE
        user_sync, invalid = _read(resource)
        interval = user_sync.spec.interval if user_sync else Spec("").interval
        look = _look(resource, user_sync, interval)
        match decide(Standing.of(resource, interval), now, memory.first_seen):
            case Wait(until):
                return _seconds(until, now)
            case Suspend():
                await self._write(resource, lambda before: statuses.suspended(before, look, now))
                return _seconds(None, now)
            case Run(trigger):
                if memory.busy_until is not None and now < memory.busy_until:
                    return _seconds(memory.busy_until, now)
                if user_sync is None:
                    return await self._report_failure(key, resource, look, Failure.of(invalid), now)
                return await self._run(key, resource, user_sync, trigger)

    async def _run(self, key: Key, resource: Resource, user_sync: UserSync, trigger: Trigger) -> float | None:
        start = self.tools.clock.now()
        look = _look(resource, user_sync, user_sync.spec.interval)
        if trigger in {Trigger.GENERATION, Trigger.REQUEST, Trigger.APPROVAL}:
            await self._write(resource, lambda before: statuses.started(before, look, trigger, start))
        log.info("run_started", resource=str(key), trigger=trigger.value)
        try:
            outcome = await self._sweep(user_sync, read_approval(resource))
        except KubernetesUnavailable:
            # while the Secrets were read: no failure of the run, and nothing that could be reported now
            raise
        except TargetBusy as error:
            return await self._report_busy(key, resource, look, error, start)
        except Exception as error:
            # the entry point: whatever happened becomes a condition
            failure = Failure.of(error)
            if failure.reason == "InternalError":
                log.exception("run_broke", resource=str(key))
            return await self._report_failure(key, resource, look, failure, start)
        return await self._report_success(key, resource, look, outcome, start)

    async def _sweep(self, user_sync: UserSync, approval: Approval | None) -> Outcome:
        credentials = await self.tools.api.credentials(user_sync)
        spec = replace(user_sync.spec, approval=approval)
        async with self.tools.open_sweeper(spec, credentials) as sweeper:
            return await sweeper.sweep(spec, holder=self.tools.holder)

    async def _report_success(
        self, key: Key, resource: Resource, look: Look, outcome: Outcome, start: datetime
    ) -> float | None:
        span = Span(start, self.tools.clock.now())
        memory = self._memories[key]
        memory.busy_since = memory.busy_until = None
        changes, left = outcome.changes, outcome.remaining
        log.info(
            "run_succeeded",
            resource=str(key),
            run=outcome.run_id,
            seconds=round((span.finish - span.start).total_seconds(), 1),
            dry_run=outcome.dry_run,
            clerk_users=left.clerk_users,
            drift_found=outcome.found.total,
            drift_left=left.total,
            profiles_created=changes.profiles_created,
            users_removed=changes.users_removed,
            rows_removed=changes.rows_removed,
            duplicates_removed=changes.duplicates_removed,
            users_left=changes.users_left,
            duplicates_left=changes.duplicates_left,
            users_waiting=outcome.users_waiting,
            blocked=outcome.held_back.reason.value if outcome.held_back else None,
            claims_held=outcome.closing.claims_held,
            receipts=outcome.closing.receipts,
            receipts_head=outcome.closing.head,
        )
        self.tools.metrics.run_ended(key, "Succeeded", "Succeeded", span.finish - span.start)
        self.tools.metrics.run_succeeded(key, left, changes, span.finish, blocked=outcome.held_back is not None)
        return await self._report(key, resource, lambda before: statuses.succeeded(before, look, outcome, span))

    async def _report_failure(
        self, key: Key, resource: Resource, look: Look, failure: Failure, start: datetime
    ) -> float | None:
        span = Span(start, self.tools.clock.now())
        log.warning(
            "run_failed", resource=str(key), reason=failure.reason, error=failure.message, permanent=failure.permanent
        )
        self.tools.metrics.run_ended(key, "Failed", failure.reason, span.finish - span.start)
        failures = int((resource.get("status") or {}).get("consecutiveFailures", 0)) + 1
        self.tools.metrics.run_failed(key, failures)
        return await self._report(key, resource, lambda before: statuses.failed(before, look, failure, span))

    async def _report_busy(
        self, key: Key, resource: Resource, look: Look, error: TargetBusy, start: datetime
    ) -> float | None:
        """Wait for the other run; only one that never ends is worth a person's attention."""
        memory, now = self._memories[key], self.tools.clock.now()
        memory.busy_since = memory.busy_since or now
        memory.busy_until = now + BUSY_RETRY
        if now - memory.busy_since > BUSY_REPORTED_AFTER:
            return await self._report_failure(key, resource, look, Failure.of(error), start)
        log.info("target_busy", resource=str(key), error=str(error))
        return BUSY_RETRY.total_seconds()

    async def _report(self, key: Key, resource: Resource, build: Build) -> float:
        """Write the status, or keep it for the next look: a run whose report is lost would be run again."""
        memory = self._memories[key]
        memory.unreported = build
        after = await self._write(resource, build)
        memory.unreported = None
        if after is None:
            # gone, or replaced by another of its name, which wants a look of its own
            return ONCE_MORE
        return _seconds(read_time(after.get("nextRunTime")), self.tools.clock.now())

    async def _write(self, resource: Resource, build: Build) -> Mapping[str, Any] | None:
        written = await self.tools.api.write_status(resource, build)
        if written is None:
            return None
        notice = statuses.transition(written.before, written.after)
        if notice is not None:
            await self.tools.events.post(resource, notice)
        return written.after

    def _wait_for_api(self, key: Key) -> float:
        memory = self._memories.get(key)
        refusals = memory.refusals if memory else len(API_RETRY_SECONDS)
        if memory:
            memory.refusals += 1
        return API_RETRY_SECONDS[min(refusals, len(API_RETRY_SECONDS) - 1)]

    def _memory(self, key: Key, resource: Resource, now: datetime) -> _Memory:
        uid = resource["metadata"]["uid"]
        memory = self._memories.get(key)
        if memory is None or memory.uid != uid:
            memory = self._memories[key] = _Memory(uid, now)
        return memory

    def _forget(self, key: Key) -> None:
        if self._memories.pop(key, None) is not None:
            log.info("resource_gone", resource=str(key))
        self.tools.metrics.forget(key)


def _read(resource: Resource) -> tuple[UserSync | None, InvalidSpec]:
    """Return the valid resource, or None and why."""
    try:
        return read_user_sync(resource), InvalidSpec()
    except InvalidSpec as error:
        return None, error


def _look(resource: Resource, user_sync: UserSync | None, interval: timedelta) -> Look:
    look = Look(
        resource["metadata"]["generation"], requested_at(resource), interval, approval=approved_digest(resource)
    )
    if user_sync is None:
        return look
    return replace(look, actions=user_sync.spec.actions, dry_run=user_sync.spec.dry_run)


def _seconds(until: datetime | None, now: datetime) -> float:
    """Return the time to wait; without a time an event brings the next look, or `dispatching`'s longest wait."""
    return float("inf") if until is None else max((until - now).total_seconds(), 0.0)
