"""Connections as the product sees them, each statement a step that a history can disturb.

Stands in for asyncpg's pool under `controller.postgres.Connections`. The server is real; a lost connection is played by
rolling back what it had open, as the server does, and giving the real connection to the next one who asks.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

from tests.simulation.crashes import Fate, Killed
from tests.simulation.turns import LOCK_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tests.simulation.crashes import Process
    from tests.simulation.evidence import Evidence
    from tests.simulation.turns import Flight, Turns

IDLE_SECONDS = 60.0
"""After which the server ends a transaction that does nothing, as the product asks it to."""
LOCK_TIMEOUT = re.compile(r"SET LOCAL lock_timeout = '?(\d+)(?:ms)?'?")
ACTOR: ContextVar[str] = ContextVar("actor", default="")
"""Who works: process, and number of the run; written beside each row that is inserted or deleted."""


@dataclass
class RealConnections:
    """The real ones of one database, used again and again."""

    url: str
    free: list[Any] = field(default_factory=list)
    all: list[Any] = field(default_factory=list)
    turns: Turns | None = None

    async def get(self) -> Any:
        if self.free:
            return self.free.pop()
        if self.turns is not None:
            self.turns.outside += 1
        try:
            connection = await asyncpg.connect(self.url, server_settings={"jit": "off", "deadlock_timeout": "5ms"})
        finally:
            if self.turns is not None:
                self.turns.outside -= 1
        self.all.append(connection)
        return connection

    async def close(self) -> None:
        for connection in self.all:
            connection.terminate()


@dataclass
class SimulatedPool:
    """What `Connections.pool` is for one process."""

    process: Process
    turns: Turns
    real: RealConnections
    evidence: Evidence

    @asynccontextmanager
    async def acquire(self) -> AsyncGenerator[SimulatedConnection, None]:
        self.process.check()
        real = await self._get()
        connection = SimulatedConnection(self, real)
        self.process.connections.add(connection)
        try:
            yield connection
        finally:
            self.process.connections.discard(connection)
            connection.leave()

    async def _get(self) -> Any:
        """Wait for a connection, and give it back if we are cancelled meanwhile."""
        getting = asyncio.ensure_future(self.real.get())
        try:
            return await asyncio.shield(getting)
        except asyncio.CancelledError:
            getting.add_done_callback(lambda got: self.real.free.append(got.result()))
            raise


@dataclass(eq=False)
class SimulatedConnection:
    """One connection of asyncpg, as far as the product uses it."""

    pool: SimulatedPool
    real: Any
    lost: bool = False
    left: bool = False
    begin: str = ""
    in_transaction: bool = False
    lock_seconds: float = LOCK_SECONDS
    flight: Flight | None = None
    work: asyncio.Future[Any] | None = None

    @asynccontextmanager
    async def transaction(self, *, isolation: str = "") -> AsyncGenerator[None, None]:
        if self.in_transaction:
            async with self._savepoint():
                yield
            return
        level = isolation.replace("_", " ").upper()
        # Sent with the first statement, which is a script of settings.
        self.begin = f"BEGIN ISOLATION LEVEL {level}; SET LOCAL simulation.actor = '{ACTOR.get()}'; "
        try:
            yield
        except BaseException:
            if self.in_transaction:
                await self._step("ROLLBACK", lambda: self.real.execute("ROLLBACK"))
                self.in_transaction = False
            raise
        else:
            await self._step("COMMIT", lambda: self.real.execute("COMMIT"))
            self.in_transaction = False

    @asynccontextmanager
    async def _savepoint(self) -> AsyncGenerator[None, None]:
        await self._step("SAVEPOINT inner", lambda: self.real.execute("SAVEPOINT inner"))
        try:
            yield
        except BaseException:
            await self._step("ROLLBACK TO inner", lambda: self.real.execute("ROLLBACK TO SAVEPOINT inner"))
            raise
        await self._step("RELEASE inner", lambda: self.real.execute("RELEASE SAVEPOINT inner"))

    def get_server_version(self) -> Any:
        return self.real.get_server_version()

    async def execute(self, query: str, *arguments: object, timeout: float) -> Any:  # noqa: ASYNC109 - asyncpg's name
        del timeout
        found = LOCK_TIMEOUT.search(query)
        if found:
            self.lock_seconds = int(found[1]) / 1000
            query = LOCK_TIMEOUT.sub("SET LOCAL lock_timeout = 0", query)
        if self.begin:
            query, self.begin = self.begin + query, ""
            return await self._step(query, lambda: self._open(query))
        return await self._step(query, lambda: self.real.execute(query, *arguments), arguments)

    def _open(self, script: str) -> Awaitable[Any]:
        self.in_transaction = True
        sent: Awaitable[Any] = self.real.execute(script)
        return sent

    async def fetch(self, query: str, *arguments: object, timeout: float) -> Any:  # noqa: ASYNC109
        del timeout
        return await self._step(query, lambda: self.real.fetch(query, *arguments), arguments)

    async def fetchrow(self, query: str, *arguments: object, timeout: float) -> Any:  # noqa: ASYNC109
        del timeout
        return await self._step(query, lambda: self.real.fetchrow(query, *arguments), arguments)

    async def fetchval(self, query: str, *arguments: object, timeout: float) -> Any:  # noqa: ASYNC109
        del timeout
        return await self._step(query, lambda: self.real.fetchval(query, *arguments), arguments)

    async def copy_to_table(
        self,
        table: str,
        *,
        source: bytearray,
        columns: tuple[str, ...],
        schema_name: str,
        timeout: float,  # noqa: ASYNC109
    ) -> Any:
        del timeout

        async def copy() -> Any:
            return await self.real.copy_to_table(table, source=source, columns=columns, schema_name=schema_name)

        return await self._step("COPY", copy)

    async def _step(self, query: str, do: Callable[[], Awaitable[Any]], arguments: tuple[object, ...] = ()) -> Any:
        process, turns = self.pool.process, self.pool.turns
        process.check()
        if self.lost:
            message = "connection is closed"
            raise asyncpg.InterfaceError(message)
        self.pool.evidence.note_sent(ACTOR.get(), query, arguments)
        armed = await turns.take(process, commit=query == "COMMIT")
        self._check_connection(dropped=armed is not None and armed.fate is Fate.DROP_BEFORE)
        answer = await self._send(do)
        if armed is not None and armed.fate is Fate.KILL_AFTER:
            process.kill()
            raise Killed
        self._check_connection(dropped=armed is not None and armed.fate is Fate.DROP_AFTER)
        await self.pool.evidence.note_done(self, query)
        return answer

    async def _send(self, do: Callable[[], Awaitable[Any]]) -> Any:
        turns = self.pool.turns
        flight = self.flight = turns.begin(self.real.get_server_pid(), self.lock_seconds)
        work = self.work = asyncio.ensure_future(do())
        work.add_done_callback(lambda done: _land(turns, flight, done))
        try:
            return await asyncio.shield(work)
        except asyncpg.QueryCanceledError as error:
            if flight.gave_up:
                message = "canceling statement due to lock timeout"
                raise asyncpg.LockNotAvailableError(message) from error
            raise
        except asyncio.CancelledError:
            if self.pool.process.alive and not work.done():
                turns.cancel(flight)
                await asyncio.wait({work})
            raise
        finally:
            self.flight = None

    def _check_connection(self, *, dropped: bool) -> None:
        """Fail like a connection that was closed, by this step or while it waited for its turn."""
        self.lost = self.lost or dropped
        if self.lost:
            message = "connection was closed in the middle of operation"
            raise asyncpg.ConnectionDoesNotExistError(message)

    def freeze(self, seconds: float) -> None:
        """The process stands still: the server ends the transaction once it has been idle for too long."""
        if self.in_transaction and self.flight is None and seconds > IDLE_SECONDS:
            self.pool.turns.loop.call_later(IDLE_SECONDS, self._end_idle)

    def _end_idle(self) -> None:
        if not self.left and self.flight is None:
            self.lost = True
            self._reclaim()

    def leave(self) -> None:
        """Give the real connection back, with nothing open."""
        if self.left:
            return
        if self.lost or self.in_transaction or (self.work is not None and not self.work.done()):
            self._reclaim()
        else:
            self.left = True
            self.pool.real.free.append(self.real)

    def _reclaim(self) -> None:
        """Do as the server when its client is gone: finish the statement, then roll back."""
        self.left = True
        turns = self.pool.turns
        work, real, free = self.work, self.real, self.pool.real.free

        async def roll_back() -> None:
            if work is not None:
                await asyncio.wait({work})
            flight = turns.begin(real.get_server_pid(), float("inf"))
            try:
                await _roll_back(real)
            finally:
                turns.end(flight)
            free.append(real)

        self.pool.evidence.chores.add(turns.loop.create_task(roll_back()))


async def _roll_back(real: Any) -> None:
    for _ in range(2):
        # A cancellation meant for the statement before may come late; without a transaction this is only a warning.
        with suppress(asyncpg.QueryCanceledError):
            await real.execute("ROLLBACK")
            return


def _land(turns: Turns, flight: Flight, done: asyncio.Future[Any]) -> None:
    turns.end(flight)
    if not done.cancelled():
        # Whoever sent it may be gone by now; asyncio complains of errors that nobody looks at.
        done.exception()
