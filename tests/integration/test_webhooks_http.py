"""The webhook service over real HTTP, on Clerk and a database in memory: every answer that a sender can get."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import aiohttp
import pytest
from structlog.testing import capture_logs

from controller.core.targets import Spec
from controller.core.users import Environment
from controller.emulator.events import sign
from controller.errors import ClerkUnavailable, DatabaseUnavailable, SchemaMissing, SecretNotFound, UserSyncError
from controller.web.keyring import Rhythm
from controller.web.resources import Resources
from controller.web.webhooks import BODY_BYTES_MAX, Bounds
from tests.support.emulators import until
from tests.support.fakes.directory import user
from tests.support.fakes.store import FakeStore
from tests.support.webhooks import (
    CREDENTIALS,
    OTHER_SECRET,
    PATH,
    SECRET,
    SPEC,
    Answer,
    FakeWorld,
    Sender,
    fake_service,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controller.core.events import Delivery
    from controller.core.outcomes import Absorbed
    from controller.core.users import UserId

SHORT_PATH = "/api/webhooks/clerk"


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


@pytest.fixture
async def sender(world: FakeWorld) -> AsyncIterator[Sender]:
    async with fake_service(world) as sender:
        yield sender


async def raw(sender: Sender, *pieces: bytes, end: bool = True) -> bytes:
    """Speak HTTP by hand; return the answer's first line, or nothing if there is none."""
    base = sender.session._base_url
    assert base is not None
    reader, writer = await asyncio.open_connection(base.host, base.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if end:
            writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.readline()
    finally:
        writer.close()


async def sent_until_received(sender: Sender, user_id: str, message_id: str) -> Answer:
    """Send as Svix does, until it is received; returns the last answer."""
    async with asyncio.timeout(10):
        while True:
            answer = await sender.send("user.created", user_id, message_id=message_id)
            if answer.status == 200:
                return answer
            await asyncio.sleep(0.05)


async def test_a_new_user_gets_a_profile(world: FakeWorld, sender: Sender) -> None:
    answer = await sender.send("user.created", user(1))
    assert (answer.status, answer.content) == (200, {"result": "created"})
    assert world.store.users("user_progress") == {user(1)}


async def test_the_same_message_again_has_no_effect(world: FakeWorld, sender: Sender) -> None:
    answers = [await sender.send("user.created", user(1), message_id="msg_same") for _ in range(3)]
    assert [answer.content["result"] for answer in answers] == ["created", "repeated", "repeated"]
    assert len(world.store.tables["user_progress"]) == 1


async def test_an_announced_deletion_is_claimed_and_settled_without_delay(world: FakeWorld, sender: Sender) -> None:
    await sender.send("user.created", user(1))
    answer = await sender.send("user.deleted", user(1))
    assert (answer.status, answer.content) == (200, {"result": "claimed"})
    await until(lambda: user(1) in world.store.tombstones, seconds=4)
    assert not world.store.users()


async def test_other_types_are_acknowledged_and_counted(world: FakeWorld, sender: Sender) -> None:
    for event_type in ("session.created", "user.updated", "something.new"):
        answer = await sender.send(event_type, user(1))
        assert (answer.status, answer.content) == (200, {"result": "ignored"})
    assert world.counted("usersync_webhook_events_total", type="other", result="ignored") == 2
    assert world.counted("usersync_webhook_events_total", type="user.updated", result="ignored") == 1
    assert not world.store.users()


async def test_an_event_of_another_instance_is_refused_counted_and_named_in_the_log(
    world: FakeWorld, sender: Sender
) -> None:
    with capture_logs() as logs:
        answer = await sender.send("user.created", user(1), instance_id="ins_other")
    assert (answer.status, answer.content["error"]) == (403, "wrong_instance")
    assert world.counted("usersync_webhook_refusals_total", kind="wrong_instance") == 1
    [warning] = [each for each in logs if each["event"] == "event_of_another_instance"]
    assert (warning["instance"], warning["event_instance"]) == (world.directory.of.id, "ins_other")
    assert not world.store.users()


@pytest.mark.parametrize("instance_id", ["", "ins_", "a name\nof two lines", "ins_" + "x" * 500_000])
async def test_what_is_no_id_of_an_instance_is_refused_and_not_repeated_in_the_log(
    world: FakeWorld, sender: Sender, instance_id: str
) -> None:
    with capture_logs() as logs:
        assert (await sender.send("user.created", user(1), instance_id=instance_id)).status == 403
    [warning] = [each for each in logs if each["event"] == "event_of_another_instance"]
    assert warning["event_instance"] == "malformed"
    assert not world.store.users()


async def test_a_key_for_development_with_an_event_of_the_production_instance_is_refused(
    world: FakeWorld, sender: Sender
) -> None:
    assert CREDENTIALS.clerk_secret_key.startswith("sk_test_")
    assert world.directory.of.environment is Environment.DEVELOPMENT
    production = "ins_2TheProductionInstance"
    for event_type in ("user.created", "user.deleted", "session.created"):
        assert (await sender.send(event_type, user(1), instance_id=production)).status == 403
    assert (world.store.delivered, world.store.claims, world.store.users()) == (set(), {}, set())


async def test_metrics_have_few_label_values_whatever_is_sent(world: FakeWorld, sender: Sender) -> None:
    for number in range(30):
        await sender.send(f"made.up.{number}", user(1), instance_id=None if number % 2 else f"ins_{number}")
        await sender.post(b"{}", {f"svix-{number}": "x"}, path=f"{SHORT_PATH}/app/name-{number}")
        await sender.post(b"{}", {"svix-id": f"x{number}"})
    labels = {
        name: {sample.labels.get(name) for metric in world.metrics.registry.collect() for sample in metric.samples}
        for name in ("type", "kind", "result", "reason", "status", "resource")
    }
    assert labels["type"] == {None, "other"}
    assert labels["resource"] == {None, SPEC.name}
    assert {len(values) < 12 for values in labels.values()} == {True}


class CountedStore(FakeStore):
    """Knows how often anything of it was called."""

    calls: int = 0

    def __getattribute__(self, name: str) -> object:
        found = object.__getattribute__(self, name)
        if inspect.iscoroutinefunction(found):
            self.calls += 1
        return found


async def test_a_strangers_request_costs_no_question_to_database_clerk_or_api_server() -> None:
    world = FakeWorld()
    world.store = store = CountedStore(world.clock)
    # suspended: no worker looks for claims meanwhile
    async with fake_service(world, replace(SPEC, suspend=True)) as sender:
        assert (await sender.send("session.created", user(1))).status == 200
        await until(lambda: world.counted("usersync_claims_held_back", resource=SPEC.name) is not None)
        before = (store.calls, world.directory.calls.total(), world.readings, len(world.opened))
        assert 0 not in before
        unsigned = sender.event("user.created", user(1))
        for path in (
            "/",
            "/api",
            "/api/user",
            f"{SHORT_PATH}/app/unknown",
            f"{SHORT_PATH}/{'x' * 2000}/y",
            f"{PATH}/z",
        ):
            assert (await sender.send("user.created", user(1), path=path)).status == 404
        for headers in ({}, {"svix-id": "x"}, sign(OTHER_SECRET, unsigned), sign(SECRET, b"another body")):
            assert (await sender.post(unsigned, headers)).status == 401
        assert (await sender.send("user.created", user(1), instance_id="ins_other")).status == 403
        assert (await sender.send("made.up", user(1))).status == 200
        assert (store.calls, world.directory.calls.total(), world.readings, len(world.opened)) == before


async def test_the_short_path_serves_a_single_resource(sender: Sender) -> None:
    assert (await sender.send("user.created", user(1), path=SHORT_PATH)).status == 200


async def test_the_short_path_of_two_resources_is_404_with_a_sentence(world: FakeWorld) -> None:
    async with fake_service(world, SPEC, Spec("app/other")) as sender:
        answer = await sender.send("user.created", user(1), path=SHORT_PATH)
    assert (answer.status, answer.content["error"]) == (404, "unknown_resource")
    assert "exactly one resource" in answer.content["message"]


async def test_an_unknown_resource_is_404_and_nobody_is_asked(world: FakeWorld, sender: Sender) -> None:
    await sender.send("session.created", user(1))
    asked, readings = dict(world.directory.calls), world.readings
    for path in (f"{SHORT_PATH}/app/unknown", f"{SHORT_PATH}/a%2Fb/c", f"{SHORT_PATH}/app/%FF", f"{SHORT_PATH}/app/é"):
        answer = await sender.send("user.created", user(1), path=path)
        assert answer.status == 404
    assert (dict(world.directory.calls), world.readings) == (asked, readings)
    assert not world.store.users()


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/webhooks", f"{PATH}/more"])
async def test_other_paths_are_404(sender: Sender, path: str) -> None:
    assert (await sender.send("user.created", user(1), path=path)).status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_other_methods_are_405(sender: Sender, method: str) -> None:
    async with sender.session.request(method, PATH) as response:
        assert response.status == 405


async def test_a_bad_signature_is_401_and_changes_nothing(world: FakeWorld, sender: Sender) -> None:
    body = sender.event("user.created", user(1))
    answer = await sender.post(body, sign(OTHER_SECRET, body))
    assert (answer.status, answer.content["error"]) == (401, "signature")
    assert world.counted("usersync_webhook_refusals_total", kind="signature") == 1
    assert not world.store.users()


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"{}", b'{"type": 1}', b"\xff\xfe", b'"user.created"'])
async def test_a_signed_body_that_is_no_event_is_400(sender: Sender, body: bytes) -> None:
    answer = await sender.post(body)
    assert (answer.status, answer.content["error"]) == (400, "malformed_body")


async def test_a_body_that_is_nested_without_end_is_400(sender: Sender) -> None:
    answer = await sender.post(b'{"type": "user.created", "instance_id": "i", "data": ' + b"[" * 900_000)
    assert answer.status == 400


async def test_a_body_declared_too_large_is_413(sender: Sender) -> None:
    assert (await sender.post(b" " * (BODY_BYTES_MAX + 1))).status == 413


async def test_a_body_declared_too_large_is_413_before_any_of_it_has_come(sender: Sender) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_BYTES_MAX + 1}\r\n\r\n".encode()
    async with asyncio.timeout(Bounds().body_seconds / 2):
        assert b"413" in await raw(sender, head, end=False)


async def test_a_body_that_grows_too_large_is_413(sender: Sender) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * (BODY_BYTES_MAX // 32)

    async with sender.session.post(PATH, data=pieces(), headers=sign(SECRET, b"{}")) as response:
        assert response.status == 413


async def test_a_body_just_within_the_bound_is_read(sender: Sender) -> None:
    body = sender.event("session.created", user(1))
    answer = await sender.post(body + b" " * (BODY_BYTES_MAX - len(body)))
    assert answer.status == 200


async def test_a_compressed_body_is_415_and_never_unpacked(sender: Sender) -> None:
    body = gzip.compress(b" " * 10_000_000)
    answer = await sender.post(body, sign(SECRET, body) | {"Content-Encoding": "gzip"})
    assert answer.status == 415


async def test_a_slow_body_is_408_and_its_connection_closed(world: FakeWorld) -> None:
    async with fake_service(world, bounds=Bounds(body_seconds=0.2)) as sender:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()
        assert b"408" in await raw(sender, head, b"{", end=False)


@pytest.mark.parametrize(
    "pieces",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n" % PATH.encode(),
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}" % PATH.encode(),
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" % PATH.encode(),
        b"POST %s HTTP/1.1\r\nHost: x\r\nsvix-id: a\r\nX: %s\r\n\r\n" % (PATH.encode(), b"y" * 70_000),
        b"POST %s HTTP/1.1\r\nHost: x\r\nsvix-id: \x00\r\n\r\n" % PATH.encode(),
        b"POST %s HTTP/1.1\r\nHost: x\r\nsvix-id: \xff\xfe\r\nsvix-timestamp: 1\r\nsvix-signature: \xe9\r\n\r\n"
        % PATH.encode(),
        b"POST %s HTTP/1.1\r\nHost: x\r\nExpect: everything\r\nContent-Length: 2\r\n\r\n{}" % PATH.encode(),
    ],
    ids=lambda piece: repr(piece[:60]),
)
async def test_what_is_hardly_http_is_refused_and_the_service_goes_on(sender: Sender, pieces: bytes) -> None:
    line = await raw(sender, pieces)
    assert line == b"" or line.split()[1].startswith(b"4"), line
    assert (await sender.send("session.created", user(1))).status == 200


@pytest.mark.parametrize("headers", [[b"X: " + b"y" * 9000], [b"X-%d: y" % number for number in range(200)]])
async def test_headers_that_are_too_long_or_too_many_are_refused_though_all_else_is_right(
    sender: Sender, headers: list[bytes]
) -> None:
    body = sender.event("session.created", user(1))
    genuine = [f"{name}: {value}".encode() for name, value in sign(SECRET, body).items()]

    def request(*added: bytes) -> bytes:
        lines = [b"POST %s HTTP/1.1" % PATH.encode(), b"Host: x", b"Content-Length: %d" % len(body), *genuine, *added]
        return b"\r\n".join([*lines, b"", body])

    assert (await raw(sender, request(), end=False)).split()[1] == b"200"
    assert (await raw(sender, request(*headers), end=False)).split()[1] == b"400"


async def test_a_client_that_is_slow_with_its_headers_is_left(world: FakeWorld) -> None:
    async with fake_service(world, bounds=Bounds(head_seconds=0.2)) as sender:
        for piece in (b"", f"POST {PATH} HTTP/1.1\r\nHost: x\r\n".encode()):
            assert await raw(sender, piece, end=False) == b""
        assert (await sender.send("session.created", user(1))).status == 200


async def test_a_client_that_goes_away_in_the_middle_does_no_harm(sender: Sender) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()
    await raw(sender, head, b"{")
    assert (await sender.send("session.created", user(1))).status == 200


@pytest.mark.parametrize(
    ("error", "reason", "retry_after"),
    [
        (DatabaseUnavailable("db.internal:5432 does not answer"), "DatabaseUnavailable", "5"),
        (SchemaMissing("run usersync migrate"), "SchemaMissing", "5"),
        (ClerkUnavailable("429", retry_after=timedelta(seconds=42)), "ClerkUnavailable", "42"),
    ],
)
async def test_an_outage_is_503_with_its_reason_and_never_looks_like_a_bad_signature(
    world: FakeWorld, error: UserSyncError, reason: str, retry_after: str
) -> None:
    world.error = error
    async with fake_service(world) as sender:
        answer = await sender.send("user.created", user(1))
    assert (answer.status, answer.content, answer.headers["Retry-After"]) == (503, {"error": reason}, retry_after)
    assert world.counted("usersync_webhook_failures_total", reason=reason) == 1


async def test_a_missing_secret_is_503_and_not_401(world: FakeWorld) -> None:
    world.secret_error = SecretNotFound("Secret app/clerk does not exist")
    async with fake_service(world) as sender:
        answer = await sender.send("user.created", user(1))
    assert (answer.status, answer.content) == (503, {"error": "SecretNotFound"})


async def test_what_failed_once_has_its_effect_when_it_is_sent_again(world: FakeWorld) -> None:
    world.error = DatabaseUnavailable("no connection")
    async with fake_service(world) as sender:
        assert (await sender.send("user.created", user(1), message_id="msg_1")).status == 503
        world.error = None
        answer = await sent_until_received(sender, user(1), "msg_1")
    assert answer.content == {"result": "created"}


async def test_a_resource_that_is_suspended_records_and_one_that_is_a_dry_run_writes_nothing(world: FakeWorld) -> None:
    dry_run, suspended = replace(SPEC, name="app/dry", dry_run=True), replace(SPEC, suspend=True)
    async with fake_service(world, suspended, dry_run) as sender:
        for event_type in ("user.created", "user.deleted"):
            answer = await sender.send(event_type, user(1), path=f"{SHORT_PATH}/app/dry")
            assert answer.content == {"result": "dry_run"}
        assert not world.store.claims
        assert not world.store.delivered
        assert (await sender.send("user.created", user(1))).content == {"result": "recorded"}
    assert len(world.store.claims) == 1
    assert not world.store.users()


class GatedStore(FakeStore):
    """Holds every event until `gate` is opened."""

    gate: asyncio.Event
    waiting: int = 0

    async def create_profile(self, delivery: Delivery, user_id: UserId) -> Absorbed:
        self.waiting += 1
        await self.gate.wait()
        return await super().create_profile(delivery, user_id)


@asynccontextmanager
async def gated(bounds: Bounds) -> AsyncIterator[tuple[Sender, GatedStore]]:
    world = FakeWorld()
    world.store = store = GatedStore(world.clock)
    store.gate = asyncio.Event()
    async with fake_service(world, bounds=bounds) as sender:
        yield sender, store


async def test_more_requests_at_once_than_the_bound_are_503_until_one_ends() -> None:
    async with gated(Bounds(at_once=3)) as (sender, store):
        held = [asyncio.create_task(sender.send("user.created", user(n))) for n in range(3)]
        await until(lambda: store.waiting == 3)
        answer = await sender.send("user.created", user(9))
        assert (answer.status, answer.content["error"], answer.headers["Retry-After"]) == (503, "busy", "5")
        store.gate.set()
        assert [answer.status for answer in await asyncio.gather(*held)] == [200, 200, 200]
        assert (await sender.send("user.created", user(9))).status == 200


async def test_an_effect_that_takes_longer_than_the_sender_waits_is_503() -> None:
    async with gated(Bounds(answer_seconds=0.2)) as (sender, _):
        assert (await sender.send("user.created", user(1))).status == 503


async def test_requests_under_way_are_answered_when_the_service_ends() -> None:
    world = FakeWorld()
    world.store = store = GatedStore(world.clock)
    store.gate = asyncio.Event()
    resources = Resources(world.workshop())
    resources.apply(world.declare())
    async with aiohttp.ClientSession() as session:
        async with serving(resources, world.metrics) as url:
            sender = Sender(session, instance_id=world.directory.of.id)
            request = asyncio.create_task(sender.send("user.created", user(1), path=f"{url}{PATH}"))
            await until(lambda: store.waiting)
            asyncio.get_running_loop().call_later(0.2, store.gate.set)
        assert (await request).status == 200
    assert len(world.closed) == 1


class FaultyStore(FakeStore):
    async def create_profile(self, delivery: Delivery, user_id: UserId) -> Absorbed:
        del delivery, user_id
        raise ZeroDivisionError


async def test_a_fault_of_ours_is_500_and_the_service_goes_on(world: FakeWorld) -> None:
    world.store = FaultyStore(world.clock)
    async with fake_service(world) as sender:
        assert (await sender.send("user.created", user(1))).status == 500
        assert (await sender.send("session.created", user(1))).status == 200


async def test_no_log_line_above_debug_names_a_user_or_quotes_a_body(world: FakeWorld) -> None:
    world.store.add_users(user(1))
    world.directory.sign_up(user(1))
    with capture_logs() as logs:
        async with fake_service(world) as sender:
            body = sender.event("user.created", user(2))
            await sender.send("user.created", user(1))
            await sender.send("user.deleted", user(1))
            await sender.send("user.created", user(1), instance_id="ins_other")
            await sender.post(body, sign(OTHER_SECRET, body))
            await sender.post(b'{"type": "user.created", "mail": "a@b.example"}')
            await sender.send("user.deleted", user(3))
            await until(lambda: user(3) in world.store.tombstones)
    said = json.dumps([each for each in logs if each["log_level"] != "debug"])
    for event in ("creating", "deleting", "completed"):
        assert f'"event": "{event}"' in said
    assert "refused" in said
    for secret in (user(1), user(2), user(3), "a@b.example", SECRET, "sk_test", "postgres://"):
        assert secret not in said


async def test_a_rotated_secret_is_accepted_with_its_first_message(world: FakeWorld) -> None:
    async with fake_service(world, rhythm=Rhythm(reread=timedelta(0))) as sender:
        assert (await sender.send("user.created", user(1))).status == 200
        world.credentials = replace(world.credentials, webhook_secrets=(OTHER_SECRET,))  # type: ignore[type-var]  # set
        sender.secret = OTHER_SECRET
        assert (await sender.send("user.created", user(2))).status == 200
        sender.secret = SECRET
        assert (await sender.send("user.created", user(3))).status == 401


async def test_both_secrets_are_accepted_while_one_rotates(world: FakeWorld) -> None:
    world.credentials = replace(world.credentials, webhook_secrets=(OTHER_SECRET, SECRET))  # type: ignore[type-var]  # set
    async with fake_service(world) as sender:
        for secret in (SECRET, OTHER_SECRET):
            sender.secret = secret
            assert (await sender.send("session.created", user(1))).status == 200


async def test_keep_alive_connections_go_on_after_a_refusal(sender: Sender) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(sender.session._base_url, connector=connector) as session:
        own = Sender(session, instance_id=sender.instance_id)
        assert (await own.post(b"{}", {})).status == 401
        assert (await own.send("session.created", user(1))).status == 200
