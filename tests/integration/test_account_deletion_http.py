"""Account deletion over real HTTP, on Clerk and a database in memory: every answer that a front-end can get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from controller.core.targets import AccountDeletion, ClerkSource, Spec
from controller.errors import ClerkRefused, ClerkUnavailable, DatabaseUnavailable, SecretNotFound, UserSyncError
from controller.web.account_deletion import BODY_BYTES_MAX, Bounds
from controller.web.account_deletion import AccountDeletion as Handler
from controller.web.keyring import Declaration
from controller.web.rates import Rates
from controller.web.resources import Resources
from tests.support.emulators import until
from tests.support.fakes.directory import user
from tests.support.fakes.store import FakeStore
from tests.support.serving import eventually
from tests.support.sessions import (
    ORIGIN,
    OTHER_INSTANCE,
    OTHER_ORIGIN,
    TERMS,
    ask,
    bearer,
    keys_of,
    sessions,
    token,
)
from tests.support.webhooks import SPEC, FakeWorld, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta

    from controller.core.claims import Claim
    from controller.core.users import UserId
    from controller.settings import Credentials

Serve = Callable[..., AbstractAsyncContextManager[str]]
USER, OTHER = user(1), user(2)
DELETING = replace(SPEC, account_deletion=TERMS)


def cookie() -> dict[str, str]:
    """The headers of a page of an authorized party that sends no token of its own; made now, as it lives a minute."""
    return {"Cookie": f"__session={token(USER)}", "Origin": ORIGIN}


@pytest.fixture
def world() -> FakeWorld:
    world = FakeWorld()
    world.directory.keys = keys_of(sessions())
    world.directory.sign_up(USER, OTHER)
    world.store.add_users(USER, OTHER)
    return world


@pytest.fixture
def serve(world: FakeWorld) -> Serve:
    """Serves specs of the world; gives the URL."""

    def start(
        *specs: Spec, bounds: Bounds | None = None, rates: Rates | None = None
    ) -> AbstractAsyncContextManager[str]:
        resources = Resources(world.workshop())
        for spec in specs or (DELETING,):
            resources.apply(world.declare(spec))
        handler = Handler(resources, world.metrics, bounds or Bounds(), rates or Rates())
        return serving(resources, world.metrics, None, handler)

    return start


@pytest.fixture
async def url(world: FakeWorld, serve: Serve) -> AsyncIterator[str]:
    async with serve() as url:
        await until(lambda: world.opened)
        yield url


def untouched(world: FakeWorld) -> bool:
    """Whether nothing has been done to anybody, nor is intended."""
    return (
        set(world.directory.users) == {USER, OTHER}
        and world.store.users() == {USER, OTHER}
        and not world.store.claims
        and world.directory.calls["delete_user"] == 0
    )


@pytest.mark.parametrize("method", ["DELETE", "POST"])
async def test_a_user_deletes_himself_and_hears_what_went(world: FakeWorld, url: str, method: str) -> None:
    answer = await ask(url, bearer(token(USER)), method=method)
    assert (answer.status, answer.content["status"]) == (200, "deleted")
    assert answer.content["rows"] == dict.fromkeys(("user_progress", "tasks", "daily_checkins", "moods"), 1)
    assert answer.content["receipt"]["requestedBy"] == "own request"
    assert set(world.directory.users) == world.store.users() == {OTHER}
    assert answer.headers["Cache-Control"] == "no-store"
    assert world.counted("usersync_account_deletions_total", result="deleted") == 1


async def test_asked_again_he_hears_the_same(world: FakeWorld, url: str) -> None:
    first, second = [await ask(url, bearer(token(USER))) for _ in range(2)]
    assert (second.status, second.content) == (200, first.content)
    assert len(world.store.receipts) == 1
    assert world.directory.calls["delete_user"] == 1


async def test_asked_many_times_at_once_he_is_deleted_once(world: FakeWorld, url: str) -> None:
    answers = await asyncio.gather(*(ask(url, bearer(token(USER))) for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
    assert len(world.store.receipts) == 1


async def test_with_the_cookie_and_the_origin_of_the_token_he_is_deleted(world: FakeWorld, url: str) -> None:
    answer = await ask(url, cookie())
    assert answer.status == 200
    assert world.store.users() == {OTHER}


@pytest.mark.parametrize("origin", [None, "null", "https://attacker.example.com", OTHER_ORIGIN, ORIGIN + "/", ""])
async def test_with_the_cookie_alone_or_from_another_page_he_is_not(
    world: FakeWorld, url: str, origin: str | None
) -> None:
    headers = {"Cookie": cookie()["Cookie"]} | ({} if origin is None else {"Origin": origin})
    for method in ("DELETE", "POST"):
        answer = await ask(url, headers, method=method)
        assert (answer.status, answer.content["error"]) == (403, "origin")
    assert untouched(world)


async def test_from_a_foreign_page_a_token_in_the_header_does_not_help(world: FakeWorld, url: str) -> None:
    answer = await ask(url, bearer(token(USER)) | {"Origin": "https://attacker.example.com"})
    assert (answer.status, answer.content["error"]) == (403, "origin")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert untouched(world)


async def test_a_header_that_is_no_token_is_not_made_up_for_by_the_cookie(world: FakeWorld, url: str) -> None:
    for authorization in ("Basic dXNlcjpwYXNz", "Bearer", "Bearer ", ""):
        answer = await ask(url, cookie() | {"Authorization": authorization})
        assert (answer.status, answer.content["error"]) == (401, "no_session")
    assert untouched(world)


@pytest.mark.parametrize("name", ["token", "__session", "access_token", "Authorization", "jwt"])
async def test_a_token_in_the_query_is_never_looked_at(world: FakeWorld, url: str, name: str) -> None:
    answer = await ask(url, {"Origin": ORIGIN}, query=f"?{name}={token(USER)}")
    assert (answer.status, answer.content["error"]) == (401, "no_session")
    assert untouched(world)


@pytest.mark.parametrize("prefix", ["ak_", "oat_", "m2m_", "mt_"])
async def test_a_machines_token_is_401(world: FakeWorld, url: str, prefix: str) -> None:
    answer = await ask(url, bearer(f"{prefix}2abcdef"))
    assert (answer.status, answer.content["error"]) == (401, "machine")
    assert untouched(world)


async def test_who_is_refused_loses_nothing_and_his_token_is_in_no_log_and_no_answer(
    world: FakeWorld, url: str
) -> None:
    text = token(USER, act={"sub": "user_2admin"})
    with capture_logs() as logs:
        answer = await ask(url, bearer(text))
    assert (answer.status, answer.content["error"]) == (403, "impersonated")
    assert world.counted("usersync_webhook_refusals_total", kind="impersonated") == 1
    assert text not in str(logs) + str(answer.content)
    assert USER not in str([each for each in logs if each["log_level"] != "debug"])
    assert untouched(world)


async def test_whose_proof_is_old_gets_what_clerks_front_end_opens_its_dialogue_on(world: FakeWorld, url: str) -> None:
    answer = await ask(url, bearer(token(USER, fva=[11, -1])) | {"Origin": ORIGIN})
    assert answer.status == 403
    assert answer.content == {
        "clerk_error": {
            "type": "forbidden",
            "reason": "reverification-error",
            "metadata": {"reverification": {"level": "second_factor", "afterMinutes": 10}},
        }
    }
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert untouched(world)


async def test_an_unknown_instance_costs_nobody_a_question(world: FakeWorld, url: str) -> None:
    await ask(url, bearer(token(USER, fva=[500, -1])))
    asked, store = dict(world.directory.calls), dict(world.store.claims)
    for number in range(50):
        text = sessions(OTHER_INSTANCE).token(USER, ORIGIN)
        answer = await ask(url, bearer(text if number % 2 else text.replace("ey", f"ey{number}", 1)))
        assert (answer.status, answer.content["error"]) == (401, "not_a_session")
    assert (dict(world.directory.calls), world.store.claims) == (asked, store)


async def test_a_key_set_with_a_second_instances_key_does_not_let_its_users_in(world: FakeWorld, url: str) -> None:
    world.directory.keys = keys_of(sessions(), sessions(OTHER_INSTANCE))
    answer = await ask(url, bearer(sessions(OTHER_INSTANCE).token(USER, ORIGIN)))
    assert answer.status == 401
    assert untouched(world)


async def test_a_preflight_from_an_authorized_party_is_permitted(url: str) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "DELETE"}
    answer = await ask(url, headers, method="OPTIONS")
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Allow-Methods"] == "DELETE, POST"
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("origin", [None, "null", "*", "https://attacker.example.com", f"{ORIGIN}.attacker.example"])
async def test_a_preflight_from_elsewhere_is_not(url: str, origin: str | None) -> None:
    answer = await ask(url, {} if origin is None else {"Origin": origin}, method="OPTIONS")
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


async def test_an_error_can_be_read_by_an_authorized_party(url: str) -> None:
    answer = await ask(url, {"Origin": ORIGIN})
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "HEAD"])
async def test_other_methods_are_405(world: FakeWorld, url: str, method: str) -> None:
    answer = await ask(url, bearer(token(USER)), method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "DELETE,OPTIONS,POST")
    assert untouched(world)


async def test_a_body_is_ignored(world: FakeWorld, url: str) -> None:
    answer = await ask(url, bearer(token(USER)), method="POST", body=f'{{"user_id": "{OTHER}"}}'.encode())
    assert answer.status == 200
    assert world.store.users() == {OTHER}


async def test_a_body_that_is_too_large_is_413(world: FakeWorld, url: str) -> None:
    answer = await ask(url, bearer(token(USER)), method="POST", body=b" " * (BODY_BYTES_MAX + 1))
    assert answer.status == 413
    assert untouched(world)


async def test_who_asks_too_often_waits_and_the_others_do_not(world: FakeWorld, serve: Serve) -> None:
    world.directory.errors["delete_user"] = ClerkRefused("422")
    async with serve(rates=Rates(burst=2)) as url:
        answers = [await ask(url, bearer(token(USER))) for _ in range(3)]
        assert [answer.status for answer in answers] == [502, 502, 429]
        assert 0 < int(answers[2].headers["Retry-After"]) <= 6
        assert (await ask(url, bearer(token(OTHER)))).status == 502


async def test_while_clerk_is_away_the_request_waits_and_no_row_goes(world: FakeWorld, url: str) -> None:
    world.directory.errors["delete_user"] = ClerkUnavailable("Clerk is away")
    answer = await ask(url, bearer(token(USER)))
    assert (answer.status, answer.content["status"]) == (202, "pending")
    assert answer.headers["Retry-After"] == "5"
    assert world.store.users() == {USER, OTHER}
    assert len(world.store.claims) == 1
    del world.directory.errors["delete_user"]
    assert (await ask(url, bearer(token(USER)))).status == 200


async def test_what_clerk_refuses_for_good_is_said_and_forgotten(world: FakeWorld, url: str) -> None:
    world.directory.errors["delete_user"] = ClerkRefused("422 (user_cannot_be_deleted)")
    with capture_logs() as logs:
        answer = await ask(url, bearer(token(USER)))
    assert (answer.status, answer.content["status"]) == (502, "not_deleted")
    assert "Clerk refuses" in answer.content["message"]
    assert world.counted("usersync_account_deletions_total", result="refused") == 1
    assert world.counted("usersync_claims_total", result="refused") == 1
    [warning] = [each for each in logs if each["event"] == "account_deletion_refused"]
    assert "user_cannot_be_deleted" in warning["error"]
    assert world.store.users() == {USER, OTHER}
    assert not world.store.claims


async def test_what_takes_longer_is_answered_within_a_second_and_finished(world: FakeWorld, serve: Serve) -> None:
    world.store.bound, world.store.bite = 10, 1
    for _ in range(300):
        world.store.add_row("moods", USER)
    async with serve(bounds=Bounds(patience_seconds=0.0)) as url:
        await until(lambda: world.opened)
        answer = await ask(url, bearer(token(USER)))
        assert (answer.status, answer.content["status"]) == (202, "pending")
        await until(lambda: world.store.users() == {OTHER})
        await until(lambda: not world.store.begun)
        assert (await ask(url, bearer(token(USER)))).status == 200


async def test_a_dry_run_deletes_nothing_and_says_so(world: FakeWorld, serve: Serve) -> None:
    async with serve(replace(DELETING, dry_run=True)) as url:
        answer = await ask(url, bearer(token(USER)))
    assert (answer.status, answer.content["status"]) == (409, "not_deleted")
    assert "dryRun" in answer.content["message"]
    assert untouched(world)


async def test_while_suspended_the_request_is_kept_for_later(world: FakeWorld, serve: Serve) -> None:
    async with serve(replace(DELETING, suspend=True)) as url:
        answer = await ask(url, bearer(token(USER)))
    assert (answer.status, answer.content["status"]) == (202, "pending")
    assert "suspended" in answer.content["message"]
    assert world.store.users() == {USER, OTHER}
    async with serve():
        await until(lambda: world.store.users() == {OTHER})
    assert set(world.directory.users) == {OTHER}


@pytest.mark.parametrize("terms", [AccountDeletion(), replace(TERMS, enabled=False)])
async def test_where_no_resource_permits_it_there_is_no_such_path(
    world: FakeWorld, serve: Serve, terms: AccountDeletion
) -> None:
    async with serve(replace(SPEC, account_deletion=terms)) as url:
        await until(lambda: world.opened)
        for method in ("DELETE", "POST", "OPTIONS", "GET"):
            assert (await ask(url, cookie(), method=method)).status == 404
    assert untouched(world)


async def test_two_resources_of_one_instance_are_not_chosen_between(world: FakeWorld, serve: Serve) -> None:
    async with serve(DELETING, replace(DELETING, name="app/second")) as url:
        await until(lambda: len(world.opened) == 2)
        with capture_logs() as logs:
            answer = await ask(url, bearer(token(USER)))
    assert (answer.status, answer.content["error"]) == (409, "ambiguous")
    assert any(each["event"] == "account_deletion_ambiguous" for each in logs)
    assert untouched(world)


async def test_a_resource_that_names_an_instance_without_a_key_of_it_stands_in_nobodys_way(world: FakeWorld) -> None:
    async def refuse() -> Credentials:
        message = "Secret app/clerk does not exist."
        raise SecretNotFound(message)

    naming = replace(DELETING, name="other/second", clerk=ClerkSource(instance_id=world.directory.of.id))
    resources = Resources(world.workshop())
    resources.apply(Declaration(naming, None, refuse))
    resources.apply(world.declare(DELETING))
    async with serving(resources, world.metrics, None, Handler(resources, world.metrics)) as url:
        await until(lambda: world.opened)
        assert (await ask(url, bearer(token(USER)))).status == 200


async def test_of_two_resources_the_one_that_permits_it_is_taken(world: FakeWorld, serve: Serve) -> None:
    async with serve(SPEC, replace(DELETING, name="app/second")) as url:
        await until(lambda: len(world.opened) == 2)
        assert (await ask(url, bearer(token(USER)))).status == 200


@pytest.mark.parametrize("named", [None, "the instance"])
async def test_while_nothing_is_open_nobody_is_told_that_his_token_is_bad(
    world: FakeWorld, serve: Serve, named: str | None
) -> None:
    world.error = DatabaseUnavailable("the database is away")
    source = ClerkSource(instance_id=world.directory.of.id if named else None)
    async with serve(replace(DELETING, clerk=source)) as url:
        answer = await ask(url, bearer(token(USER)))
        assert answer.status == 503
        assert "Retry-After" in answer.headers
        world.error = None

        async def deleted() -> bool:
            return (await ask(url, bearer(token(USER)))).status == 200

        await eventually(deleted)


@pytest.mark.parametrize("error", [ClerkUnavailable("away"), ClerkRefused("revoked")])
async def test_without_clerks_keys_nobody_is_told_that_his_token_is_bad(
    world: FakeWorld, url: str, error: UserSyncError
) -> None:
    world.directory.errors["signing_keys"] = error
    answer = await ask(url, bearer(token(USER)))
    assert (answer.status, answer.content["error"]) == (503, "ClerkUnavailable")
    assert untouched(world)


async def test_too_many_at_once_are_asked_to_come_back(world: FakeWorld, serve: Serve) -> None:
    async with serve(bounds=Bounds(at_once=0)) as url:
        answer = await ask(url, bearer(token(USER)))
    assert (answer.status, answer.content["error"]) == (503, "busy")
    assert untouched(world)


async def test_what_the_user_is_to_hear_of_an_error_names_no_host(world: FakeWorld, serve: Serve) -> None:
    class Away(FakeStore):
        async def request_removal(self, user_id: UserId, lease: timedelta) -> Claim | None:
            del user_id, lease
            message = "db.internal.example.com refuses the connection"
            raise DatabaseUnavailable(message)

    world.store = Away(world.clock)
    async with serve() as url:
        answer = await ask(url, bearer(token(USER)))
    assert (answer.status, answer.content["error"]) == (503, "DatabaseUnavailable")
    assert "internal" not in str(answer.content)


NASTY = [
    b"",
    b"\xff\xfe",
    b"Bearer \xe9\xe9.\xff.\x80",
    b"Bearer " + b"." * 7000,
    b"Bearer " + b"[" * 7000,
    b"Bearer eyJhbGciOiJSUzI1NiJ9..",
    b"__session=" + b"\xff" * 50,
    b'__session="',
    b'__session="\\377\\', b"__session=" + b"A." * 3500,
    b"__session=a; __session=b; __session",
    b"=;=;=;;; ; __session==",
    b"https://\xff.example.com",
    b"null, null",
]  # fmt: skip


@pytest.mark.parametrize(
    "name", [b"Authorization", b"Cookie", b"Origin", b"Expect", b"Content-Length", b"Content-Type"]
)
async def test_whatever_stands_in_a_header_it_is_no_error_of_ours(world: FakeWorld, url: str, name: bytes) -> None:
    for method in (b"DELETE", b"POST", b"OPTIONS"):
        for value in NASTY:
            lines = [method + b" /api/user/delete HTTP/1.1", b"Host: x", b"Connection: close", name + b": " + value]
            status = await status_of_raw(url, b"\r\n".join(lines) + b"\r\n\r\n")
            assert 400 <= status < 500, (name, value)
    assert untouched(world)


async def status_of_raw(url: str, request: bytes) -> int:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(10):
        line = await reader.readline()
    writer.close()
    return int(line.split(b" ")[1])


async def test_two_authorization_headers_are_refused(world: FakeWorld, url: str) -> None:
    lines = [
        "DELETE /api/user/delete HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {token(USER)}",
        f"Authorization: Bearer {token(OTHER)}",
    ]
    assert await status_of_raw(url, ("\r\n".join(lines) + "\r\n\r\n").encode()) == 401
    assert untouched(world)


async def test_two_origins_are_refused(world: FakeWorld, url: str) -> None:
    lines = [
        "DELETE /api/user/delete HTTP/1.1",
        "Host: x",
        f"Cookie: {cookie()['Cookie']}",
        f"Origin: {ORIGIN}",
        "Origin: https://attacker.example.com",
    ]
    assert await status_of_raw(url, ("\r\n".join(lines) + "\r\n\r\n").encode()) == 403
    assert untouched(world)


async def test_a_client_that_waits_before_it_sends_a_body_has_its_answer(world: FakeWorld, url: str) -> None:
    lines = [
        "POST /api/user/delete HTTP/1.1",
        "Host: x",
        "Expect: 100-continue",
        "Content-Length: 1000",
        f"Authorization: Bearer {token(USER)}",
    ]
    assert await status_of_raw(url, ("\r\n".join(lines) + "\r\n\r\n").encode()) == 200
    assert world.store.users() == {OTHER}
