"""Time that a test holds, and an event loop in which waiting takes none."""

from __future__ import annotations

import asyncio
import selectors
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class FakeClock:
    """Stands still until `advance`."""

    at: datetime = START

    def now(self) -> datetime:
        return self.at

    def elapsed(self) -> float:
        return (self.at - START).total_seconds() + 1000.0

    def advance(self, by: timedelta) -> None:
        self.at += by


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop that skips over waiting: its time leaps to the next timer once nothing else is to be done.

    For code without sockets and threads. Waiting that nothing can end fails instead of hanging.
    """

    def __init__(self) -> None:
        self._skipped = 0.0
        super().__init__(_Leaping(self))

    def time(self) -> float:
        return self._skipped

    def skip(self, seconds: float) -> None:
        self._skipped += seconds


class _Leaping(selectors.DefaultSelector):
    def __init__(self, loop: SkippingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            message = "everything waits for something that will never come"
            raise RuntimeError(message)
        self._loop.skip(max(0.0, timeout))
        return super().select(0)


@dataclass
class LoopClock:
    """The time of a `SkippingLoop`, as the product's clock."""

    loop: asyncio.AbstractEventLoop

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loop.time())

    def elapsed(self) -> float:
        return self.loop.time()


def run_skipping(story: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine in a `SkippingLoop`."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(story)
