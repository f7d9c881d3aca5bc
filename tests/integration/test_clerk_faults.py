"""Every fault of the emulator, and what the client makes of it, over real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controller.core.users import Presence, UserId
from controller.emulator import ClerkEmulator, Endpoint, Fault, FaultName
from controller.errors import ClerkAnswerOdd, ClerkRefused, ClerkUnavailable, ListingIncomplete
from tests.support.clerks import UNHURRIED, as_user_ids, clerk_of
from tests.support.contracts.directory import listing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from controller.clerk import Clerk
    from controller.errors import UserSyncError

UNAVAILABLE = [
    FaultName.SERVER_ERROR,
    FaultName.RATE_LIMITED,
    FaultName.TIMEOUT,
    FaultName.RESET,
    FaultName.TRUNCATED_BODY,
    FaultName.GARBAGE_GZIP,
]
"""Faults that another attempt may get over."""


@pytest.fixture
async def emulator() -> AsyncGenerator[ClerkEmulator, None]:
    async with ClerkEmulator(UNHURRIED, users=1300) as emulator:
        yield emulator


@pytest.fixture
async def clerk(emulator: ClerkEmulator) -> AsyncGenerator[Clerk, None]:
    async with clerk_of(emulator) as clerk:
        yield clerk


@pytest.fixture
def ids(emulator: ClerkEmulator) -> list[UserId]:
    return as_user_ids(emulator.users)


@pytest.mark.parametrize("page", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "error"),
    [
        *((name, ClerkUnavailable) for name in UNAVAILABLE),
        (FaultName.FORBIDDEN, ClerkRefused),
        (FaultName.HTML_PAGE, ListingIncomplete),
        (FaultName.HTML_404, ListingIncomplete),
        (FaultName.OTHER_404, ListingIncomplete),
        (FaultName.EMPTY_OBJECT, ListingIncomplete),
        (FaultName.LIST_INSTEAD, ListingIncomplete),
        (FaultName.EMPTY_LIST, ListingIncomplete),
        (FaultName.SHORT_PAGE, ListingIncomplete),
        (FaultName.DUPLICATE_ID, ListingIncomplete),
        (FaultName.ORDER_BREAK, ListingIncomplete),
        (FaultName.ODD_ID, ListingIncomplete),
    ],
)
async def test_a_listing_with_a_bad_page_fails(
    emulator: ClerkEmulator, clerk: Clerk, page: int, name: FaultName, error: type[UserSyncError]
) -> None:
    emulator.switch_on(Fault(name, endpoint=Endpoint.LIST, page=page))

    with pytest.raises(error):
        await listing(clerk)


@pytest.mark.parametrize("name", UNAVAILABLE)
@pytest.mark.parametrize("endpoint", [Endpoint.LIST, Endpoint.COUNT])
async def test_a_listing_gets_over_a_fault_that_passes(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId], endpoint: Endpoint, name: FaultName
) -> None:
    emulator.switch_on(Fault(name, endpoint=endpoint, page=2, times=1))

    listed = await listing(clerk)

    assert sorted(user.id for user in listed) == sorted(ids)


@pytest.mark.parametrize("name", [FaultName.HTML_PAGE, FaultName.EMPTY_OBJECT, FaultName.LIST_INSTEAD])
@pytest.mark.parametrize("question", [1, 2])
async def test_a_listing_with_an_odd_count_is_incomplete(
    emulator: ClerkEmulator, clerk: Clerk, name: FaultName, question: int
) -> None:
    emulator.switch_on(Fault(name, endpoint=Endpoint.COUNT, page=question))

    with pytest.raises(ListingIncomplete):
        await listing(clerk)


async def test_a_listing_that_hides_a_single_user_whom_clerk_counts_is_incomplete(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId]
) -> None:
    emulator.switch_on(Fault(FaultName.HIDE_USERS, endpoint=Endpoint.LIST, ids=frozenset(ids[700:701])))

    with pytest.raises(ListingIncomplete, match=r"1299 of 1300"):
        await listing(clerk)


async def test_a_slow_answer_is_waited_for(emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId]) -> None:
    emulator.switch_on(Fault(FaultName.SLOW, endpoint=Endpoint.LIST, seconds=0.05))

    assert len(await listing(clerk)) == len(ids)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        *((name, ClerkUnavailable) for name in UNAVAILABLE),
        (FaultName.FORBIDDEN, ClerkRefused),
        (FaultName.HTML_PAGE, ClerkAnswerOdd),
        (FaultName.HTML_404, ClerkAnswerOdd),
        (FaultName.OTHER_404, ClerkAnswerOdd),
        (FaultName.EMPTY_OBJECT, ClerkAnswerOdd),
        (FaultName.OTHER_USER, ClerkAnswerOdd),
        (FaultName.LIST_INSTEAD, ClerkAnswerOdd),
    ],
)
async def test_a_look_up_of_a_living_user_with_a_fault_is_no_answer(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId], name: FaultName, error: type[UserSyncError]
) -> None:
    emulator.switch_on(Fault(name, endpoint=Endpoint.LOOKUP))

    with pytest.raises(error):
        await clerk.look_up(ids[0])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (FaultName.SERVER_ERROR, ClerkUnavailable),
        (FaultName.RATE_LIMITED, ClerkUnavailable),
        (FaultName.TIMEOUT, ClerkUnavailable),
        (FaultName.RESET, ClerkUnavailable),
        (FaultName.FORBIDDEN, ClerkRefused),
        (FaultName.HTML_PAGE, ClerkAnswerOdd),
        (FaultName.HTML_404, ClerkAnswerOdd),
        (FaultName.OTHER_404, ClerkAnswerOdd),
    ],
)
async def test_a_look_up_of_a_deleted_user_with_a_fault_proves_nothing(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId], name: FaultName, error: type[UserSyncError]
) -> None:
    emulator.delete(ids[0], webhook=False)
    emulator.switch_on(Fault(name, endpoint=Endpoint.LOOKUP))

    with pytest.raises(error):
        await clerk.look_up(ids[0])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (FaultName.SERVER_ERROR, ClerkUnavailable),
        (FaultName.RATE_LIMITED, ClerkUnavailable),
        (FaultName.TIMEOUT, ClerkUnavailable),
        (FaultName.FORBIDDEN, ClerkRefused),
        (FaultName.UNPROCESSABLE, ClerkRefused),
        (FaultName.HTML_404, ClerkAnswerOdd),
        (FaultName.OTHER_404, ClerkAnswerOdd),
    ],
)
async def test_a_deletion_with_a_fault_is_none(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId], name: FaultName, error: type[UserSyncError]
) -> None:
    emulator.switch_on(Fault(name, endpoint=Endpoint.DELETE))

    with pytest.raises(error):
        await clerk.delete_user(ids[0])
    assert ids[0] in emulator.users


@pytest.mark.parametrize("name", [FaultName.HTML_PAGE, FaultName.EMPTY_OBJECT, FaultName.OTHER_USER])
async def test_a_deletion_that_is_answered_oddly_is_not_believed(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId], name: FaultName
) -> None:
    emulator.switch_on(Fault(name, endpoint=Endpoint.DELETE))

    with pytest.raises(ClerkAnswerOdd):
        await clerk.delete_user(ids[0])


@pytest.mark.parametrize("name", [FaultName.RESET, FaultName.UNANSWERED, FaultName.TRUNCATED_BODY])
async def test_a_deletion_whose_answer_gets_lost_is_asked_for_again(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId], name: FaultName
) -> None:
    emulator.switch_on(Fault(name, endpoint=Endpoint.DELETE, times=1))

    await clerk.delete_user(ids[0])

    assert ids[0] not in emulator.users
    assert emulator.requests.by_endpoint[Endpoint.DELETE] == 2


@pytest.mark.parametrize(
    ("name", "error"),
    [
        *((name, ClerkUnavailable) for name in UNAVAILABLE),
        (FaultName.FORBIDDEN, ClerkRefused),
        (FaultName.HTML_PAGE, ClerkAnswerOdd),
        (FaultName.EMPTY_OBJECT, ClerkAnswerOdd),
        (FaultName.LIST_INSTEAD, ClerkAnswerOdd),
    ],
)
async def test_a_fault_at_the_key_set_is_never_a_key(
    emulator: ClerkEmulator, clerk: Clerk, name: FaultName, error: type[UserSyncError]
) -> None:
    emulator.switch_on(Fault(name, endpoint=Endpoint.JWKS))

    with pytest.raises(error):
        await clerk.signing_keys()


@pytest.mark.parametrize("user_id", ["", "count", "user_", "../instance", "user_a/ban"])
async def test_what_is_no_user_is_never_deleted(emulator: ClerkEmulator, clerk: Clerk, user_id: str) -> None:
    with pytest.raises(ValueError, match="form"):
        await clerk.delete_user(UserId(user_id))
    assert emulator.requests.total == 0


@pytest.mark.parametrize("name", UNAVAILABLE)
async def test_a_look_up_gets_over_a_fault_that_passes(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId], name: FaultName
) -> None:
    emulator.delete(ids[0], webhook=False)
    emulator.switch_on(Fault(name, endpoint=Endpoint.LOOKUP, times=1))

    assert await clerk.look_up(ids[0]) is Presence.ABSENT


@pytest.mark.parametrize(
    ("name", "error"),
    [
        *((name, ClerkUnavailable) for name in UNAVAILABLE),
        (FaultName.FORBIDDEN, ClerkRefused),
        (FaultName.HTML_PAGE, ClerkAnswerOdd),
        (FaultName.OTHER_404, ClerkAnswerOdd),
        (FaultName.LIST_INSTEAD, ClerkAnswerOdd),
        (FaultName.DUPLICATE_ID, ClerkAnswerOdd),
        (FaultName.ODD_ID, ClerkAnswerOdd),
    ],
)
async def test_a_second_look_with_a_fault_fails(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId], name: FaultName, error: type[UserSyncError]
) -> None:
    emulator.switch_on(Fault(name, endpoint=Endpoint.FILTER, page=2))

    with pytest.raises(error):
        await clerk.find(ids[:250])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        *((name, ClerkUnavailable) for name in UNAVAILABLE),
        (FaultName.FORBIDDEN, ClerkRefused),
        (FaultName.HTML_PAGE, ClerkAnswerOdd),
        (FaultName.OTHER_404, ClerkAnswerOdd),
        (FaultName.EMPTY_OBJECT, ClerkAnswerOdd),
        (FaultName.LIST_INSTEAD, ClerkAnswerOdd),
    ],
)
async def test_a_fault_at_the_instance_is_never_an_instance(
    emulator: ClerkEmulator, clerk: Clerk, name: FaultName, error: type[UserSyncError]
) -> None:
    emulator.switch_on(Fault(name, endpoint=Endpoint.INSTANCE))

    with pytest.raises(error):
        await clerk.instance()


async def test_another_instance_is_told_as_it_is(emulator: ClerkEmulator, clerk: Clerk) -> None:
    emulator.switch_on(Fault(FaultName.OTHER_INSTANCE))

    assert (await clerk.instance()).id != emulator.instance.id


async def test_giving_up_takes_the_attempts_allowed_and_no_more(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId]
) -> None:
    emulator.switch_on(Fault(FaultName.SERVER_ERROR, endpoint=Endpoint.LOOKUP))

    with pytest.raises(ClerkUnavailable):
        await clerk.look_up(ids[0])

    assert emulator.requests.by_endpoint[Endpoint.LOOKUP] == 3


async def test_a_lost_kept_connection_is_not_asked_again_behind_the_limiters_back(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId]
) -> None:
    await clerk.look_up(ids[0])
    emulator.requests.reset()
    emulator.switch_on(Fault(FaultName.RESET, endpoint=Endpoint.LOOKUP))

    with pytest.raises(ClerkUnavailable):
        await clerk.look_up(ids[0])

    assert emulator.requests.by_endpoint[Endpoint.LOOKUP] == 3


@pytest.mark.parametrize("name", [FaultName.SERVER_ERROR, FaultName.FORBIDDEN, FaultName.OTHER_404])
async def test_a_message_names_code_and_trace_but_neither_key_nor_user(
    emulator: ClerkEmulator, clerk: Clerk, ids: list[UserId], name: FaultName
) -> None:
    emulator.switch_on(Fault(name, endpoint=Endpoint.LOOKUP))

    with pytest.raises((ClerkUnavailable, ClerkRefused, ClerkAnswerOdd)) as caught:
        await clerk.look_up(ids[0])

    message = str(caught.value)
    assert "GET /v1/users/{id}" in message
    assert "trace " in message
    assert any(code in message for code in ("internal_clerk_error", "authorization_invalid", "instance_not_found"))
    assert ids[0] not in message
    assert emulator.secret_key not in message


async def test_a_wrong_key_is_refused(emulator: ClerkEmulator) -> None:
    other = ClerkEmulator(UNHURRIED)
    other.secret_key = emulator.secret_key + "x"
    other._port = emulator._port

    async with clerk_of(other) as clerk:
        with pytest.raises(ClerkRefused, match="clerk_key_invalid"):
            await clerk.instance()
