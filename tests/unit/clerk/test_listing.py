"""The listing on its own: parted, checked, complete or refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.clerk.answers import Answer, read_users
from controller.clerk.listing import PAGE, Breadth, Window, check_counts, list_users, part
from controller.errors import ClerkUnavailable, ListingIncomplete
from tests.support.fakes.clock import run_skipping
from tests.unit.clerk.sources import FakeSource, Users, numbered, page_of

if TYPE_CHECKING:
    from datetime import datetime

NARROW = Breadth(window_users=20, chains=4)
A_DAY = 86_400_000
SINCE = 1_700_000_000_000


def listed(source: FakeSource, breadth: Breadth = NARROW) -> Counter[str]:
    async def story() -> Counter[str]:
        return Counter([user.id async for page in list_users(source, breadth) for user in page])

    return run_skipping(story())


def everybody(users: Users) -> Counter[str]:
    return Counter(user_id for _, user_id in users)


def evenly(count: int) -> Users:
    return numbered([SINCE + place * 60_000 for place in range(count)])


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(
        st.one_of(
            st.integers(SINCE, SINCE + 20_000),
            st.integers(SINCE, SINCE + 300 * A_DAY),
            st.sampled_from([SINCE, SINCE + 1000, SINCE + 5000, SINCE + A_DAY]),
        ),
        max_size=200,
    ),
    inclusive=st.booleans(),
)
def test_every_user_is_listed_once_whatever_the_times_and_whatever_the_bounds_mean(
    times: list[int], *, inclusive: bool
) -> None:
    users = numbered(times)

    assert listed(FakeSource(users, inclusive=inclusive)) == everybody(users)


@pytest.mark.parametrize("inclusive", [False, True])
def test_users_exactly_on_the_bounds_are_listed_once(*, inclusive: bool) -> None:
    users = numbered([SINCE + place * 1000 for place in range(500)])

    assert listed(FakeSource(users, inclusive=inclusive)) == everybody(users)


def test_an_empty_instance_is_asked_for_one_page() -> None:
    source = FakeSource([])

    assert listed(source) == Counter()
    assert len(source.pages) == 1


def test_few_users_are_one_chain_of_cursors() -> None:
    source = FakeSource(evenly(1200))

    assert listed(source, Breadth()) == everybody(source.users)
    assert [page.get("starting_after") for page in source.pages] == [None, "user_20000499", "user_20000999"]
    assert all(page["limit"] == "500" and page["order_by"] == "created_at" for page in source.pages)
    assert all("offset" not in page for page in source.pages)


def test_the_windows_of_an_even_population_hold_about_as_many_and_cost_one_question_each() -> None:
    source = FakeSource(evenly(1000))

    windows = run_skipping(part(source, 1000, NARROW))

    sizes = [sum(window.owns(at) for at in moments(source)) for window in windows]
    assert len(windows) == 12
    assert max(sizes) <= 2 * min(sizes)
    assert len(source.counts) == len(windows) - 1


def moments(source: FakeSource) -> list[datetime]:
    return [user.created_at for user in read_users(page_of(source.users))]


def test_the_windows_cover_all_time() -> None:
    windows = run_skipping(part(FakeSource(evenly(1000)), 1000, NARROW))

    assert windows[0].start is None
    assert windows[-1].end is None
    assert all(earlier.end == later.start for earlier, later in pairwise(windows))


@pytest.mark.parametrize("crowds", [1, 6])
def test_the_search_for_bounds_ends_where_users_crowd_within_seconds(crowds: int) -> None:
    times = [SINCE + 70 * A_DAY * (place % crowds) + place % 900 for place in range(900)]
    users = numbered([*times, SINCE + 900 * A_DAY])
    source = FakeSource(users)

    assert listed(source) == everybody(users)
    assert len(source.counts) <= 4 * 12 + 2


def test_chains_run_side_by_side_and_no_more_than_allowed() -> None:
    source = FakeSource(evenly(1000))
    peak = 0

    def measure(_number: int) -> None:
        nonlocal peak
        peak = max(peak, source.under_way + 1)

    source.on_page = measure
    listed(source)

    assert peak == NARROW.chains


def test_windows_run_ahead_of_the_consumer_by_one_page_each() -> None:
    source = FakeSource(evenly(20_000))

    async def story() -> int:
        pages = list_users(source, Breadth(window_users=5000, chains=4))
        await anext(pages)
        await asyncio.sleep(1000)
        asked = len(source.pages)
        await pages.aclose()
        return asked

    # Oldest and newest, the first page of each of four chains, and one more of the chain that was read from.
    assert run_skipping(story()) == 2 + 4 + 1


def test_an_abandoned_listing_ends_its_requests() -> None:
    source = FakeSource(evenly(1000))

    async def story() -> None:
        pages = list_users(source, NARROW)
        await anext(pages)
        await asyncio.sleep(0)
        assert source.under_way > 0
        closed_at = asyncio.get_running_loop().time()

        await pages.aclose()

        assert source.under_way == 0
        assert asyncio.get_running_loop().time() == closed_at

    run_skipping(story())


def test_a_page_that_fails_ends_the_other_windows() -> None:
    source = FakeSource(evenly(1000))

    def fail(number: int) -> None:
        if number == 9:
            message = "away"
            raise ClerkUnavailable(message)

    source.on_page = fail

    async def story() -> int:
        with pytest.raises(ClerkUnavailable):
            async for _page in list_users(source, NARROW):
                pass
        return len(asyncio.all_tasks())

    assert run_skipping(story()) == 1
    assert source.under_way == 0


def test_a_question_that_fails_while_parting_ends_the_other_questions() -> None:
    source = FakeSource(evenly(1000))
    unhurried = source.count

    async def fail(parameters: tuple[tuple[str, str], ...]) -> int:
        if len(source.counts) == 5:
            message = "away"
            raise ClerkUnavailable(message)
        return await unhurried(parameters)

    source.count = fail  # type: ignore[method-assign]  # a fake that fails half-way

    async def story() -> int:
        with pytest.raises(ClerkUnavailable):
            async for _page in list_users(source, NARROW):
                pass
        return len(asyncio.all_tasks())

    assert run_skipping(story()) == 1


def deleting_at_cursor(source: FakeSource, page: int) -> None:
    """Delete the user at the cursor of that page, just before it is answered."""

    def delete(number: int) -> None:
        cursor = source.pages[number - 1].get("starting_after")
        if number == page and cursor is not None:
            source.users = [user for user in source.users if user[1] != cursor]

    source.on_page = delete


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("same_millisecond", [False, True])
def test_a_user_deleted_at_the_cursor_loses_and_doubles_nobody(*, inclusive: bool, same_millisecond: bool) -> None:
    step = 0 if same_millisecond else 1
    users = numbered([SINCE + place * step for place in range(1400)])
    source = FakeSource(users, inclusive=inclusive)
    deleting_at_cursor(source, 2)

    assert listed(source, Breadth()) == everybody(users)


def test_users_deleted_at_several_cursors_lose_and_double_nobody() -> None:
    users = evenly(2900)
    source = FakeSource(users)

    def delete(number: int) -> None:
        cursor = source.pages[number - 1].get("starting_after")
        if number in {2, 5, 8}:
            assert cursor is not None
            source.users = [user for user in source.users if user[1] != cursor]

    source.on_page = delete

    assert listed(source, Breadth()) == everybody(users)


def test_a_cursor_refused_again_and_again_within_one_millisecond_is_incomplete() -> None:
    source = FakeSource(numbered([SINCE] * 1400))
    source.alter = lambda number, answer: (
        Answer("GET /v1/users", 422, b"{}") if "starting_after" in source.pages[number - 1] else answer
    )

    with pytest.raises(ListingIncomplete, match="cannot be continued"):
        listed(source, Breadth())


def test_a_limit_silently_lowered_is_incomplete() -> None:
    with pytest.raises(ListingIncomplete, match="10 of 11"):
        listed(FakeSource(evenly(11), largest=499), Breadth())


def test_a_page_longer_than_asked_for_is_incomplete() -> None:
    source = FakeSource(evenly(600))
    source.alter = lambda _number, _answer: page_of(source.users)

    with pytest.raises(ListingIncomplete, match="600 users"):
        listed(source, Breadth())


def test_a_cursor_that_is_ignored_is_incomplete() -> None:
    source = FakeSource(evenly(600))
    source.alter = lambda _number, _answer: page_of(source.users[:PAGE])

    with pytest.raises(ListingIncomplete, match="order"):
        listed(source, Breadth())


def test_a_cursor_that_is_ignored_within_one_millisecond_is_incomplete() -> None:
    source = FakeSource(numbered([SINCE] * 600))
    source.alter = lambda _number, _answer: page_of(source.users[:PAGE])

    with pytest.raises(ListingIncomplete, match="twice"):
        listed(source, Breadth())


def test_a_user_outside_of_the_window_is_incomplete() -> None:
    source = FakeSource(evenly(1000))
    last = source.users[-1]
    source.alter = lambda number, answer: page_of([last]) if "created_at_before" in source.pages[number - 1] else answer

    with pytest.raises(ListingIncomplete, match="window"):
        listed(source)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"[]]",
        b"[null]",
        b"[[]]",
        b"<html></html>",
        b'{"data": [], "total_count": 0}',
        b'[{"object":"user","id":"user_2a"}]',
        b'[{"object":"user","id":"user_2a","created_at":null}]',
        b'[{"object":"user","id":"user_2a","created_at":"1700000000000"}]',
        b'[{"object":"user","id":"user_2a","created_at":1700000000000.5}]',
        b'[{"object":"user","id":"user_2a","created_at":-1}]',
        b'[{"object":"user","id":"user_2a","created_at":99999999999999999}]',
        b'[{"object":"user","id":null,"created_at":1700000000000}]',
        b'[{"object":"user","id":"","created_at":1700000000000}]',
        b'[{"object":"user","id":"user_","created_at":1700000000000}]',
        b'[{"object":"user","id":"user_2a\\n","created_at":1700000000000}]',
        b'[{"object":"user","id":"org_2a","created_at":1700000000000}]',
        b'[{"object":"organization","id":"user_2a","created_at":1700000000000}]',
        b'[{"id":"user_2a","created_at":1700000000000}]',
        b'[{"object":"user","id":"user_\xff","created_at":1700000000000}]',
    ],
)
def test_a_page_that_is_no_list_of_users_is_incomplete(body: bytes) -> None:
    source = FakeSource(evenly(1), alter=lambda _number, _answer: Answer("GET /v1/users", 200, body))

    with pytest.raises(ListingIncomplete):
        listed(source)


@pytest.mark.parametrize(
    ("count", "before", "after"),
    [
        (0, 0, 0),
        (100, 100, 100),
        (100, 100, 105),
        (95, 100, 95),
        (105, 100, 100),
        (9_999, 10_000, 10_000),
        (999_900, 1_000_000, 1_000_000),
    ],
)
def test_a_listing_that_agrees_with_either_count_is_complete(count: int, before: int, after: int) -> None:
    check_counts(count, before, after)


@pytest.mark.parametrize(
    ("count", "before", "after"),
    [
        (0, 1, 1),
        (99, 100, 100),
        (94, 100, 95),
        (10, 11, 500),
        (9_998, 9_999, 9_999),
        (9_998, 10_000, 10_000),
        (999_500, 1_000_000, 1_000_000),
    ],
)
def test_a_listing_that_misses_more_than_can_have_come_and_gone_is_incomplete(
    count: int, before: int, after: int
) -> None:
    with pytest.raises(ListingIncomplete):
        check_counts(count, before, after)


def test_an_open_window_filters_nothing() -> None:
    assert Window().parameters() == ()
