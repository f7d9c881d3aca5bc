"""When claims are settled, and what survives what."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from controller.core.claims import ClaimKind
from controller.core.events import Delivery
from controller.core.outcomes import Absorbed, Settled
from controller.core.targets import Spec
from controller.errors import ClerkRefused, ClerkUnavailable, DatabaseUnavailable
from controller.runtime import Served
from controller.web.metrics import Metrics
from controller.web.worker import AT_ONCE, AT_ONCE_WITH_REQUESTS, Pace, Worker
from tests.support.fakes.clock import LoopClock, run_skipping
from tests.support.fakes.directory import FakeDirectory, user
from tests.support.fakes.store import FakeStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from typing import Any

    from controller.core.claims import Claim
    from controller.core.users import Presence, UserId

PACE = Pace(poll=timedelta(seconds=5), lease=timedelta(seconds=30))


class Directory(FakeDirectory):
    """Its answers may take a while; knows how many questions are open at once."""

    seconds: float = 0.0
    asking: int = 0
    most_asking: int = 0

    async def look_up(self, user_id: UserId) -> Presence:
        self.asking += 1
        self.most_asking = max(self.most_asking, self.asking)
        await asyncio.sleep(self.seconds)
        self.asking -= 1
        return await super().look_up(user_id)


class Store(FakeStore):
    """Fails to give claims as often as `failing` says."""

    failing: int = 0
    takes: int = 0

    async def take_claims(self, limit: int, lease: timedelta) -> Sequence[Claim]:
        self.takes += 1
        if self.failing:
            self.failing -= 1
            message = "the database is away"
            raise DatabaseUnavailable(message)
        return await super().take_claims(limit, lease)


class Bench:
    """A worker on fakes, in time that leaps."""

    def __init__(self) -> None:
        clock = LoopClock(asyncio.get_running_loop())
        self.directory = Directory()
        self.store = Store(clock, pinned=self.directory.of.id)
        self.metrics = Metrics()
        self.worker = Worker(
            Spec("app/x"), Served(self.directory, self.store, self.store, clock, self.directory), self.metrics, PACE
        )

    async def claim(self, *numbers: int, kind: ClaimKind = ClaimKind.DELETION) -> None:
        for number in numbers:
            recorded = await self.store.record_claim(Delivery(f"msg_{number}", "user.deleted"), user(number), kind)
            assert recorded in {Absorbed.CLAIMED, Absorbed.RECORDED}

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.worker.run())
        try:
            yield
        finally:
            self.worker.stop()
            await task

    async def until(self, condition: Callable[[], object], *, seconds: float) -> float:
        """Wait for the condition; return how long it took."""
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - the fakes have no event for it
                await asyncio.sleep(0.01)
        return asyncio.get_running_loop().time() - began

    def counted(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("usersync_claims_total", {"result": result}) or 0.0


def tell(story: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def with_bench() -> None:
        await story(Bench())

    run_skipping(with_bench())


def test_a_claim_of_a_user_who_is_gone_is_settled_by_removal() -> None:
    async def story(bench: Bench) -> None:
        bench.store.add_users(user(1), user(2))
        bench.directory.sign_up(user(2))
        await bench.claim(1)
        async with bench.working():
            await bench.until(lambda: bench.counted("removed"), seconds=1)
        assert bench.store.users() == {user(2)}
        assert bench.store.tombstones == {user(1)}

    tell(story)


def test_a_wake_up_is_followed_at_once() -> None:
    async def story(bench: Bench) -> None:
        async with bench.working():
            await asyncio.sleep(1)
            await bench.claim(1)
            bench.worker.wake()
            assert await bench.until(lambda: bench.counted("removed"), seconds=60) < 0.1

    tell(story)


async def requested(bench: Bench, number: int) -> Claim:
    claim = await bench.store.request_removal(user(number), PACE.lease)
    assert claim is not None
    return claim


def test_a_users_own_request_does_not_wait_behind_claims_that_clerk_keeps_waiting() -> None:
    async def story(bench: Bench) -> None:
        bench.directory.seconds = 20.0
        await bench.claim(*range(AT_ONCE))
        async with bench.working():
            await bench.until(lambda: bench.directory.asking == AT_ONCE, seconds=1)
            bench.directory.seconds = 0.0
            settling = bench.worker.settle_now(await requested(bench, 99))
            assert settling is not None
            async with asyncio.timeout(1):
                assert await settling is Settled.REMOVED

    tell(story)


def test_asked_for_twice_a_claim_is_settled_once() -> None:
    async def story(bench: Bench) -> None:
        bench.directory.seconds = 5.0
        async with bench.working():
            await asyncio.sleep(1)
            claim = await requested(bench, 1)
            first, second = bench.worker.settle_now(claim), bench.worker.settle_now(claim)
            assert first is not None
            assert first is second
            await first
        assert bench.directory.calls["delete_user"] == 1

    tell(story)


def test_without_a_place_or_a_running_worker_a_request_is_left_to_its_lease() -> None:
    async def story(bench: Bench) -> None:
        claims = [await requested(bench, number) for number in range(AT_ONCE_WITH_REQUESTS + 1)]
        assert bench.worker.settle_now(claims[0]) is None
        bench.directory.seconds = 20.0
        async with bench.working():
            await asyncio.sleep(1)
            settling = [bench.worker.settle_now(claim) for claim in claims]
            assert [task is None for task in settling] == [False] * AT_ONCE_WITH_REQUESTS + [True]
            bench.worker.stop()
            assert bench.worker.settle_now(claims[-1]) is None

    tell(story)


def test_what_clerk_refuses_for_good_is_reported_and_not_tried_again() -> None:
    async def story(bench: Bench) -> None:
        bench.store.add_users(user(1))
        bench.directory.errors["delete_user"] = ClerkRefused("422: the user cannot be deleted")
        await bench.store.go_on_later(await requested(bench, 1))
        with capture_logs() as logs:
            async with bench.working():
                await bench.until(lambda: bench.counted("refused"), seconds=1)
                await asyncio.sleep(3600)
        assert bench.directory.calls["delete_user"] == 1
        [warning] = [each for each in logs if each["event"] == "account_deletion_refused"]
        assert "cannot be deleted" in warning["error"]
        assert bench.store.users() == {user(1)}

    tell(story)


def test_a_request_that_was_stored_elsewhere_is_tried_until_clerk_answers() -> None:
    async def story(bench: Bench) -> None:
        bench.store.add_users(user(1))
        bench.directory.errors["delete_user"] = ClerkUnavailable("Clerk is away")
        await bench.store.go_on_later(await requested(bench, 1))
        async with bench.working():
            await asyncio.sleep(1800)
            assert bench.store.users() == {user(1)}
            del bench.directory.errors["delete_user"]
            await bench.until(lambda: bench.counted("removed"), seconds=601)
        assert not bench.store.users()

    tell(story)


def test_a_claim_of_another_replica_is_found_without_a_wake_up() -> None:
    async def story(bench: Bench) -> None:
        async with bench.working():
            await asyncio.sleep(1)
            await bench.claim(1)
            assert await bench.until(lambda: bench.counted("removed"), seconds=60) <= 6.0

    tell(story)


def test_a_user_whom_clerk_still_knows_keeps_every_row_and_the_claim_is_discarded_with_a_warning() -> None:
    async def story(bench: Bench) -> None:
        bench.store.add_users(user(1))
        bench.directory.sign_up(user(1))
        await bench.claim(1)
        with capture_logs() as logs:
            async with bench.working():
                took = await bench.until(lambda: bench.counted("discarded"), seconds=3600)
        assert bench.store.users() == {user(1)}
        assert not bench.store.claims
        assert took == pytest.approx(5 + 30 + 120 + 300, abs=1)
        assert [each["log_level"] for each in logs if each["event"] == "deletion_discarded"] == ["warning"]

    tell(story)


@pytest.mark.parametrize("error", [ClerkUnavailable("500"), ClerkRefused("403")])
def test_a_claim_without_a_usable_answer_waits_and_is_settled_later(error: ClerkUnavailable | ClerkRefused) -> None:
    async def story(bench: Bench) -> None:
        bench.store.add_users(user(1))
        bench.directory.errors["look_up"] = error
        await bench.claim(1)
        async with bench.working():
            await bench.until(lambda: bench.counted("postponed"), seconds=1)
            assert bench.store.users() == {user(1)}
            del bench.directory.errors["look_up"]
            assert 4 < await bench.until(lambda: bench.counted("removed"), seconds=60) < 6
        assert not bench.store.users()

    tell(story)


def test_a_longer_wait_that_clerk_asks_for_is_kept() -> None:
    async def story(bench: Bench) -> None:
        bench.directory.errors["look_up"] = ClerkUnavailable("429", retry_after=timedelta(seconds=40))
        await bench.claim(1)
        async with bench.working():
            await bench.until(lambda: bench.counted("postponed"), seconds=1)
            assert 39 < await bench.until(lambda: bench.counted("postponed") == 2, seconds=60) < 41

    tell(story)


def test_one_claim_that_clerk_is_slow_about_does_not_hold_up_the_next() -> None:
    async def story(bench: Bench) -> None:
        bench.directory.seconds = 20
        await bench.claim(1)
        async with bench.working():
            await bench.until(lambda: bench.directory.asking == 1, seconds=1)
            bench.directory.seconds = 0
            await bench.claim(2)
            bench.worker.wake()
            assert await bench.until(lambda: bench.counted("removed") == 1, seconds=60) < 0.1

    tell(story)


def test_no_more_than_a_few_claims_are_settled_at_once() -> None:
    async def story(bench: Bench) -> None:
        bench.directory.seconds = 1
        await bench.claim(*range(30))
        async with bench.working():
            await bench.until(lambda: bench.counted("removed") == 30, seconds=60)
        assert bench.directory.most_asking == AT_ONCE

    tell(story)


def test_a_claim_that_outlasts_its_lease_is_not_begun_a_second_time() -> None:
    async def story(bench: Bench) -> None:
        bench.directory.seconds = 200
        await bench.claim(1)
        async with bench.working():
            await bench.until(lambda: bench.counted("removed"), seconds=300)
        assert bench.directory.most_asking == 1
        assert bench.store.tombstones == {user(1)}

    tell(story)


def test_an_outage_of_the_database_is_survived_without_asking_all_the_time() -> None:
    async def story(bench: Bench) -> None:
        bench.store.failing = 4
        await bench.claim(1)
        async with bench.working():
            took = await bench.until(lambda: bench.counted("removed"), seconds=60)
        assert took == pytest.approx(1 + 2 + 5 + 10, abs=1)
        assert bench.store.takes < 10

    tell(story)


def test_stopping_finishes_the_claims_under_way_and_takes_no_more() -> None:
    async def story(bench: Bench) -> None:
        bench.directory.seconds = 3
        await bench.claim(1)
        async with bench.working():
            await bench.until(lambda: bench.directory.asking, seconds=1)
            await bench.claim(2)
        assert bench.store.tombstones == {user(1)}
        assert [claim.user_id for claim, _ in bench.store.claims.values() if claim.kind is ClaimKind.DELETION] == [
            user(2)
        ]

    tell(story)


def test_a_claim_that_was_taken_and_never_settled_comes_again_after_its_lease() -> None:
    async def story(bench: Bench) -> None:
        await bench.claim(1)
        assert len(await bench.store.take_claims(8, PACE.lease)) == 1
        async with bench.working():
            assert 29 < await bench.until(lambda: bench.counted("removed"), seconds=60) < 31

    tell(story)


def test_a_fault_of_ours_in_one_claim_leaves_the_others() -> None:
    class Faulty(Directory):
        async def look_up(self, user_id: UserId) -> Presence:
            if user_id == user(1):
                raise RuntimeError
            return await super().look_up(user_id)

    async def story(bench: Bench) -> None:
        faulty = Faulty()
        clock = LoopClock(asyncio.get_running_loop())
        bench.worker = Worker(
            Spec("app/x"), Served(faulty, bench.store, bench.store, clock, faulty), bench.metrics, PACE
        )
        await bench.claim(1, 2)
        async with bench.working():
            await bench.until(lambda: bench.counted("removed") and bench.counted("failed"), seconds=60)
        assert bench.store.tombstones == {user(2)}

    tell(story)
