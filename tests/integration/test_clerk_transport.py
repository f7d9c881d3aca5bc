"""What the client sends, and what it makes of answers that no working Clerk gives."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from controller.clerk import Clerk
from controller.clerk.transport import MAX_BODY
from controller.core.users import Environment, Presence, UserId
from controller.emulator import ClerkEmulator, Endpoint, Fault, FaultName
from controller.errors import ClerkAnswerOdd, ClerkRefused, ClerkUnavailable, InvalidSpec, ListingIncomplete
from tests.support.clerks import HASTY, UNHURRIED, MonotonicClock, as_user_ids, clerk_of
from tests.support.contracts.directory import listing
from tests.support.stub_clerk import KEY, clerk_at_stub

if TYPE_CHECKING:
    from collections.abc import Callable

SOMEBODY = UserId("user_2somebody")
INSTANCE = {"object": "instance", "id": "ins_2stub", "environment_type": "development", "allowed_origins": None}


def answering(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Callable[[web.Request], web.Response]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda _request: web.Response(body=body, status=status, headers=headers, content_type="application/json")


def person(user_id: str) -> dict[str, Any]:
    return {"object": "user", "id": user_id, "created_at": 1_700_000_000_000}


def errors(*codes: str) -> dict[str, Any]:
    return {"errors": [{"message": "m", "long_message": "l", "code": code} for code in codes]}


async def test_a_request_carries_key_version_and_gzip() -> None:
    async with clerk_at_stub(answering(INSTANCE)) as (clerk, stub):
        await clerk.instance()

    headers = stub.requests[0].headers
    assert stub.requests[0].path == "/v1/instance"
    assert headers.getall("Authorization") == [f"Bearer {KEY}"]
    assert headers.getall("Clerk-API-Version") == ["2026-05-12"]
    assert headers.getall("Accept-Encoding") == ["gzip"]


async def test_the_filter_asks_with_a_limit_and_without_signs() -> None:
    async with clerk_at_stub(answering([])) as (clerk, stub):
        await clerk.find([SOMEBODY, UserId("user_2other"), SOMEBODY])

    assert sorted(stub.requests[0].query.items()) == [
        ("limit", "100"),
        ("user_id", "user_2other"),
        ("user_id", "user_2somebody"),
    ]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(status: int) -> None:
    async with clerk_at_stub(answering({}, status, {"Location": "/v1/elsewhere"})) as (clerk, stub):
        with pytest.raises(ClerkAnswerOdd, match="redirect"):
            await clerk.look_up(SOMEBODY)

    assert [request.path for request in stub.requests] == [f"/v1/users/{SOMEBODY}"]


@pytest.mark.parametrize("key", ["", "pk_test_abc", "sk_abc", "sk_test_", "sk_test_abc\n", "sk_live_a b", "sk_test_é"])
async def test_a_key_that_is_not_a_secret_key_is_never_sent(key: str) -> None:
    with pytest.raises(InvalidSpec):
        async with Clerk.open(key, base_url="http://127.0.0.1:9", share=1.0, clock=MonotonicClock()):
            pass


async def test_a_refused_key_does_not_stand_in_the_message() -> None:
    with pytest.raises(InvalidSpec) as caught:
        async with Clerk.open("sk_test_abc\n", base_url="http://127.0.0.1:9", share=1.0, clock=MonotonicClock()):
            pass

    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "environment"), [("sk_test_abc", Environment.DEVELOPMENT), ("sk_live_abc", Environment.PRODUCTION)]
)
async def test_the_instance_must_be_of_the_environment_of_the_key(key: str, environment: Environment) -> None:
    async with clerk_at_stub(answering({**INSTANCE, "environment_type": environment.value}), key) as (clerk, _):
        assert (await clerk.instance()).environment is environment
    other = next(each for each in Environment if each is not environment)
    async with clerk_at_stub(answering({**INSTANCE, "environment_type": other.value}), key) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd, match=other.value):
            await clerk.instance()


async def test_the_instance_is_asked_for_once() -> None:
    async with clerk_at_stub(answering(INSTANCE)) as (clerk, stub):
        assert await clerk.instance() == await clerk.instance()

    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    "content",
    [
        {**INSTANCE, "object": "user"},
        {**INSTANCE, "id": "user_2abc"},
        {**INSTANCE, "id": ""},
        {**INSTANCE, "environment_type": "staging"},
        {"object": "instance", "id": "ins_2stub"},
        [],
    ],
)
async def test_what_is_no_instance_is_odd(content: Any) -> None:
    async with clerk_at_stub(answering(content)) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd):
            await clerk.instance()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        {},
        [],
        {"errors": []},
        {"errors": None},
        {"errors": [{}]},
        {"errors": {"code": "resource_not_found"}},
        {"code": "resource_not_found"},
        errors("instance_not_found"),
        errors("resource_not_found", "internal_clerk_error"),
        errors("RESOURCE_NOT_FOUND"),
    ],
)
async def test_a_404_without_the_one_code_proves_nothing(content: Any) -> None:
    async with clerk_at_stub(answering(content, 404)) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd):
            await clerk.look_up(SOMEBODY)


async def test_a_404_with_the_one_code_alone_is_absence() -> None:
    async with clerk_at_stub(answering(errors("resource_not_found"), 404)) as (clerk, _):
        assert await clerk.look_up(SOMEBODY) is Presence.ABSENT


@pytest.mark.parametrize("status", [200, 201, 204, 400, 409, 410, 418, 422])
async def test_the_one_code_under_another_status_proves_nothing(status: int) -> None:
    async with clerk_at_stub(answering(errors("resource_not_found"), status)) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd):
            await clerk.look_up(SOMEBODY)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        None,
        [person(SOMEBODY)],
        person("user_2other"),
        person("user_2somebodyelse"),
        {**person(SOMEBODY), "object": "organization"},
        {"object": "user", "id": SOMEBODY, "deleted": True},
    ],
)
async def test_a_200_that_is_not_this_very_user_is_odd(content: Any) -> None:
    async with clerk_at_stub(answering(content)) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd):
            await clerk.look_up(SOMEBODY)


@pytest.mark.parametrize("status", [201, 206, 400, 409, 422])
async def test_the_right_user_under_another_status_is_odd(status: int) -> None:
    async with clerk_at_stub(answering(person(SOMEBODY), status)) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd):
            await clerk.look_up(SOMEBODY)


@pytest.mark.parametrize(
    "content",
    [{"total_count": 0}, {"object": "user", "total_count": 0}, {"object": "total_count", "total_count": -1}, 0, []],
)
async def test_a_listing_without_a_right_count_is_incomplete(content: Any) -> None:
    def answer(request: web.Request) -> web.Response:
        return web.json_response(content if request.path.endswith("/count") else [])

    async with clerk_at_stub(answer) as (clerk, _):
        with pytest.raises(ListingIncomplete):
            await listing(clerk)


@pytest.mark.parametrize("user_id", ["count", "../instance", "user_2a/../../x", "", "user_2a?b"])
async def test_what_is_no_id_is_never_asked_for(user_id: str) -> None:
    async with clerk_at_stub(answering({})) as (clerk, stub):
        with pytest.raises(ValueError, match="form"):
            await clerk.look_up(UserId(user_id))

    assert stub.requests == []


@pytest.mark.parametrize(
    "content", [[person("user_2other")], [person(SOMEBODY), person(SOMEBODY)], {"data": [person(SOMEBODY)]}]
)
async def test_a_second_look_that_names_others_or_one_twice_is_odd(content: Any) -> None:
    async with clerk_at_stub(answering(content)) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd):
            await clerk.find([SOMEBODY])


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("content", [errors("authentication_invalid"), b"<html>blocked</html>"])
async def test_a_refused_key_is_said_so(status: int, content: Any) -> None:
    async with clerk_at_stub(answering(content, status)) as (clerk, stub):
        with pytest.raises(ClerkRefused):
            await clerk.look_up(SOMEBODY)

    assert len(stub.requests) == 1


async def test_an_answer_in_gzip_is_read() -> None:
    body = gzip.compress(json.dumps(person(SOMEBODY)).encode())
    async with clerk_at_stub(answering(body, headers={"Content-Encoding": "gzip"})) as (clerk, _):
        assert await clerk.look_up(SOMEBODY) is Presence.PRESENT


@pytest.mark.parametrize("cut", [1, 8, 20])
async def test_a_gzip_that_ends_early_is_no_answer(cut: int) -> None:
    body = gzip.compress(json.dumps(person(SOMEBODY)).encode())[:-cut]
    async with clerk_at_stub(answering(body, headers={"Content-Encoding": "gzip"})) as (clerk, stub):
        with pytest.raises(ClerkUnavailable):
            await clerk.look_up(SOMEBODY)

    assert len(stub.requests) == 3


async def test_an_encoding_nobody_asked_for_is_odd() -> None:
    async with clerk_at_stub(answering(b"x", headers={"Content-Encoding": "br"})) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd, match="encoding"):
            await clerk.look_up(SOMEBODY)


async def test_a_small_body_that_unpacks_to_a_huge_one_is_not_unpacked_whole() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * MAX_BODY) for _ in range(6)) + packer.flush()
    async with clerk_at_stub(answering(bomb, headers={"Content-Encoding": "gzip"})) as (clerk, _):
        tracemalloc.start()
        try:
            with pytest.raises(ClerkAnswerOdd, match="larger"):
                await clerk.look_up(SOMEBODY)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 4 * MAX_BODY


async def test_a_huge_body_is_not_read_whole() -> None:
    async with clerk_at_stub(answering(b" " * (MAX_BODY + 1))) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd, match="larger"):
            await clerk.look_up(SOMEBODY)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_silence_longer_than_our_patience_ends_this_request_and_all_others_at_once(status: int) -> None:
    async with clerk_at_stub(answering(errors("x"), status, {"Retry-After": "3600"})) as (clerk, stub):
        with pytest.raises(ClerkUnavailable) as first:
            await clerk.look_up(SOMEBODY)
        with pytest.raises(ClerkUnavailable) as second:
            await clerk.find([SOMEBODY])

    assert first.value.retry_after == timedelta(hours=1)
    assert second.value.retry_after is not None
    assert timedelta(minutes=50) < second.value.retry_after <= timedelta(hours=1)
    assert len(stub.requests) == 1


@pytest.mark.parametrize("header", ["", "soon", "-5", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "٣"])
async def test_a_retry_after_that_cannot_be_read_is_as_good_as_none(header: str) -> None:
    async with clerk_at_stub(answering(errors("x"), 429, {"Retry-After": header})) as (clerk, stub):
        with pytest.raises(ClerkUnavailable) as caught:
            await clerk.look_up(SOMEBODY)

    assert caught.value.retry_after is None
    assert len(stub.requests) == 3


async def test_a_retry_after_beyond_all_measure_is_cut_to_a_day() -> None:
    async with clerk_at_stub(answering(errors("x"), 429, {"Retry-After": "9" * 4000})) as (clerk, _):
        with pytest.raises(ClerkUnavailable) as caught:
            await clerk.look_up(SOMEBODY)

    assert caught.value.retry_after == timedelta(days=1)


async def test_a_rate_limit_with_a_time_to_wait_is_waited_for() -> None:
    async with ClerkEmulator(UNHURRIED, users=1) as emulator, clerk_of(emulator) as clerk:
        (user_id,) = as_user_ids(emulator.users)
        emulator.switch_on(Fault(FaultName.RATE_LIMITED, endpoint=Endpoint.LOOKUP, times=1, seconds=1))
        clock = MonotonicClock()
        asked_at = clock.elapsed()

        assert await clerk.look_up(user_id) is Presence.PRESENT

        assert clock.elapsed() - asked_at >= 1.0


async def test_codes_and_traces_that_look_like_something_else_stay_out_of_messages() -> None:
    content = {**errors("user_2somebody@example.com"), "clerk_trace_id": "a b\nc"}
    async with clerk_at_stub(answering(content, 422)) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd) as caught:
            await clerk.look_up(SOMEBODY)

    assert "example.com" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_cloudflares_ray_stands_in_for_a_missing_trace() -> None:
    async with clerk_at_stub(answering(errors("x"), 422, {"CF-Ray": "8c1f-FRA"})) as (clerk, _):
        with pytest.raises(ClerkAnswerOdd, match="trace 8c1f-FRA"):
            await clerk.look_up(SOMEBODY)


async def test_a_port_where_nobody_listens_is_unavailable() -> None:
    async with clerk_at_stub(answering({})) as (_, stub):
        url = stub.url
    async with Clerk.open(KEY, base_url=url, share=1.0, clock=MonotonicClock(), patience=HASTY) as clerk:
        with pytest.raises(ClerkUnavailable, match=r"127\.0\.0\.1"):
            await clerk.look_up(SOMEBODY)
