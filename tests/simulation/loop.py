"""An event loop whose time stands still while anybody works, and leaps to the next timer when nobody does.

Real sockets go on working: while a statement is at the server, the loop waits for it in real time, in which the
simulated time does not pass. So days go by in milliseconds, and the same history goes the same way again.
"""

from __future__ import annotations

import asyncio
import selectors
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Turns(Protocol):
    """Who decides what happens when no task can go on by itself."""

    def idle(self, until_timer: float | None) -> float | None:
        """Let somebody go on, or skip time; returns how many real seconds to wait for sockets (None: do not)."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`turns` is asked whenever nothing is ready; without one, sockets are waited for in real time."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self.turns: Turns | None = None
        super().__init__(_Selector(self))
        # Years go by, and a float of that many seconds knows no nanoseconds.
        self._clock_resolution = 1e-5

    def time(self) -> float:
        return self._seconds

    def skip(self, seconds: float) -> None:
        """Let simulated time pass."""
        self._seconds += max(1e-6, seconds)


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if self._loop.turns is None:
            return super().select(0.1)
        wait = self._loop.turns.idle(timeout)
        return [] if wait is None else super().select(wait)


@dataclass
class ProcessClock:
    """The clocks of one process: the wall clock may be wrong, the steady one is not."""

    loop: SimulatedLoop
    skew: timedelta = field(default_factory=timedelta)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loop.time()) + self.skew

    def elapsed(self) -> float:
        return self.loop.time()
