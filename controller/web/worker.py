"""The durable worker: takes claims that are due and settles them, whichever replica recorded them.

Decides when to look for claims and how many to settle at once; what becomes of one is `core.absorbing.settle`.
Survives any failure: a claim that was taken and not settled is due again once its lease is over. Used by
`endpoints`, one worker for each resource that is neither suspended nor a dry run.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from controller.core.absorbing import LONGEST_DELAY, retry_delay, settle
from controller.core.claims import Claim, ClaimKind
from controller.core.leaving import settle_request
from controller.core.outcomes import Settled
from controller.errors import RequestRefused, TransientError, UserSyncError

if TYPE_CHECKING:
    from controller.core.targets import Spec
    from controller.runtime import Served
    from controller.web.metrics import Metrics

log = structlog.get_logger(__name__)

AT_ONCE = 8
"""Claims under way; one that waits for Clerk must not keep the next from being settled within a second."""
AT_ONCE_WITH_REQUESTS = 24
"""The same with the users' own requests, which are not made to wait behind them."""
PAUSE_MIN_SECONDS = 0.05
"""Against turning in a circle when the database says that a claim is due and yet gives none."""
DELETING = {ClaimKind.DELETION, ClaimKind.HOLDBACK, ClaimKind.OWN_REQUEST}
"""Claims that are to end in a removal."""
COMPLETED = {Settled.REMOVED: "deleting", Settled.CREATED: "creating"}
"""What a person waits for in the log, who asked for it."""
FAILURE_PAUSES_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the worker looks. Claims of other replicas come without a wake-up, so it must look at times.

    A claim whose lease ended while it was still under way may be settled by two replicas, which has one effect; one
    whose worker was killed waits for the lease.
    """

    poll: timedelta = timedelta(seconds=5)
    lease: timedelta = timedelta(seconds=30)


class Worker:
    """Settles the claims of one resource."""

    def __init__(self, spec: Spec, served: Served, metrics: Metrics, pace: Pace) -> None:
        self._log = log.bind(resource=spec.name)
        self._spec = spec
        self._served = served
        self._metrics = metrics
        self._pace = pace
        self._wake = asyncio.Event()
        self._stopping = False
        self._group: asyncio.TaskGroup | None = None
        self._under_way: dict[int, asyncio.Task[Settled | None]] = {}
        self._failures = 0

    @property
    def idle(self) -> bool:
        """Whether no claim is under way."""
        return not self._under_way

    def wake(self) -> None:
        """Look for claims now."""
        self._wake.set()

    def stop(self) -> None:
        """Take no more claims; `run` returns once those under way are done."""
        self._stopping = True
        self._wake.set()

    def settle_now(self, claim: Claim) -> asyncio.Task[Settled | None] | None:
        """Settle a claim that is leased to the caller; None if there is no place for it, or the worker ends.

        A user waits for it, so it does not wait behind claims that Clerk keeps waiting.
        """
        if claim.id in self._under_way:
            return self._under_way[claim.id]
        if self._group is None or self._stopping or len(self._under_way) >= AT_ONCE_WITH_REQUESTS:
            return None
        return self._begin(self._group, claim)

    async def run(self) -> None:
        """Settle claims until stopped; raises nothing for an outage."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            while not self._stopping:
                self._wake.clear()
                pause = await self._take(group)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    async def _take(self, group: asyncio.TaskGroup) -> float:
        """Begin to settle what is due; return how many seconds to wait for more."""
        poll = self._pace.poll.total_seconds() * random.uniform(0.8, 1.2)  # noqa: S311 - keeps replicas apart
        free = AT_ONCE - len(self._under_way)
        if free <= 0:
            return poll
        try:
            for claim in await self._served.inbox.take_claims(free, self._pace.lease):
                # one that outlasts its lease comes again, and is only lent anew: it must not take every place
                if claim.id not in self._under_way:
                    self._begin(group, claim)
            due = await self._served.inbox.next_claim_due()
        except UserSyncError as error:
            self._log.warning("claims_not_read", reason=error.reason, error=str(error))
            pause = FAILURE_PAUSES_SECONDS[min(self._failures, len(FAILURE_PAUSES_SECONDS) - 1)]
            self._failures += 1
            return pause
        self._failures = 0
        return poll if due is None else min(max(due.total_seconds(), PAUSE_MIN_SECONDS), poll)

    def _begin(self, group: asyncio.TaskGroup, claim: Claim) -> asyncio.Task[Settled | None]:
        self._under_way[claim.id] = task = group.create_task(self._settle(claim))
        return task

    async def _settle(self, claim: Claim) -> Settled | None:
        """Settle a claim, or let it come again; returns what it came to, None if that is not known."""
        settled: Settled | None = None
        began = time.perf_counter()
        if claim.kind in DELETING:
            self._log.info("deleting", claim=claim.id, kind=claim.kind.value)
        try:
            settled = await self._attempt(claim)
        except RequestRefused as error:
            self._log.warning("account_deletion_refused", claim=claim.id, error=str(error))
            settled = Settled.REFUSED
        except UserSyncError as error:
            self._log.warning("claim_postponed", claim=claim.id, reason=error.reason, error=str(error))
            settled = await self._postpone(claim, error)
        except Exception:  # noqa: BLE001 - the entry point of a claim
            # a fault of ours must not take the other claims with it; this one comes again after its lease
            self._log.exception("claim_failed", claim=claim.id)
        finally:
            self._under_way.pop(claim.id, None)
            self._wake.set()
        self._report(claim, settled, time.perf_counter() - began)
        return settled

    async def _attempt(self, claim: Claim) -> Settled:
        served = self._served
        if claim.kind is ClaimKind.OWN_REQUEST:
            return await settle_request(claim, served.accounts, served.directory, served.inbox, served.clock)
        return await settle(claim, self._spec, served.directory, served.inbox, served.clock)

    async def _postpone(self, claim: Claim, error: UserSyncError) -> Settled | None:
        delay = retry_delay(claim)
        if isinstance(error, TransientError) and error.retry_after is not None:
            delay = min(max(delay, error.retry_after), LONGEST_DELAY)
        try:
            await self._served.inbox.postpone_claim(claim, delay, answered_present=False)
        except UserSyncError as second:
            self._log.warning("claim_left_to_its_lease", claim=claim.id, reason=second.reason)
            return None
        return Settled.POSTPONED

    def _report(self, claim: Claim, settled: Settled | None, seconds: float) -> None:
        self._metrics.count_claim(settled.value if settled else "failed")
        if settled is Settled.DISCARDED:
            self._log.warning(
                "deletion_discarded",
                claim=claim.id,
                looked_up=claim.present_answers + 1,
                kind=claim.kind.value,
                hint="the user's deletion was announced, or done before, but Clerk knows the user; no row was touched",
            )
        elif settled is Settled.STOPPED:
            self._log.warning(
                "removal_stopped",
                claim=claim.id,
                looked_up=claim.present_answers + 1,
                hint="the removal of a user with very many rows had begun, but Clerk knows the user again; the rows "
                "that are left stay; usersync restore puts back what was archived",
            )
        elif settled is not None:
            self._log.info("claim_settled", claim=claim.id, kind=claim.kind.value, result=settled.value)
        if settled in COMPLETED:
            self._log.info("completed", claim=claim.id, act=COMPLETED[settled], seconds=round(seconds, 3))
        self._log.debug("claim_of_user", claim=claim.id, user_id=claim.user_id)
