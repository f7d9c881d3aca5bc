"""The emulator's answers over HTTP, each held to Clerk's OpenAPI description by `Caller`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import pytest

from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings, Endpoint
from tests.support.clerk_openapi import NotOfClerksForm, hold_answer
from tests.support.emulators import Caller, calling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    async with ClerkEmulator(EmulatorSettings(rate_limit=None)) as emulator:
        yield emulator


@pytest.fixture
async def caller(clerk: ClerkEmulator) -> AsyncIterator[Caller]:
    async with calling(clerk) as caller:
        yield caller


async def test_users_are_listed_ten_at_a_time_newest_first(clerk: ClerkEmulator, caller: Caller) -> None:
    ids = clerk.add_users(30)
    assert await caller.ids() == ids[:-11:-1]


async def test_a_limit_of_501_answers_ten_users(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.add_users(600)
    assert len(await caller.ids({"limit": 500})) == 500
    assert len(await caller.ids({"limit": 501})) == 10


async def test_cursors_reach_everybody_once(clerk: ClerkEmulator, caller: Caller) -> None:
    ids = clerk.add_users(1203)
    seen = await caller.ids({"limit": 500})
    seen += await caller.ids({"limit": 500, "starting_after": seen[-1]})
    seen += await caller.ids({"limit": 500, "starting_after": seen[-1]})
    assert seen == ids[::-1]


async def test_an_offset_loses_a_user_when_another_is_deleted_meanwhile(clerk: ClerkEmulator, caller: Caller) -> None:
    ids = clerk.add_users(6)
    seen = await caller.ids({"limit": 3})
    clerk.delete(ids[5])
    seen += await caller.ids({"limit": 3, "offset": 3})
    assert ids[2] not in seen


@pytest.mark.parametrize("extra", [{"offset": 1}, {"order_by": "-updated_at"}, {"starting_after": "user_nobody"}])
async def test_a_bad_cursor_answers_422(clerk: ClerkEmulator, caller: Caller, extra: dict[str, str | int]) -> None:
    ids = clerk.add_users(3)
    answer = await caller.get("/users", {"starting_after": ids[2], **extra})
    assert answer.status == 422


async def test_a_cursor_at_a_user_deleted_meanwhile_answers_422(clerk: ClerkEmulator, caller: Caller) -> None:
    ids = clerk.add_users(3)
    clerk.delete(ids[2])
    assert (await caller.get("/users", {"starting_after": ids[2]})).status == 422


async def test_a_cursor_at_a_user_deleted_meanwhile_goes_on_if_set_so() -> None:
    async with ClerkEmulator(EmulatorSettings(deleted_cursor_works=True)) as clerk, calling(clerk) as caller:
        ids = clerk.add_users(3)
        clerk.delete(ids[2])
        assert await caller.ids({"starting_after": ids[2]}) == [ids[1], ids[0]]


@pytest.mark.parametrize("parameters", [{"limit": 0}, {"limit": "x"}, {"offset": -1}, {"order_by": "x"}])
async def test_parameters_that_cannot_be_answer_422(caller: Caller, parameters: dict[str, str | int]) -> None:
    assert (await caller.get("/users", parameters)).status == 422


async def test_bounds_of_creation_are_exclusive(clerk: ClerkEmulator, caller: Caller) -> None:
    _, second, _ = (clerk.sign_up(created_at=moment) for moment in (1000, 2000, 3000))
    assert await caller.ids({"created_at_after": 1000, "created_at_before": 3000}) == [second]


async def test_a_filter_by_100_ids_without_a_limit_answers_ten(clerk: ClerkEmulator, caller: Caller) -> None:
    ids = clerk.add_users(200)
    asked = [("user_id", user_id) for user_id in ids[:100]]
    assert len(await caller.ids(asked)) == 10
    assert sorted(await caller.ids([*asked, ("limit", "100")])) == sorted(ids[:100])


async def test_a_filter_by_more_than_100_ids_answers_422(caller: Caller) -> None:
    asked = [("user_id", f"user_{number}") for number in range(101)]
    assert (await caller.get("/users", asked)).status == 422


async def test_signs_in_a_filter_include_and_exclude(clerk: ClerkEmulator, caller: Caller) -> None:
    ids = clerk.add_users(3)
    assert await caller.ids([("user_id", f"+{ids[0]}"), ("user_id", "user_nobody")]) == [ids[0]]
    assert await caller.ids([("user_id", f"-{ids[0]}")]) == [ids[2], ids[1]]


async def test_the_count_is_of_all_users_or_of_those_filtered(clerk: ClerkEmulator, caller: Caller) -> None:
    ids = clerk.add_users(30)
    assert (await caller.get("/users/count")).content["total_count"] == 30
    filtered = await caller.get("/users/count", [("user_id", ids[0]), ("user_id", "user_nobody")])
    assert filtered.content["total_count"] == 1


async def test_a_user_is_looked_up_by_id(clerk: ClerkEmulator, caller: Caller) -> None:
    (user_id,) = clerk.add_users(1)
    assert (await caller.get(f"/users/{user_id}")).content == clerk.users.describe(user_id)


async def test_a_missing_user_answers_404_resource_not_found(caller: Caller) -> None:
    answer = await caller.get("/users/user_nobody")
    assert (answer.status, answer.code) == (404, "resource_not_found")
    assert answer.content["clerk_trace_id"]


async def test_a_deleted_user_is_gone_and_a_second_deletion_answers_404(clerk: ClerkEmulator, caller: Caller) -> None:
    (user_id,) = clerk.add_users(1)
    answer = await caller.delete(f"/users/{user_id}")
    assert answer.content == {"object": "user", "id": user_id, "deleted": True}
    assert clerk.count == 0
    assert (await caller.delete(f"/users/{user_id}")).code == "resource_not_found"
    assert (await caller.get(f"/users/{user_id}")).code == "resource_not_found"


@pytest.mark.parametrize(
    ("environment", "prefix"), [(Environment.DEVELOPMENT, "sk_test_"), (Environment.PRODUCTION, "sk_live_")]
)
async def test_the_instance_and_its_key_tell_the_environment(environment: Environment, prefix: str) -> None:
    async with ClerkEmulator(EmulatorSettings(environment=environment)) as clerk, calling(clerk) as caller:
        content = (await caller.get("/instance")).content
        assert (content["id"], content["environment_type"]) == (clerk.instance.id, environment.value)
        assert clerk.secret_key.startswith(prefix)


async def test_the_key_set_is_named_after_the_instance(clerk: ClerkEmulator, caller: Caller) -> None:
    assert (await caller.get("/jwks")).content["keys"][0]["kid"] == clerk.instance.id


async def test_a_session_token_is_signed_with_the_key_of_the_key_set(clerk: ClerkEmulator, caller: Caller) -> None:
    (user_id,) = clerk.add_users(1)
    for _ in range(2):
        token = clerk.sessions.token(user_id, "https://app.example.com", fva=[1, 2], sts=None)
        key = jwt.PyJWK((await caller.get("/jwks")).content["keys"][0])
        claims = jwt.decode(token, key, algorithms=["RS256"], issuer=clerk.sessions.issuer)
        assert (claims["sub"], claims["azp"], claims["fva"]) == (user_id, "https://app.example.com", [1, 2])
        assert "sts" not in claims
        assert jwt.get_unverified_header(token)["kid"] == clerk.instance.id
        clerk.sessions.rotate()


@pytest.mark.parametrize("path", ["/users", "/users/count", "/users/user_a", "/instance", "/jwks"])
async def test_a_wrong_key_answers_401(clerk: ClerkEmulator, path: str) -> None:
    async with calling(clerk, key="sk_test_wrong") as caller:
        answer = await caller.get(path)
    assert (answer.status, answer.code) == (401, "clerk_key_invalid")


async def test_no_key_answers_401(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.add_users(1)
    answer = await caller.get("/users", headers={"Authorization": ""})
    assert (answer.status, answer.code) == (401, "authorization_header_format_invalid")


async def test_a_version_of_clerks_is_accepted_and_another_refused(caller: Caller) -> None:
    assert (await caller.get("/users", headers={"Clerk-API-Version": "2026-05-12"})).status == 200
    assert (await caller.get("/users", headers={"Clerk-API-Version": "2026-05-13"})).status == 400


async def test_a_version_given_twice_is_refused(caller: Caller) -> None:
    headers = {"Clerk-API-Version": "2026-05-12"}
    assert (await caller.get("/users", {"__clerk_api_version": "2026-05-12"})).status == 200
    assert (await caller.get("/users", {"__clerk_api_version": "2026-05-12"}, headers=headers)).status == 400


async def test_requests_beyond_the_limit_answer_429_with_whole_seconds() -> None:
    async with ClerkEmulator(EmulatorSettings(rate_limit=5)) as clerk, calling(clerk) as caller:
        answers = [await caller.get("/users") for _ in range(7)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 10
        assert clerk.requests.peak == 7


@pytest.mark.parametrize(("environment", "limit"), [(Environment.DEVELOPMENT, 100), (Environment.PRODUCTION, 1000)])
def test_the_limit_is_clerks_for_the_environment(environment: Environment, limit: int) -> None:
    assert ClerkEmulator(EmulatorSettings(environment=environment)).limiter.limit == limit


async def test_the_key_set_is_not_rate_limited() -> None:
    async with ClerkEmulator(EmulatorSettings(rate_limit=1)) as clerk, calling(clerk) as caller:
        assert {(await caller.get("/jwks")).status for _ in range(3)} == {200}


async def test_requests_are_counted_by_endpoint(clerk: ClerkEmulator, caller: Caller) -> None:
    clerk.add_users(1)
    await asyncio.gather(*(caller.get("/users") for _ in range(4)))
    await caller.ids([("user_id", "user_nobody")])
    await caller.get("/users/user_nobody")
    assert clerk.requests.by_endpoint == {Endpoint.LIST: 4, Endpoint.FILTER: 1, Endpoint.LOOKUP: 1}


@pytest.mark.parametrize(("accepted", "encoding"), [("gzip", "gzip"), ("identity", None)])
async def test_a_page_is_compressed_when_accepted(clerk: ClerkEmulator, accepted: str, encoding: str | None) -> None:
    clerk.add_users(50)
    headers = {"Authorization": f"Bearer {clerk.secret_key}", "Accept-Encoding": accepted}
    async with (
        aiohttp.ClientSession(clerk.url) as session,
        session.get("/v1/users?limit=50", headers=headers) as response,
    ):
        assert response.headers.get("Content-Encoding") == encoding
        assert len(await response.json()) == 50


async def test_an_emulator_that_stops_and_starts_keeps_url_and_users() -> None:
    async with ClerkEmulator(users=3) as clerk:
        url = clerk.url
        await clerk.stop()
        await clerk.start()
        async with calling(clerk) as caller:
            assert len(await caller.ids()) == 3
        assert clerk.url == url


async def test_edited_users_keep_clerks_form(clerk: ClerkEmulator, caller: Caller) -> None:
    first, second = clerk.add_users(2)
    metadata = {"plan": "free", "nested": [1]}
    clerk.edit(first, email_address=None, first_name=None, public_metadata=metadata, external_id="ex_1", banned=True)
    clerk.edit(second, username="ada", email_address="ada@example.com", created_at=5)
    changed, _ = (await caller.get("/users")).content
    assert (changed["public_metadata"], changed["first_name"]) == (metadata, None)


@pytest.mark.parametrize(
    ("path", "status", "content"),
    [
        ("/users", 200, [{"id": "user_a"}]),
        ("/users", 200, {}),
        ("/users", 302, []),
        ("/users/count", 200, {"object": "total_count"}),
        ("/users/{user_id}", 404, {"message": "not found"}),
    ],
)
def test_the_contract_finds_out_an_answer_of_another_form(path: str, status: int, content: Any) -> None:
    with pytest.raises(NotOfClerksForm):
        hold_answer("GET", path, status, content)


async def test_the_contract_finds_out_a_field_that_clerk_does_not_have(clerk: ClerkEmulator) -> None:
    (user_id,) = clerk.add_users(1)
    described = clerk.users.describe(user_id)
    hold_answer("GET", "/users", 200, [described])
    with pytest.raises(NotOfClerksForm, match="shoe_size"):
        hold_answer("GET", "/users", 200, [{**described, "shoe_size": 43}])
    with pytest.raises(NotOfClerksForm):
        hold_answer("GET", "/users", 200, [{**described, "created_at": None}])
