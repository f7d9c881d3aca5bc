"""Never more than the share in any ten seconds; silence when Clerk asks for it. Time is held by the tests."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.clerk.limiting import WINDOW, Limiter, RequestWindow, requests_allowed
from controller.core.users import Environment
from controller.errors import ClerkUnavailable
from tests.support.fakes.clock import LoopClock, run_skipping

PATIENCE = timedelta(seconds=60)


@pytest.mark.parametrize(
    ("environment", "share", "requests"),
    [
        (Environment.PRODUCTION, 1.0, 1000),
        (Environment.PRODUCTION, 0.45, 450),
        (Environment.DEVELOPMENT, 0.45, 45),
        (Environment.DEVELOPMENT, 0.29, 29),
        (Environment.DEVELOPMENT, 0.999, 99),
        (Environment.DEVELOPMENT, 0.001, 1),
    ],
)
def test_the_share_is_of_the_limit_of_the_environment_and_one_at_the_least(
    environment: Environment, share: float, requests: int
) -> None:
    assert requests_allowed(environment, share) == requests


@pytest.mark.parametrize("share", [0, -0.1, 1.01, 50, math.nan])
def test_a_share_out_of_bounds_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        requests_allowed(Environment.PRODUCTION, share)


def test_places_are_given_at_once_up_to_the_limit() -> None:
    window = RequestWindow(2)

    assert [window.take(0.0), window.take(0.0)] == [0.0, 0.0]
    assert window.take(0.0) == math.inf


def test_a_place_is_free_ten_seconds_after_the_answer_and_not_after_the_departure() -> None:
    window = RequestWindow(1)
    window.take(0.0)
    window.end(3.0)

    assert window.take(10.0) == 3.0
    assert window.take(12.999) > 0
    assert window.take(13.0) == 0.0


def test_a_block_holds_although_places_are_free() -> None:
    window = RequestWindow(5)
    window.block(7.0)
    window.block(3.0)

    assert window.take(2.0) == 5.0
    assert window.take(7.0) == 0.0


def test_the_longer_of_block_and_full_window_counts() -> None:
    window = RequestWindow(1)
    window.take(0.0)
    window.end(0.0)
    window.block(4.0)

    assert window.take(1.0) == 9.0
    window.block(30.0)
    assert window.take(1.0) == 29.0


requests = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60)


@given(limit=st.integers(1, 8), wanted=requests)
def test_no_ten_seconds_hold_more_than_the_limit_wherever_between_departure_and_answer_they_arrive(
    limit: int, wanted: list[tuple[float, float, float]]
) -> None:
    """Each wanted request: how long it is under way, where in between it arrives, the pause before the next."""
    window = RequestWindow(limit)
    now = 0.0
    arrivals: list[float] = []
    under_way: list[float] = []
    for duration, place, pause in wanted:
        while delay := window.take(now):
            ends = min(under_way, default=math.inf)
            now = min(now + delay, ends)
            if ends <= now:
                under_way.remove(ends)
                window.end(ends)
        arrivals.append(now + duration * place)
        under_way.append(now + duration)
        now += pause
        for ends in sorted(end for end in under_way if end <= now):
            under_way.remove(ends)
            window.end(ends)

    arrivals.sort()
    for first, beyond in zip(arrivals, arrivals[limit:], strict=False):
        assert beyond - first >= WINDOW - 1e-6


def test_many_tasks_side_by_side_keep_to_the_limit() -> None:
    async def story() -> list[float]:
        clock = LoopClock(asyncio.get_running_loop())
        limiter = Limiter(5, clock, patience=PATIENCE)
        arrivals: list[float] = []

        async def ask() -> None:
            async with limiter.place():
                await asyncio.sleep(0.1)
                arrivals.append(clock.elapsed())

        await asyncio.gather(*(ask() for _ in range(23)))
        return arrivals

    arrivals = run_skipping(story())

    assert len(arrivals) == 23
    assert all(beyond - first >= WINDOW for first, beyond in zip(arrivals, arrivals[5:], strict=False))
    assert arrivals[-1] < 45


def test_a_block_holds_back_those_who_wait_and_those_who_come() -> None:
    async def story() -> list[float]:
        clock = LoopClock(asyncio.get_running_loop())
        limiter = Limiter(1, clock, patience=PATIENCE)
        departures: list[float] = []

        async def ask() -> None:
            async with limiter.place():
                departures.append(clock.elapsed())

        await ask()
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(1)
        limiter.block(timedelta(seconds=30))
        await waiting
        return departures

    assert run_skipping(story()) == [0.0, 31.0]


def test_a_block_longer_than_our_patience_is_not_waited_for() -> None:
    async def story() -> None:
        limiter = Limiter(1, LoopClock(asyncio.get_running_loop()), patience=PATIENCE)
        limiter.block(timedelta(seconds=61))
        async with limiter.place():
            pass

    with pytest.raises(ClerkUnavailable) as caught:
        run_skipping(story())

    assert caught.value.retry_after == timedelta(seconds=61)


def test_who_waits_already_hears_of_a_block_beyond_our_patience_at_once() -> None:
    async def story() -> float:
        clock = LoopClock(asyncio.get_running_loop())
        limiter = Limiter(1, clock, patience=PATIENCE)

        async def ask() -> None:
            async with limiter.place():
                pass

        await ask()
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(1)
        limiter.block(timedelta(hours=1))
        await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(waiting.exception(), ClerkUnavailable)
        return clock.elapsed()

    assert run_skipping(story()) == 1.0


def test_who_is_cancelled_while_waiting_takes_no_place() -> None:
    async def story() -> float:
        clock = LoopClock(asyncio.get_running_loop())
        limiter = Limiter(1, clock, patience=PATIENCE)

        async def ask() -> None:
            async with limiter.place():
                pass

        await ask()
        waiting = [asyncio.create_task(ask()) for _ in range(3)]
        await asyncio.sleep(1)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await ask()
        return clock.elapsed()

    assert run_skipping(story()) == 10.0


def test_who_is_cancelled_while_asking_counts() -> None:
    async def story() -> float:
        clock = LoopClock(asyncio.get_running_loop())
        limiter = Limiter(1, clock, patience=PATIENCE)

        async def ask(seconds: float) -> None:
            async with limiter.place():
                await asyncio.sleep(seconds)

        asking = asyncio.create_task(ask(60))
        await asyncio.sleep(4)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await ask(0)
        return clock.elapsed()

    assert run_skipping(story()) == 14.0


def test_those_who_wait_leave_in_the_order_they_came() -> None:
    async def story() -> list[int]:
        limiter = Limiter(2, LoopClock(asyncio.get_running_loop()), patience=PATIENCE)
        order: list[int] = []

        async def ask(number: int) -> None:
            async with limiter.place():
                order.append(number)

        await asyncio.gather(*(ask(number) for number in range(9)))
        return order

    assert run_skipping(story()) == list(range(9))
