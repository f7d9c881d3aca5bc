"""Who goes on next: one step at a time, drawn by the seed of the history.

Every step of every process waits here for its turn. The next one gets it when the one before is through, or is
proved to wait for a lock that another holds. Time passes when nobody wants a turn.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.crashes import Fate, Killed

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.simulation.crashes import Armed, Process
    from tests.simulation.loop import SimulatedLoop

STEP_SECONDS = 0.001
"""Simulated time of a step."""
LOCK_SECONDS = 5.0
PROBE_SECONDS = 0.003
"""Real time after which the server is asked whether a statement waits for a lock."""
DEADLOCK_SECONDS = 0.02
"""Real time in which the server finds a deadlock; its deadlock_timeout is shorter."""


@dataclass(eq=False)
class Flight:
    """A statement at the server. `gives_up_at`: in simulated time, if it waits for a lock until then."""

    pid: int
    gives_up_at: float
    blocked: bool = False
    gave_up: bool = False
    deadlock_awaited: bool = False


@dataclass(eq=False)
class _Request:
    process: Process
    go: asyncio.Future[None]


@dataclass(eq=False)
class Turns:
    """`monitor`: a connection to look at locks and to cancel statements with; `tick` is told each new time."""

    loop: SimulatedLoop
    random: Random
    monitor: Any
    tick: Callable[[], None]
    waiting: list[_Request] = field(default_factory=list)
    flights: set[Flight] = field(default_factory=set)
    outside: int = 0
    last: Process | None = None
    stickiness: float = 0.5
    counts: Counter[str] = field(default_factory=Counter)
    _chores: set[asyncio.Task[None]] = field(default_factory=set)
    _monitored: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waited: bool = False

    async def take(self, process: Process, *, commit: bool = False) -> Armed | None:
        """Wait for a turn; returns the fate that the caller must carry out, if there is one.

        Raises:
            Killed: the process ends here.
        """
        while True:
            process.check()
            request = _Request(process, self.loop.create_future())
            self.waiting.append(request)
            try:
                await request.go
            finally:
                if request in self.waiting:
                    self.waiting.remove(request)
            process.check()
            armed = process.next_fate(commit=commit)
            if armed is None:
                return None
            self.counts[armed.fate.value] += 1
            match armed.fate:
                case Fate.STALL:
                    self.freeze(process, armed.stall)
                case Fate.KILL_BEFORE:
                    process.kill()
                    raise Killed
                case Fate.TERMINATE:
                    process.terminate()
                    raise asyncio.CancelledError
                case _:
                    return armed

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop a process for a while; the server ends its idle transactions, the rest waits."""
        process.frozen_until = self.loop.time() + seconds
        self.loop.call_later(seconds, lambda: None)
        for connection in list(process.connections):
            connection.freeze(seconds)

    def begin(self, pid: int, lock_seconds: float) -> Flight:
        """Note that a statement is at the server."""
        flight = Flight(pid, self.loop.time() + lock_seconds)
        self.flights.add(flight)
        self._waited = False
        return flight

    def end(self, flight: Flight) -> None:
        """Note that it was answered; whoever waited for its locks may go on now."""
        self.flights.discard(flight)
        for other in self.flights:
            other.blocked = other.deadlock_awaited = False

    def idle(self, until_timer: float | None) -> float | None:
        if self.outside or self._chores:
            return 0.2
        if any(not flight.blocked for flight in self.flights):
            return self._wait_for_server()
        now = self.loop.time()
        ready = [request for request in self.waiting if request.process.frozen_until <= now]
        if ready:
            self._let_go(ready)
            return None
        if self.flights and not all(flight.deadlock_awaited for flight in self.flights):
            for flight in self.flights:
                flight.deadlock_awaited = True
            return DEADLOCK_SECONDS
        first = min(self.flights, key=lambda flight: flight.gives_up_at, default=None)
        if first is not None and (until_timer is None or first.gives_up_at <= now + until_timer):
            self.loop.skip(first.gives_up_at - now)
            self.tick()
            self._give_up(first)
            return 0.0
        if until_timer is None:
            message = "everybody waits for something that will never come"
            raise RuntimeError(message)
        self.loop.skip(until_timer)
        self.tick()
        return None

    def _let_go(self, ready: list[_Request]) -> None:
        same = [request for request in ready if request.process is self.last]
        chosen = self.random.choice(same if same and self.random.random() < self.stickiness else ready)
        self.waiting.remove(chosen)
        self.last = chosen.process
        self.counts["steps"] += 1
        self.loop.skip(STEP_SECONDS)
        self.tick()
        if not chosen.go.done():
            chosen.go.set_result(None)

    def _wait_for_server(self) -> float:
        self._waited = not self._waited
        if self._waited:
            return PROBE_SECONDS
        self._chore(self._probe())
        return 0.0

    def _give_up(self, flight: Flight) -> None:
        self.counts["lock timeouts"] += 1
        flight.gave_up = True
        flight.gives_up_at = float("inf")
        flight.blocked = False
        self.cancel(flight)

    def cancel(self, flight: Flight) -> None:
        """Let the server end a statement."""
        self._chore(self._cancel(flight.pid))

    def _chore(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _probe(self) -> None:
        """Find out whose statements wait for a lock."""
        async with self._monitored:
            rows = await self.monitor.fetch("SELECT DISTINCT pid FROM pg_locks WHERE NOT granted")
        waiting = {row["pid"] for row in rows}
        for flight in self.flights:
            if not flight.blocked and flight.pid in waiting:
                flight.blocked = True
                self.counts["lock waits"] += 1

    async def _cancel(self, pid: int) -> None:
        async with self._monitored:
            await self.monitor.execute("SELECT pg_cancel_backend($1)", pid)
