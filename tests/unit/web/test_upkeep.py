"""What waits is shown, and what is past its time goes little by little, whether or not anything runs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.claims import ClaimKind
from controller.core.events import Delivery
from controller.errors import DatabaseUnavailable
from controller.web.metrics import Metrics
from controller.web.upkeep import BATCHES, Keeper, Upkeep
from tests.support.fakes.clock import LoopClock, run_skipping
from tests.support.fakes.directory import user
from tests.support.fakes.store import FakeStore
from tests.support.webhooks import SPEC

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

    from controller.core.claims import Backlog
    from controller.core.targets import Spec

UPKEEP = Upkeep()


class Store(FakeStore):
    """Fails as often as `failing` says; knows when it was asked to let something go."""

    failing: int = 0
    expired_at: tuple[float, ...] = ()

    async def backlog(self) -> Backlog:
        if self.failing:
            self.failing -= 1
            message = "the database is away"
            raise DatabaseUnavailable(message)
        return await super().backlog()

    async def expire_some(self) -> bool:
        self.expired_at += (asyncio.get_running_loop().time(),)
        return await super().expire_some()


class Bench:
    def __init__(self) -> None:
        self.store = Store(LoopClock(asyncio.get_running_loop()))
        self.metrics = Metrics()
        self.idle = True

    @asynccontextmanager
    async def keeping(self, spec: Spec = SPEC) -> AsyncIterator[None]:
        task = asyncio.create_task(Keeper(spec, self.store, self.metrics, UPKEEP, lambda: self.idle).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def shown(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"resource": SPEC.name} | labels)


def tell(story: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def with_bench() -> None:
        await story(Bench())

    run_skipping(with_bench())


async def a_while() -> None:
    await asyncio.sleep(1.3 * UPKEEP.report.total_seconds())


def test_queue_and_age_of_the_oldest_work_are_shown_for_each_resource() -> None:
    async def story(bench: Bench) -> None:
        await bench.store.record_claim(Delivery("msg_1", "user.deleted"), user(1), ClaimKind.DELETION)
        async with bench.keeping():
            await asyncio.sleep(120)
            assert bench.shown("usersync_claims_waiting", kind="deletion") == 1
            assert bench.shown("usersync_claims_waiting", kind="holdback") == 0
            assert bench.shown("usersync_claims_held_back") == 0
            oldest = bench.shown("usersync_claims_oldest_seconds")
            assert oldest is not None
            assert 120 - 1.2 * UPKEEP.report.total_seconds() <= oldest <= 120

    tell(story)


def test_what_was_settled_is_shown_no_more() -> None:
    async def story(bench: Bench) -> None:
        await bench.store.record_claim(Delivery("msg_1", "user.deleted"), user(1), ClaimKind.DELETION)
        async with bench.keeping():
            await a_while()
            bench.store.claims.clear()
            await a_while()
            assert bench.shown("usersync_claims_waiting", kind="deletion") == 0
            assert bench.shown("usersync_claims_oldest_seconds") == 0

    tell(story)


def test_nothing_is_shown_of_a_resource_that_is_served_no_more() -> None:
    async def story(bench: Bench) -> None:
        async with bench.keeping():
            await a_while()
            assert bench.shown("usersync_claims_held_back") == 0
        assert bench.shown("usersync_claims_held_back") is None
        assert bench.shown("usersync_claims_waiting", kind="deletion") is None

    tell(story)


def test_an_outage_is_survived() -> None:
    async def story(bench: Bench) -> None:
        bench.store.failing = 3
        async with bench.keeping():
            await asyncio.sleep(120)
            assert bench.shown("usersync_claims_held_back") == 0

    tell(story)


def test_what_is_past_its_time_goes_in_batches_with_pauses_between_them() -> None:
    async def story(bench: Bench) -> None:
        bench.store.past_their_time = 2500
        async with bench.keeping():
            await asyncio.sleep(60)
        assert bench.store.expired == 2500
        first, second, third = bench.store.expired_at
        assert second - first == third - second == pytest.approx(UPKEEP.pause.total_seconds())

    tell(story)


def test_no_more_goes_at_a_time_than_some_batches() -> None:
    async def story(bench: Bench) -> None:
        bench.store.past_their_time = 1_000_000
        async with bench.keeping():
            await asyncio.sleep(60)
            assert len(bench.store.expired_at) == BATCHES
            await asyncio.sleep(1.3 * UPKEEP.purge.total_seconds())
            assert len(bench.store.expired_at) == 2 * BATCHES

    tell(story)


def test_nothing_goes_while_events_or_claims_are_under_way() -> None:
    async def story(bench: Bench) -> None:
        bench.store.past_their_time = 1
        bench.idle = False
        async with bench.keeping():
            await asyncio.sleep(5)
            assert bench.store.expired == 0
            bench.idle = True
            await asyncio.sleep(1)
            assert bench.store.expired == 1

    tell(story)


@pytest.mark.parametrize("spec", [replace(SPEC, suspend=True), replace(SPEC, dry_run=True)])
def test_suspended_or_in_a_dry_run_nothing_is_deleted_but_the_queue_is_shown(spec: Spec) -> None:
    async def story(bench: Bench) -> None:
        bench.store.past_their_time = 1
        async with bench.keeping(spec):
            await asyncio.sleep(timedelta(hours=1).total_seconds())
            assert bench.shown("usersync_claims_held_back") == 0
        assert bench.store.expired == 0

    tell(story)
