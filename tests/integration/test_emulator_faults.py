"""What a client sees of each fault, over real HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest

from controller.core.users import parse_user_id
from controller.emulator import ClerkEmulator, EmulatorSettings, Endpoint, Fault, FaultName
from tests.support.emulators import Caller, calling, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    async with ClerkEmulator(EmulatorSettings(rate_limit=None), users=12) as emulator:
        yield emulator


@pytest.fixture
async def caller(clerk: ClerkEmulator) -> AsyncIterator[Caller]:
    async with calling(clerk) as caller:
        yield caller


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (FaultName.SERVER_ERROR, (500, "internal_clerk_error")),
        (FaultName.FORBIDDEN, (403, "authorization_invalid")),
        (FaultName.RATE_LIMITED, (429, "too_many_requests")),
    ],
)
@pytest.mark.parametrize("path", ["/users", "/users/count", "/users/user_a", "/instance"])
async def test_refusals_have_clerks_form_at_every_endpoint(
    clerk: ClerkEmulator, caller: Caller, name: FaultName, expected: tuple[int, str], path: str
) -> None:
    clerk.switch_on(Fault(name))
    answer = await caller.get(path)
    assert (answer.status, answer.code) == expected


async def test_500_on_page_three_leaves_the_other_pages(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.SERVER_ERROR, endpoint=Endpoint.LIST, page=3, times=1))
    statuses = [(await caller.get("/users")).status for _ in range(4)]
    assert statuses == [200, 200, 500, 200]


@pytest.mark.parametrize(("seconds", "header"), [(7, "7"), (None, None)])
async def test_429_comes_with_and_without_retry_after(
    clerk: ClerkEmulator, caller: Caller, seconds: int | None, header: str | None
) -> None:
    clerk.switch_on(Fault(FaultName.RATE_LIMITED, seconds=seconds))
    assert (await caller.get("/users")).headers.get("Retry-After") == header


async def test_a_timeout_answers_nothing_until_the_client_gives_up(clerk: ClerkEmulator) -> None:
    clerk.switch_on(Fault(FaultName.TIMEOUT))
    async with calling(clerk, timeout=0.2) as caller:
        with pytest.raises(TimeoutError):
            await caller.get("/users")


async def test_slow_answers_come_late_and_right(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.SLOW, seconds=0.5))
    async with calling(clerk, timeout=0.2) as impatient:
        with pytest.raises(TimeoutError):
            await impatient.get("/users")
    assert len(await caller.ids()) == 10


async def test_a_reset_ends_the_connection(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.RESET))
    with pytest.raises(aiohttp.ClientOSError):
        await caller.get("/users")


@pytest.mark.parametrize("name", [FaultName.TRUNCATED_BODY, FaultName.GARBAGE_GZIP])
@pytest.mark.parametrize("path", ["/users", "/instance"])
async def test_broken_bodies_cannot_be_read(clerk: ClerkEmulator, caller: Caller, name: FaultName, path: str) -> None:
    clerk.switch_on(Fault(name))
    with pytest.raises(aiohttp.ClientPayloadError):
        await caller.get(path)


async def test_a_page_of_html_comes_with_200(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.HTML_PAGE, endpoint=Endpoint.LIST))
    answer = await caller.get("/users", held=False)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!DOCTYPE html>")


async def test_an_empty_list_on_page_two_leaves_the_other_pages(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.EMPTY_LIST, page=2, times=1))
    assert [len(await caller.ids()) for _ in range(3)] == [10, 0, 10]


async def test_a_short_page_has_half_of_its_users(clerk: ClerkEmulator, caller: Caller) -> None:
    full = await caller.ids()
    clerk.switch_on(Fault(FaultName.SHORT_PAGE))
    assert await caller.ids() == full[:5]


async def test_a_duplicate_id_is_that_of_the_page_before(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.DUPLICATE_ID, page=2))
    first = await caller.ids({"limit": 4})
    second = await caller.ids({"limit": 4, "starting_after": first[-1]})
    assert second[0] == first[-1]
    assert len(second) == 4


async def test_an_order_break_puts_the_oldest_of_the_page_first(clerk: ClerkEmulator, caller: Caller) -> None:
    ordered = await caller.ids()
    clerk.switch_on(Fault(FaultName.ORDER_BREAK))
    assert await caller.ids() == [ordered[-1], *ordered[1:-1], ordered[0]]


async def test_an_odd_id_is_not_of_clerks_form(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.ODD_ID))
    assert parse_user_id((await caller.ids())[0]) is None


async def test_another_instance_answers_with_another_id(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.OTHER_INSTANCE))
    assert (await caller.get("/instance")).content["id"] != clerk.instance.id


async def test_hidden_users_are_missing_from_the_listing_alone(clerk: ClerkEmulator, caller: Caller) -> None:
    hidden = list(clerk.users)[3]
    clerk.switch_on(Fault(FaultName.HIDE_USERS, endpoint=Endpoint.LIST, ids=frozenset({hidden})))
    assert hidden not in await caller.ids({"limit": 500})
    assert await caller.ids([("user_id", hidden)]) == [hidden]
    assert (await caller.get(f"/users/{hidden}")).status == 200
    assert (await caller.get("/users/count")).content["total_count"] == 12


async def test_hidden_users_are_missing_from_the_filter_alone(clerk: ClerkEmulator, caller: Caller) -> None:
    hidden = list(clerk.users)[3]
    clerk.switch_on(Fault(FaultName.HIDE_USERS, endpoint=Endpoint.FILTER, ids=frozenset({hidden})))
    assert hidden in await caller.ids({"limit": 500})
    assert await caller.ids([("user_id", hidden)]) == []


async def test_a_look_up_can_lie(clerk: ClerkEmulator, caller: Caller) -> None:
    hidden = list(clerk.users)[3]
    clerk.switch_on(Fault(FaultName.HIDE_USERS, endpoint=Endpoint.LOOKUP, ids=frozenset({hidden})))
    answer = await caller.get(f"/users/{hidden}")
    assert (answer.status, answer.code) == (404, "resource_not_found")
    assert hidden in await caller.ids({"limit": 500})


async def test_hiding_without_an_endpoint_hides_everywhere(clerk: ClerkEmulator, caller: Caller) -> None:
    hidden = list(clerk.users)[3]
    clerk.switch_on(Fault(FaultName.HIDE_USERS, ids=frozenset({hidden})))
    assert hidden not in await caller.ids({"limit": 500})
    assert await caller.ids([("user_id", hidden)]) == []
    assert (await caller.get(f"/users/{hidden}")).status == 404
    assert (await caller.get("/users/count")).content["total_count"] == 11


async def test_a_404_can_have_another_code(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.OTHER_404))
    answer = await caller.get("/users/user_nobody")
    assert answer.status == 404
    assert answer.code != "resource_not_found"


async def test_a_404_can_be_a_page_of_html(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.HTML_404))
    answer = await caller.get("/users/user_nobody", held=False)
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8")


async def test_a_look_up_can_answer_with_an_odd_object(clerk: ClerkEmulator, caller: Caller) -> None:
    user_id = next(iter(clerk.users))
    number = clerk.switch_on(Fault(FaultName.EMPTY_OBJECT))
    assert (await caller.get(f"/users/{user_id}", held=False)).content == {}
    clerk.faults.switch_off(number)
    clerk.switch_on(Fault(FaultName.OTHER_USER))
    assert (await caller.get(f"/users/{user_id}", held=False)).content["id"] != user_id
    clerk.switch_on(Fault(FaultName.LIST_INSTEAD))
    assert isinstance((await caller.get(f"/users/{user_id}", held=False)).content, list)


async def test_a_fault_of_one_user_leaves_the_look_ups_of_others(clerk: ClerkEmulator, caller: Caller) -> None:
    unlucky, lucky, *_ = clerk.users
    clerk.switch_on(Fault(FaultName.SERVER_ERROR, endpoint=Endpoint.LOOKUP, ids=frozenset({unlucky})))
    assert (await caller.get(f"/users/{unlucky}")).status == 500
    assert (await caller.get(f"/users/{lucky}")).status == 200


async def test_stopping_ends_requests_that_hang(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.switch_on(Fault(FaultName.TIMEOUT))
    hanging = asyncio.create_task(caller.get("/users"))
    await until(lambda: clerk.requests.total)
    await clerk.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await hanging
