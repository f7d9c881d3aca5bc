from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from controller.reconciler.dispatching import Dispatcher
from controller.reconciler.queue import Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

A, B, C = Key("app", "a"), Key("app", "b"), Key("app", "c")


class LoopClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def elapsed(self) -> float:
        return asyncio.get_running_loop().time()


class Looks:
    """Looks that wait until they are let go, and say how many were under way."""

    def __init__(self, again: float | None = None) -> None:
        self.seen: Counter[Key] = Counter()
        self.under_way: Counter[Key] = Counter()
        self.peak = 0
        self.let_go = asyncio.Event()
        self.changed = asyncio.Condition()
        self.broken_off = 0
        self.again = again

    async def __call__(self, key: Key) -> float | None:
        self.seen[key] += 1
        self.under_way[key] += 1
        self.peak = max(self.peak, self.under_way.total())
        assert self.under_way[key] == 1
        try:
            async with self.changed:
                self.changed.notify_all()
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        finally:
            self.under_way[key] -= 1
        return self.again

    async def until(self, looks: int) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: self.seen.total() >= looks)


@asynccontextmanager
async def dispatching(looks: Looks, limit: int = 4) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(looks, LoopClock(), limit=limit)
    running = asyncio.create_task(dispatcher.run())
    yield dispatcher
    looks.let_go.set()
    await dispatcher.drain(timedelta(seconds=10))
    await running


async def test_no_more_looks_at_once_than_the_limit() -> None:
    looks = Looks()
    async with dispatching(looks, limit=2) as dispatcher:
        for key in (A, B, C):
            dispatcher.add(key)
        await looks.until(2)
        looks.let_go.set()
        await looks.until(3)
    assert looks.peak == 2


async def test_an_event_during_a_look_brings_one_more() -> None:
    looks = Looks()
    async with dispatching(looks) as dispatcher:
        dispatcher.add(A)
        await looks.until(1)
        dispatcher.add(A)
        dispatcher.add(A)
        looks.let_go.set()
        await looks.until(2)
    assert looks.seen[A] == 2


async def test_a_look_is_repeated_when_it_says() -> None:
    looks = Looks(again=0.0)
    looks.let_go.set()
    async with dispatching(looks) as dispatcher:
        dispatcher.add(A)
        await looks.until(3)


async def test_a_fault_in_one_look_stops_no_other() -> None:
    looks = Looks()
    looks.let_go.set()

    async def look(key: Key) -> float | None:
        if key == A:
            raise ValueError(key)
        return await looks(key)

    dispatcher = Dispatcher(look, LoopClock(), limit=1)
    running = asyncio.create_task(dispatcher.run())
    dispatcher.add(A)
    dispatcher.add(B)
    await looks.until(1)
    await dispatcher.drain(timedelta(seconds=10))
    await running
    assert looks.seen == {B: 1}


async def test_draining_waits_for_the_looks_under_way() -> None:
    looks = Looks()
    async with dispatching(looks) as dispatcher:
        dispatcher.add(A)
        await looks.until(1)
        draining = asyncio.create_task(dispatcher.drain(timedelta(seconds=10)))
        dispatcher.add(B)
        looks.let_go.set()
        await draining
    assert looks.seen == {A: 1}
    assert looks.broken_off == 0


async def test_a_look_that_outlasts_the_patience_is_broken_off() -> None:
    looks = Looks()
    async with dispatching(looks) as dispatcher:
        dispatcher.add(A)
        await looks.until(1)
        await dispatcher.drain(timedelta())
        assert looks.broken_off == 1
