"""When a resource is opened, opened anew and closed, and what a request is told meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from controller.core.claims import ClaimKind
from controller.core.events import Delivery
from controller.core.targets import ClerkSource, Spec
from controller.core.users import Environment, Instance
from controller.emulator.events import sign
from controller.errors import (
    ClerkUnavailable,
    DatabaseRefused,
    DatabaseUnavailable,
    InvalidSpec,
    KubernetesUnavailable,
    SecretNotFound,
    TransientError,
    UnknownPopulation,
    UserSyncError,
    WrongInstance,
)
from controller.settings import Credentials
from controller.web.endpoints import Endpoint
from controller.web.refusals import Refused
from controller.web.resources import Resources
from tests.support.fakes.clock import LoopClock, run_skipping
from tests.support.fakes.directory import user
from tests.support.webhooks import CREDENTIALS, OTHER_SECRET, SECRET, SPEC, FakeWorld, spin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

BODY = b"{}"
ROTATED = replace(CREDENTIALS, webhook_secrets=(OTHER_SECRET,))
OTHER_DATABASE = replace(CREDENTIALS, database_url="postgres://other")
NOT_THERE = SecretNotFound("Secret app/clerk does not exist")


def tell(story: Callable[[FakeWorld], Coroutine[Any, Any, None]]) -> None:
    async def with_world() -> None:
        await story(FakeWorld(LoopClock(asyncio.get_running_loop())))

    run_skipping(with_world())


@asynccontextmanager
async def serving(world: FakeWorld, spec: Spec = SPEC) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(world.declare(spec), world.workshop())
    endpoint.start()
    try:
        yield endpoint
    finally:
        await endpoint.close()


async def verify(endpoint: Endpoint, secret: str = SECRET) -> str:
    return await endpoint.verify(CIMultiDictProxy(CIMultiDict(sign(secret, BODY, message_id="msg_1"))), BODY)


async def why_closed(endpoint: Endpoint) -> str:
    with pytest.raises(UserSyncError) as caught:
        async with endpoint.borrow():
            pass
    return caught.value.reason


async def is_open(endpoint: Endpoint) -> bool:
    async with endpoint.borrow():
        return True


async def refuse(endpoint: Endpoint) -> None:
    """An event that the database refuses."""
    with suppress(DatabaseRefused):
        async with endpoint.borrow():
            message = "the password is another one now"
            raise DatabaseRefused(message)


def test_the_first_request_waits_until_the_resource_is_open() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint, endpoint.borrow() as opened:
            assert opened.instance_id == world.directory.of.id
        assert world.store.pinned == world.directory.of.id

    tell(story)


def test_what_is_past_its_time_goes_but_not_while_an_event_is_under_way() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            assert await is_open(endpoint)
            await asyncio.sleep(60)
            world.store.past_their_time = 1
            async with endpoint.borrow():
                await asyncio.sleep(3600)
                assert world.store.expired == 0
            await asyncio.sleep(3600)
            assert world.store.expired == 1

    tell(story)


def test_what_was_opened_is_closed_at_the_end() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            assert await is_open(endpoint)
        assert world.closed == world.opened == [CREDENTIALS]

    tell(story)


def test_nothing_is_closed_before_the_requests_under_way_have_ended() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            async with endpoint.borrow():
                closing = asyncio.create_task(endpoint.close())
                await asyncio.sleep(5)
                assert not world.closed
            await closing
            assert world.closed

    tell(story)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DatabaseUnavailable("no connection"), "DatabaseUnavailable"),
        (DatabaseRefused("wrong password"), "DatabaseRefused"),
        (ClerkUnavailable("500"), "ClerkUnavailable"),
    ],
)
def test_a_request_hears_why_nothing_can_be_opened(error: UserSyncError, reason: str) -> None:
    async def story(world: FakeWorld) -> None:
        world.error = error
        async with serving(world) as endpoint:
            assert await why_closed(endpoint) == reason
            assert await verify(endpoint) == "msg_1"

    tell(story)


def test_requests_bring_the_next_attempt_forward_but_not_below_a_second() -> None:
    async def story(world: FakeWorld) -> None:
        loop = asyncio.get_running_loop()
        world.error = DatabaseUnavailable("no connection")
        async with serving(world) as endpoint:
            await asyncio.sleep(100)
            world.error = None
            began = loop.time()
            with pytest.raises(DatabaseUnavailable):
                async with endpoint.borrow():
                    pass
            await asyncio.sleep(1.1)
            assert await is_open(endpoint)
            assert loop.time() - began < 2

    tell(story)


def test_a_fault_of_ours_while_opening_is_an_outage_and_not_silence() -> None:
    async def story(world: FakeWorld) -> None:
        world.directory.errors["instance"] = RuntimeError("fault")  # type: ignore[assignment]  # not of our tree
        async with serving(world) as endpoint:
            assert await why_closed(endpoint) == TransientError.reason
            del world.directory.errors["instance"]
            await asyncio.sleep(2)
            assert await is_open(endpoint)

    tell(story)


def test_the_instance_that_a_person_named_must_be_that_of_the_key() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world, replace(SPEC, clerk=ClerkSource(instance_id="ins_other"))) as endpoint:
            assert await why_closed(endpoint) == WrongInstance.reason
        assert world.store.pinned is None

    tell(story)


def test_a_key_of_another_instance_than_the_pinned_one_serves_nothing() -> None:
    async def story(world: FakeWorld) -> None:
        world.store.pinned = "ins_before"
        world.directory.of = Instance("ins_after", Environment.PRODUCTION)
        async with serving(world) as endpoint:
            assert await why_closed(endpoint) == WrongInstance.reason

    tell(story)


def test_first_contact_with_strangers_in_the_database_serves_nothing() -> None:
    async def story(world: FakeWorld) -> None:
        world.store.add_users(user(1), user(2))
        async with serving(world) as endpoint:
            assert await why_closed(endpoint) == UnknownPopulation.reason

    tell(story)


def test_claims_are_settled_once_it_is_open() -> None:
    async def story(world: FakeWorld) -> None:
        await world.store.record_claim(Delivery("msg_1", "user.deleted"), user(1), ClaimKind.DELETION)
        async with serving(world):
            await asyncio.sleep(1)
        assert world.store.tombstones == {user(1)}

    tell(story)


@pytest.mark.parametrize("spec", [replace(SPEC, suspend=True), replace(SPEC, dry_run=True)])
def test_claims_wait_while_the_resource_is_suspended_or_a_dry_run(spec: Spec) -> None:
    async def story(world: FakeWorld) -> None:
        await world.store.record_claim(Delivery("msg_1", "user.deleted"), user(1), ClaimKind.DELETION)
        async with serving(world, spec) as endpoint:
            assert await is_open(endpoint)
            await asyncio.sleep(100)
        assert len(world.store.claims) == 1
        assert not world.store.tombstones

    tell(story)


def test_a_rotated_secret_is_read_when_its_first_signature_comes() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            assert await is_open(endpoint)
            await asyncio.sleep(11)
            world.credentials = ROTATED
            assert await verify(endpoint, OTHER_SECRET) == "msg_1"
            with pytest.raises(Refused):
                await verify(endpoint, SECRET)
        assert world.opened == [CREDENTIALS]

    tell(story)


def test_strangers_cannot_make_us_read_the_secret_more_often_than_every_ten_seconds() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            assert await is_open(endpoint)
            for _ in range(300):
                await asyncio.sleep(0.1)
                with pytest.raises(Refused):
                    await verify(endpoint, OTHER_SECRET)
        assert world.readings <= 4

    tell(story)


def test_a_bad_signature_is_refused_soon_while_the_api_server_hangs() -> None:
    async def story(world: FakeWorld) -> None:
        loop = asyncio.get_running_loop()
        async with serving(world) as endpoint:
            assert await is_open(endpoint)
            await asyncio.sleep(11)
            world.reading_seconds = 30
            began = loop.time()
            with pytest.raises(Refused):
                await verify(endpoint, OTHER_SECRET)
            assert loop.time() - began < 3
            assert await verify(endpoint, SECRET) == "msg_1"

    tell(story)


def test_a_secret_that_was_taken_away_is_not_believed_for_more_than_a_minute() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            assert await verify(endpoint, SECRET)
            world.credentials = ROTATED
            await asyncio.sleep(61)
            with pytest.raises(Refused):
                await verify(endpoint, SECRET)

    tell(story)


def test_another_database_in_the_secret_is_opened_in_place_of_the_old_one() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            assert await is_open(endpoint)
            world.credentials = OTHER_DATABASE
            await asyncio.sleep(61)
            assert await is_open(endpoint)
            assert world.opened == [CREDENTIALS, OTHER_DATABASE]
            assert world.closed == [CREDENTIALS]

    tell(story)


def test_what_was_closed_for_another_is_never_given_out_again() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            assert await is_open(endpoint)
            world.credentials, world.error = OTHER_DATABASE, DatabaseUnavailable("no connection")
            await asyncio.sleep(61)
            assert world.closed == [CREDENTIALS]
            assert await why_closed(endpoint) == DatabaseUnavailable.reason

    tell(story)


def test_a_refusal_of_the_open_database_lets_the_secret_be_read_and_opened_anew() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            assert await is_open(endpoint)
            await asyncio.sleep(11)
            world.credentials = OTHER_DATABASE
            await refuse(endpoint)
            await asyncio.sleep(2)
            assert await is_open(endpoint)
        assert world.opened[-1] == OTHER_DATABASE

    tell(story)


def test_refusals_one_after_the_other_do_not_open_anew_each_time() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            for _ in range(100):
                await refuse(endpoint)
                await asyncio.sleep(0.1)
        assert len(world.opened) <= 2

    tell(story)


def test_a_missing_secret_is_said_and_served_once_it_is_there() -> None:
    async def story(world: FakeWorld) -> None:
        world.secret_error = NOT_THERE
        async with serving(world) as endpoint:
            with pytest.raises(SecretNotFound):
                await verify(endpoint)
            assert await why_closed(endpoint) == SecretNotFound.reason
            world.secret_error = None
            await asyncio.sleep(11)
            assert await verify(endpoint) == "msg_1"
            await asyncio.sleep(2)
            assert await is_open(endpoint)

    tell(story)


def test_a_secret_that_was_deleted_ends_the_service_of_its_resource() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            assert await is_open(endpoint)
            world.secret_error = NOT_THERE
            await asyncio.sleep(61)
            with pytest.raises(SecretNotFound):
                await verify(endpoint)
            assert world.closed == [CREDENTIALS]

    tell(story)


def test_an_outage_of_the_api_server_leaves_the_known_secrets_in_use() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world) as endpoint:
            assert await is_open(endpoint)
            world.secret_error = KubernetesUnavailable("no answer")
            await asyncio.sleep(200)
            assert await verify(endpoint) == "msg_1"
            assert await is_open(endpoint)
        assert world.opened == [CREDENTIALS]

    tell(story)


def test_a_malformed_secret_is_said() -> None:
    async def story(world: FakeWorld) -> None:
        world.credentials = Credentials("sk_test_x", "postgres://fake", ("whsec_short",))
        async with serving(world) as endpoint:
            with pytest.raises(InvalidSpec):
                await verify(endpoint)

    tell(story)


def test_the_same_declaration_again_changes_nothing() -> None:
    async def story(world: FakeWorld) -> None:
        resources = Resources(world.workshop())
        resources.apply(world.declare())
        before = resources.find(SPEC.name)
        resources.apply(world.declare())
        assert resources.find(SPEC.name) is before
        await resources.close()

    tell(story)


@pytest.mark.parametrize(("spec", "origin"), [(replace(SPEC, suspend=True), ""), (SPEC, "another Secret")])
def test_a_changed_declaration_is_opened_and_the_old_one_closed(spec: Spec, origin: str) -> None:
    async def story(world: FakeWorld) -> None:
        resources = Resources(world.workshop())
        resources.apply(world.declare())
        before = resources.find(SPEC.name)
        assert before is not None
        assert await is_open(before)
        resources.apply(world.declare(spec, origin))
        after = resources.find(SPEC.name)
        assert after is not None
        assert after is not before
        assert await is_open(after)
        await asyncio.sleep(1)
        assert len(world.opened) == 2
        assert len(world.closed) == 1
        await resources.close()
        assert len(world.closed) == 2

    tell(story)


def test_the_short_path_is_for_one_resource_alone() -> None:
    async def story(world: FakeWorld) -> None:
        resources = Resources(world.workshop())
        assert resources.only() is None
        resources.apply(world.declare())
        assert resources.only() is resources.find(SPEC.name)
        resources.apply(world.declare(Spec("app/other")))
        assert resources.only() is None
        resources.remove("app/other")
        resources.remove("app/other")
        assert resources.only() is resources.find(SPEC.name)
        resources.remove(SPEC.name)
        await spin()
        assert resources.find(SPEC.name) is None
        await resources.close()

    tell(story)


def test_secrets_are_read_at_most_once_a_minute_while_nothing_is_wrong() -> None:
    async def story(world: FakeWorld) -> None:
        async with serving(world):
            await asyncio.sleep(timedelta(minutes=10).total_seconds())
        assert world.readings <= 11

    tell(story)
