"""The run lock: one row per schema, with a fence that changes hands with it.

Decides who may write in a run. It needs no session, so it holds through a transaction-mode pooler; a run that
was taken over finds no row with its fence and can write no more. Used by `runs`, and by
`database` for what a person asks.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import uuid4

import structlog

from controller.errors import LockLost, TargetBusy, UserSyncError
from controller.postgres.connections import ATTEMPTS, SHORT, Connections, Limits, Transaction
from controller.postgres.failures import ContendedTransaction
from controller.postgres.queries import load

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from uuid import UUID

T = TypeVar("T")

log = structlog.get_logger(__name__)

_SQL: Final = load("runs")


@dataclass(frozen=True, slots=True)
class LockTimes:
    """How often the holder shows that it lives, and when it counts as dead; by the database's clock."""

    beat: timedelta = timedelta(seconds=5)
    stale: timedelta = timedelta(seconds=60)


@dataclass(slots=True)
class RunLock:
    """The lock of one schema in the hands of one run."""

    connections: Connections
    schema: str
    run_id: UUID
    fence: int
    lost: bool = field(default=False, init=False)

    async def transact(
        self,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        limits: Limits = SHORT,
        isolation: str = "read_committed",
        attempts: int = ATTEMPTS,
    ) -> T:
        """Do `work` in a transaction that a take-over has to wait for.

        Raises:
            LockLost: another run has taken over; nothing was done.
        """
        if self.lost:
            raise self._lost()

        async def fenced(transaction: Transaction) -> T:
            if await transaction.value(_SQL["hold_fence"], self.schema, self.fence, self.run_id) is None:
                self.lost = True
                raise self._lost()
            return await work(transaction)

        return await self.connections.transact(fenced, limits=limits, isolation=isolation, attempts=attempts)

    async def beat(self) -> None:
        """Show that we live.

        Raises:
            LockLost: another run has taken over.
        """

        async def show(transaction: Transaction) -> bool:
            return await transaction.value(_SQL["beat"], self.schema, self.fence, self.run_id) is not None

        if not await self.connections.transact(show):
            self.lost = True
            raise self._lost()

    async def release_in(self, transaction: Transaction) -> None:
        """Give the lock back at the end of `transaction`; whoever still writes in its name finds no row."""
        await transaction.change(_SQL["release_lock"], self.schema, self.fence, self.run_id)

    @asynccontextmanager
    async def beating(self, every: timedelta) -> AsyncGenerator[None, None]:
        """Beat in the background while the block lasts."""
        heart = asyncio.create_task(self._beat_on(every), name=f"heartbeat of {self.run_id}")
        try:
            yield
        finally:
            heart.cancel()
            await asyncio.wait({heart})

    async def _beat_on(self, every: timedelta) -> None:
        while not self.lost:
            await asyncio.sleep(every.total_seconds())
            try:
                await self.beat()
            except LockLost:
                log.warning("run_lock_lost", run_id=str(self.run_id), schema=self.schema)
            except UserSyncError as error:
                # The lock stands until it is stale; the database may be back by then.
                log.warning("heartbeat_missed", run_id=str(self.run_id), error=str(error))

    def _lost(self) -> LockLost:
        return LockLost(
            f"This run on schema {self.schema} was taken over by another one and has stopped; nothing was left half "
            "done."
        )


async def acquire(connections: Connections, schema: str, run_id: UUID, holder: str, times: LockTimes) -> RunLock:
    """Take the lock, also from a holder whose heart has stopped.

    Raises:
        TargetBusy: somebody alive has it, or the last transaction of a dead one is still under way.
    """
    stale_seconds = times.stale.total_seconds()

    async def take(transaction: Transaction) -> int:
        await transaction.change(_SQL["ensure_lock"], schema)
        # First without a row lock: a holder in the middle of a long transaction is answered at once.
        await _refuse_if_held(transaction, schema, stale_seconds)
        await transaction.rows(_SQL["lock_row"], schema)
        await _refuse_if_held(transaction, schema, stale_seconds)
        fence: int = await transaction.value(_SQL["take_lock"], schema, run_id, holder)
        return fence

    try:
        # Once: who holds the row is not gone a moment later, and the next run tries again.
        fence = await connections.transact(take, attempts=1)
    except ContendedTransaction as held:
        message = (
            f"The last transaction of another run on schema {schema} is still under way, though its heart has stopped. "
            "The server ends it after a minute of silence; this run is tried again later."
        )
        raise TargetBusy(message) from held
    return RunLock(connections, schema, run_id, fence)


@asynccontextmanager
async def holding(
    connections: Connections, schema: str, holder: str, times: LockTimes
) -> AsyncGenerator[RunLock, None]:
    """Have the lock while the block lasts, for what is no run and needs that none is under way.

    Raises:
        TargetBusy: somebody alive has it.
    """
    lock = await acquire(connections, schema, uuid4(), holder, times)
    try:
        async with lock.beating(times.beat):
            yield lock
    finally:
        try:
            async with asyncio.timeout(times.beat.total_seconds()):
                await lock.transact(lock.release_in)
        except (UserSyncError, TimeoutError) as error:
            # It counts as dead when it is stale; the block's own error must not be hidden.
            log.warning("run_lock_not_released", run_id=str(lock.run_id), error=str(error))


async def _refuse_if_held(transaction: Transaction, schema: str, stale_seconds: float) -> None:
    row = await transaction.row(_SQL["lock_holder"], schema, stale_seconds)
    if row is not None and row["run_id"] is not None and not row["stale"]:
        message = (
            f"Another run works on schema {schema}: {row['holder']}, since {row['taken_at']:%Y-%m-%d %H:%M:%S} UTC. "
            "Two runs at once are never made; this one is tried again later."
        )
        raise TargetBusy(message)
