"""Listing real pages over HTTP: large, lively and crowded instances, and the share of the rate limit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings, Endpoint, Fault, FaultName
from controller.errors import ClerkUnavailable
from tests.support.clerks import UNHURRIED, as_user_ids, clerk_of
from tests.support.contracts.directory import listing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from controller.clerk import Clerk

IMPORTED_AT = 1_700_000_000_123


@pytest.fixture
async def emulator() -> AsyncGenerator[ClerkEmulator, None]:
    async with ClerkEmulator(UNHURRIED) as emulator:
        yield emulator


@pytest.fixture
async def clerk(emulator: ClerkEmulator) -> AsyncGenerator[Clerk, None]:
    async with clerk_of(emulator) as clerk:
        yield clerk


def windows_under_way() -> int:
    return sum("Chain.next_page" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def test_a_large_instance_is_listed_in_several_windows_each_user_once(
    emulator: ClerkEmulator, clerk: Clerk
) -> None:
    emulator.add_users(20_000)

    listed = [user.id for user in await listing(clerk)]

    assert len(listed) == 20_000
    assert set(listed) == set(emulator.users)
    # Before and after, and the questions that part it.
    assert emulator.requests.by_endpoint[Endpoint.COUNT] > 2


async def test_an_import_of_many_users_in_one_millisecond_is_listed_each_user_once(
    emulator: ClerkEmulator, clerk: Clerk
) -> None:
    emulator.add_users(6_000, created_from=IMPORTED_AT, created_until=IMPORTED_AT)
    emulator.add_users(6_000)

    listed = [user.id for user in await listing(clerk)]

    assert len(listed) == 12_000
    assert set(listed) == set(emulator.users)


@pytest.mark.parametrize("cursor_works", [False, True])
async def test_deletions_and_sign_ups_during_the_listing_lose_no_living_user(*, cursor_works: bool) -> None:
    """A deletion under an offset would shift a living user out; here it even takes the cursors away."""
    settings = EmulatorSettings(rate_limit=None, deleted_cursor_works=cursor_works)
    async with ClerkEmulator(settings, users=3_000) as emulator, clerk_of(emulator) as clerk:
        at_first = set(emulator.users)
        listed = []
        async for page in clerk.list_users():
            listed += [user.id for user in page]
            emulator.delete_many([page[-1].id, page[0].id], webhook=False)
            emulator.sign_up(webhook=False)

        assert set(emulator.users) & at_first <= set(listed)
        assert len(listed) == len(set(listed))


async def test_a_consumer_that_stops_reading_stops_the_requests(emulator: ClerkEmulator, clerk: Clerk) -> None:
    emulator.add_users(5_000)
    pages = clerk.list_users()
    first = await anext(pages)

    for _ in range(20):
        await clerk.look_up(first[0].id)

    assert emulator.requests.by_endpoint[Endpoint.LIST] == 2
    await pages.aclose()


async def test_a_listing_that_fails_leaves_no_request_under_way(emulator: ClerkEmulator, clerk: Clerk) -> None:
    emulator.add_users(20_000)
    emulator.switch_on(Fault(FaultName.SERVER_ERROR, endpoint=Endpoint.LIST, page=6))

    with pytest.raises(ClerkUnavailable):
        await listing(clerk)

    assert windows_under_way() == 0


async def test_a_listing_closed_early_leaves_no_request_under_way(emulator: ClerkEmulator, clerk: Clerk) -> None:
    emulator.add_users(20_000)
    pages = clerk.list_users()
    await anext(pages)
    assert windows_under_way() > 0

    await pages.aclose()

    assert windows_under_way() == 0


async def test_many_tasks_side_by_side_keep_to_their_share_as_the_instance_counts_it() -> None:
    settings = EmulatorSettings(environment=Environment.DEVELOPMENT)
    async with ClerkEmulator(settings, users=7) as emulator, clerk_of(emulator, share=0.05) as clerk:
        ids = as_user_ids(emulator.users)
        # All seven at once; the last two have to wait until the first five have left the window.
        await asyncio.gather(*(clerk.look_up(user_id) for user_id in ids))

        assert emulator.requests.total == 7
        assert emulator.requests.peak == 5


async def test_a_listing_within_the_share_is_never_refused() -> None:
    settings = EmulatorSettings(environment=Environment.PRODUCTION)
    async with ClerkEmulator(settings, users=20_000) as emulator, clerk_of(emulator, share=0.45) as clerk:
        assert len(await listing(clerk)) == 20_000
        assert emulator.requests.peak <= 450
