"""What a resource may say about events, and events in every order, over real HTTP into a real database."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations, product
from typing import TYPE_CHECKING

import aiohttp
import pytest

from controller.core.targets import Deletion, DeletionPolicy, Limits, OnUserCreated, OnUserDeleted, Webhook
from controller.emulator import ClerkEmulator, Endpoint
from controller.emulator.events import EXAMPLE_USER
from controller.web.worker import Pace
from tests.support.databases import execute, fetch_value, put_clock, seed_users, user_ids_in, users_with_rows
from tests.support.serving import OWED, count, eventually, real_service, rows_in_all
from tests.support.webhooks import SPEC, Sender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controller.core.targets import Spec
    from tests.support.serving import Replica

NOBODY = (0, 0, 0, 0)
WHOLE = (1, 2, 2, 2)
QUICK = Pace(poll=timedelta(seconds=0.2))
HOLDBACK = timedelta(hours=24)
HELD = replace(SPEC, webhook=Webhook(on_user_deleted=OnUserDeleted.HOLDBACK, holdback=HOLDBACK))
UNLIMITED = replace(SPEC, deletion=Deletion(limits=Limits(1000, 100)))
OWED_LATER = "claims SET due_at = usersync.clock() WHERE kind <> 'second_sweep' AND attempts + present_answers > 0"
LATE = timedelta(days=12)


@asynccontextmanager
async def serving(clerk: ClerkEmulator, url: str, spec: Spec = SPEC) -> AsyncIterator[tuple[Sender, Replica]]:
    async with (
        real_service(clerk, url, spec, pace=QUICK) as replica,
        aiohttp.ClientSession(replica.url) as session,
    ):
        yield Sender(session, clerk.webhook_secret, clerk.instance.id), replica


async def settled(url: str) -> None:
    """Wait until no effect is owed any more; nobody needs to sit through the waits between two look-ups."""

    async def nothing() -> bool:
        await execute(url, f"UPDATE usersync.{OWED_LATER}")
        return await count(url, OWED) == 0

    await eventually(nothing)


async def test_send_example_of_the_dashboard_leaves_no_profile_and_nothing_else(clerk: ClerkEmulator, url: str) -> None:
    before = await user_ids_in(url)
    async with serving(clerk, url) as (_, replica):
        clerk.webhooks.send_example("user.created")
        await clerk.webhooks.settle()
        assert [each.status for each in clerk.webhooks.deliveries] == [200]

        async def asked() -> bool:
            return bool(replica.counted("usersync_claims_total", result="postponed"))

        await eventually(asked)
        await settled(url)
        assert replica.counted("usersync_claims_total", result="unknown") == 1
    assert await user_ids_in(url) == before
    assert await rows_in_all(url, EXAMPLE_USER) == NOBODY
    assert (await count(url, "tombstones"), await count(url, "receipts")) == (0, 0)


async def test_send_example_of_an_odd_instance_is_refused(clerk: ClerkEmulator, url: str) -> None:
    async with (
        serving(clerk, url) as (_, replica),
        aiohttp.ClientSession(clerk.url) as session,
        session.post("/emulator/webhooks/examples", json={"instance_id": "ins_2example"}) as response,
    ):
        message_id = (await response.json())["message_id"]

        async def tried() -> bool:
            return any(each.message_id == message_id for each in clerk.webhooks.deliveries)

        await eventually(tried)
        assert replica.counted("usersync_webhook_refusals_total", kind="wrong_instance")
        assert {each.status for each in clerk.webhooks.deliveries if each.message_id == message_id} == {403}
    assert await count(url, "deliveries") == 0


async def test_a_sign_up_that_is_days_late_creates_the_profile_once_clerk_has_said_that_the_user_lives(
    clerk: ClerkEmulator, url: str
) -> None:
    living = clerk.sign_up(webhook=False)
    async with serving(clerk, url) as (sender, _):
        answer = await sender.send("user.created", living, at=datetime.now(UTC) - LATE)
        assert answer.content == {"result": "doubted"}
        await settled(url)
        assert await rows_in_all(url, living) == (1, 0, 0, 0)
    assert clerk.requests.by_endpoint[Endpoint.LOOKUP] == 1


async def test_a_sign_up_of_now_costs_no_question_to_clerk(clerk: ClerkEmulator, url: str) -> None:
    async with serving(clerk, url) as (sender, _):
        assert (await sender.send("user.created", clerk.sign_up(webhook=False))).content == {"result": "created"}
    assert clerk.requests.by_endpoint[Endpoint.LOOKUP] == 0


CREATED, DELETED = "user.created", "user.deleted"
MESSAGES = {"c1": CREATED, "c2": CREATED, "d1": DELETED, "d2": DELETED}
ORDERS = sorted(set(permutations(["c1", "c1", "d1", "d2"])))
"""A sign-up, the same again, and two messages about the deletion, in every order."""


@pytest.mark.parametrize("ago", [timedelta(), LATE], ids=["now", "days late"])
async def test_of_a_user_who_is_gone_nothing_is_left_in_whatever_order_his_events_come(
    clerk: ClerkEmulator, url: str, ago: timedelta
) -> None:
    """Each order with two users: one whose removal is waited for at the deletion, one who gets all at once."""
    at = datetime.now(UTC) - ago
    await seed_users(url, clerk.add_users(60))  # of fewer than fifty no more than five may go, whatever the limits
    async with serving(clerk, url, UNLIMITED) as (sender, _):
        for place, (order, waits) in enumerate(product(ORDERS, (False, True))):
            gone = clerk.sign_up(webhook=False)
            clerk.delete(gone, webhook=False)
            for name in order:
                message_id = f"msg_{place}_{name}"
                assert (await sender.send(MESSAGES[name], gone, message_id=message_id, at=at)).status == 200
                if name == "d1" and waits:
                    await settled(url)
        await settled(url)
        assert await users_with_rows(url) == set(clerk.users)
    # those who never had a row are buried as well
    assert await count(url, "tombstones") == 2 * len(ORDERS)


async def test_of_a_user_who_lives_nothing_is_lost_in_whatever_order_events_come(
    clerk: ClerkEmulator, url: str
) -> None:
    async with serving(clerk, url) as (sender, _):
        for place, order in enumerate(permutations(["c1", "c2", "d1"])):
            living = list(clerk.users)[place % 5]
            for name in order:
                at = datetime.now(UTC) - (LATE if name == "c2" else timedelta())
                answer = await sender.send(MESSAGES[name], living, message_id=f"msg_{place}_{name}", at=at)
                assert answer.status == 200
        assert {await rows_in_all(url, user_id) for user_id in clerk.users} == {WHOLE}
    assert await count(url, "tombstones") == 0


async def test_a_deletion_that_is_held_back_takes_effect_when_the_holdback_is_over(
    clerk: ClerkEmulator, url: str
) -> None:
    gone = next(iter(clerk.users))
    async with serving(clerk, url, HELD) as (sender, _):
        clerk.delete(gone, webhook=False)
        assert (await sender.send(DELETED, gone)).content == {"result": "held"}
        await put_clock(url, HOLDBACK - timedelta(minutes=1))

        assert not await fetch_value(url, "SELECT count(*) FROM usersync.claims WHERE due_at <= usersync.clock()")
        assert await rows_in_all(url, gone) == WHOLE
        await put_clock(url, HOLDBACK)
        await settled(url)
        assert await rows_in_all(url, gone) == NOBODY
    assert await count(url, "tombstones") == 1


async def test_a_deletion_that_turns_out_to_be_none_is_dropped_without_alarm_at_the_end_of_the_holdback(
    clerk: ClerkEmulator, url: str
) -> None:
    living = next(iter(clerk.users))
    async with serving(clerk, url, HELD) as (sender, replica):
        await sender.send(DELETED, living)
        await put_clock(url, HOLDBACK)

        async def asked() -> bool:
            return bool(replica.counted("usersync_claims_total", result="postponed"))

        await eventually(asked)
        await settled(url)
        assert replica.counted("usersync_claims_total", result="lives") == 1
        assert replica.counted("usersync_claims_total", result="discarded") == 0
    assert await rows_in_all(url, living) == WHOLE
    assert (await count(url, "tombstones"), await count(url, "claims")) == (0, 0)


async def test_what_is_to_be_ignored_is_acknowledged_counted_and_leaves_no_trace(
    clerk: ClerkEmulator, url: str
) -> None:
    webhook = Webhook(OnUserCreated.IGNORE, OnUserDeleted.IGNORE)
    gone = next(iter(clerk.users))
    clerk.delete(gone, webhook=False)
    async with serving(clerk, url, replace(SPEC, webhook=webhook)) as (sender, replica):
        for event_type in (CREATED, DELETED):
            answer = await sender.send(event_type, gone)
            assert (answer.status, answer.content) == (200, {"result": "ignored"})
            assert replica.counted("usersync_webhook_events_total", type=event_type, result="ignored") == 1
    assert await rows_in_all(url, gone) == WHOLE
    assert [await count(url, table) for table in ("claims", "deliveries", "tombstones")] == [0, 0, 0]


async def test_where_rows_are_retained_a_deletion_leaves_them_and_writes_tombstone_and_receipt(
    clerk: ClerkEmulator, url: str
) -> None:
    gone = next(iter(clerk.users))
    clerk.delete(gone, webhook=False)
    async with serving(clerk, url, replace(SPEC, deletion=Deletion(DeletionPolicy.RETAIN))) as (sender, _):
        await sender.send(DELETED, gone)
        await settled(url)
        assert (await sender.send(CREATED, gone)).content == {"result": "tombstoned"}
    assert await rows_in_all(url, gone) == WHOLE
    assert [await count(url, table) for table in ("tombstones", "receipts", "archive")] == [1, 1, 0]
