"""Clerk's webhooks over real HTTP, into a real database: what each event does to the rows of its user."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import aiohttp
import pytest

from controller.cli.demo.local_postgres import LocalPostgres
from controller.emulator import (
    ClerkEmulator,
    DeliveryFault,
    DeliveryFaultName,
    EmulatorSettings,
    Endpoint,
    Fault,
    FaultName,
)
from controller.emulator.events import deleted_user
from controller.postgres import migrate
from controller.web.worker import Pace
from tests.support.databases import (
    create_tables,
    execute,
    fetch_value,
    seed,
    until,
    user_ids_in,
    users_with_rows,
)
from tests.support.serving import OWED, count, eventually, real_service, rows_in_all, send_to
from tests.support.webhooks import SPEC, Sender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.serving import Replica

NOBODY = (0, 0, 0, 0)
QUICK = Pace(poll=timedelta(seconds=0.2))


@pytest.fixture
async def replica(clerk: ClerkEmulator, url: str) -> AsyncIterator[Replica]:
    async with real_service(clerk, url) as replica:
        yield replica


async def results(clerk: ClerkEmulator) -> list[int | None]:
    """Wait for the sender; the status of every attempt."""
    await clerk.webhooks.settle()
    return [delivery.status for delivery in clerk.webhooks.deliveries]


async def gone(url: str, user_id: str) -> bool:
    return await rows_in_all(url, user_id) == NOBODY


@pytest.mark.usefixtures("replica")
async def test_a_sign_up_creates_one_profile_row(clerk: ClerkEmulator, url: str) -> None:
    user_id = clerk.sign_up()
    assert await results(clerk) == [200]
    assert await rows_in_all(url, user_id) == (1, 0, 0, 0)


async def test_the_same_message_five_times_at_once_has_one_effect(
    clerk: ClerkEmulator, url: str, replica: Replica
) -> None:
    clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.DUPLICATE, copies=5))
    user_id = clerk.sign_up()
    assert await results(clerk) == [200] * 5
    assert await rows_in_all(url, user_id) == (1, 0, 0, 0)
    counted = {
        result: replica.counted("usersync_webhook_events_total", type="user.created", result=result)
        for result in ("created", "repeated")
    }
    assert counted == {"created": 1, "repeated": 4}


@pytest.mark.usefixtures("replica")
async def test_five_messages_about_one_user_at_once_create_one_row(clerk: ClerkEmulator, url: str) -> None:
    user_id = clerk.sign_up(webhook=False)
    for _ in range(5):
        clerk.webhooks.send("user.created", clerk.users.describe(user_id))
    assert await results(clerk) == [200] * 5
    assert await rows_in_all(url, user_id) == (1, 0, 0, 0)


@pytest.mark.usefixtures("replica")
async def test_a_deletion_removes_all_rows_of_that_user_and_of_nobody_else(clerk: ClerkEmulator, url: str) -> None:
    gone_user, *others = list(clerk.users)
    clerk.delete(gone_user)
    assert await results(clerk) == [200]
    await eventually(lambda: gone(url, gone_user))
    assert await users_with_rows(url) == set(others)
    assert (await count(url, "tombstones"), await count(url, "archive"), await count(url, OWED)) == (1, 7, 0)


@pytest.mark.usefixtures("replica")
async def test_a_deleted_user_stays_deleted_when_his_sign_up_arrives_late(clerk: ClerkEmulator, url: str) -> None:
    clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.DELAY, seconds=1.5, event_type="user.created"))
    user_id = clerk.sign_up()
    clerk.delete(user_id)
    assert await results(clerk) == [200, 200]
    await eventually(lambda: gone(url, user_id))
    clerk.webhooks.replay(clerk.webhooks.messages[0].id)
    await clerk.webhooks.settle()
    assert await gone(url, user_id)
    assert await count(url, "tombstones") == 1


async def test_a_deletion_that_clerk_does_not_confirm_removes_nothing(
    clerk: ClerkEmulator, url: str, replica: Replica
) -> None:
    living = next(iter(clerk.users))
    clerk.webhooks.send("user.deleted", deleted_user(living))
    assert await results(clerk) == [200]

    async def looked_up() -> bool:
        return bool(replica.counted("usersync_claims_total", result="postponed"))

    await eventually(looked_up)
    assert await rows_in_all(url, living) == (1, 2, 2, 2)
    assert (await count(url, "tombstones"), await count(url, "claims")) == (0, 1)
    assert clerk.requests.by_endpoint[Endpoint.LOOKUP] == 1


@pytest.mark.parametrize(
    "fault",
    [FaultName.SERVER_ERROR, FaultName.FORBIDDEN, FaultName.OTHER_404, FaultName.HTML_404, FaultName.HTML_PAGE],
)
async def test_a_deletion_whose_proof_fails_waits_and_goes_on_after(
    clerk: ClerkEmulator, url: str, replica: Replica, fault: FaultName
) -> None:
    gone_user = next(iter(clerk.users))
    number = clerk.switch_on(Fault(fault, endpoint=Endpoint.LOOKUP))
    clerk.delete(gone_user)
    assert await results(clerk) == [200]

    async def postponed() -> bool:
        return bool(replica.counted("usersync_claims_total", result="postponed"))

    await eventually(postponed, seconds=60)
    assert await rows_in_all(url, gone_user) == (1, 2, 2, 2)
    assert (await count(url, "tombstones"), await count(url, "claims")) == (0, 1)
    clerk.faults.switch_off(number)
    await eventually(lambda: gone(url, gone_user))


@pytest.mark.parametrize("fault", [FaultName.EMPTY_OBJECT, FaultName.OTHER_USER, FaultName.LIST_INSTEAD])
async def test_an_odd_answer_about_a_user_is_no_proof(
    clerk: ClerkEmulator, url: str, replica: Replica, fault: FaultName
) -> None:
    living = next(iter(clerk.users))
    clerk.switch_on(Fault(fault, endpoint=Endpoint.LOOKUP))
    clerk.webhooks.send("user.deleted", deleted_user(living))
    assert await results(clerk) == [200]

    async def postponed() -> bool:
        return bool(replica.counted("usersync_claims_total", result="postponed"))

    await eventually(postponed)
    assert await rows_in_all(url, living) == (1, 2, 2, 2)
    assert await fetch_value(url, "SELECT attempts FROM usersync.claims") == 1


async def test_nobody_ever_sees_half_of_a_user(clerk: ClerkEmulator, url: str, replica: Replica) -> None:
    seen: set[tuple[int, ...]] = set()
    users = list(clerk.users)
    for user_id in users:
        await seed(url, "tasks", [user_id], rows=500)

    async def look() -> None:
        while True:
            seen.update([await rows_in_all(url, user_id) for user_id in users])

    looking = asyncio.create_task(look())
    clerk.delete_many(users)

    async def all_removed() -> bool:
        return replica.counted("usersync_claims_total", result="removed") == len(users)

    await eventually(all_removed)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert seen <= {(1, 502, 2, 2), NOBODY}


async def test_two_replicas_share_the_work_and_no_user_is_settled_twice(clerk: ClerkEmulator, url: str) -> None:
    async with real_service(clerk, url, pace=QUICK) as one, real_service(clerk, url, pace=QUICK) as other:
        users = list(clerk.users)
        for place, user_id in enumerate(users):
            send_to(clerk, (one, other)[place % 2].url)
            clerk.delete(user_id)
            await clerk.webhooks.settle()

        async def all_removed() -> bool:
            return not await users_with_rows(url)

        await eventually(all_removed)
        removed = [each.counted("usersync_claims_total", result="removed") for each in (one, other)]
        assert sum(removed) == len(users)
    assert await count(url, "archive") == 7 * len(users)


async def test_a_claim_of_one_replica_is_finished_by_another(clerk: ClerkEmulator, url: str) -> None:
    number = clerk.switch_on(Fault(FaultName.OTHER_404, endpoint=Endpoint.LOOKUP))
    gone_user = next(iter(clerk.users))
    async with real_service(clerk, url, pace=QUICK) as one:
        clerk.delete(gone_user)

        async def postponed() -> bool:
            return bool(one.counted("usersync_claims_total", result="postponed"))

        await eventually(postponed)
    clerk.faults.switch_off(number)
    async with real_service(clerk, url, pace=QUICK):
        await eventually(lambda: gone(url, gone_user))


@pytest.mark.usefixtures("replica")
async def test_other_types_are_acknowledged_and_change_nothing(clerk: ClerkEmulator, url: str) -> None:
    before = await user_ids_in(url)
    clerk.edit(next(iter(clerk.users)), first_name="Ada")
    clerk.webhooks.send("session.created", {"object": "session", "id": "sess_1"})
    assert await results(clerk) == [200, 200]
    assert await user_ids_in(url) == before
    assert await count(url, "deliveries") == 0


async def test_a_wrong_key_serves_nothing_and_pins_nothing(url: str) -> None:
    async with (
        ClerkEmulator(EmulatorSettings(seed=7, rate_limit=None), users=3) as other,
        real_service(other, url) as replica,
        aiohttp.ClientSession(replica.url) as session,
    ):
        sender = Sender(session, other.webhook_secret, other.instance.id)
        answer = await sender.send("user.created", "user_2abc")
    assert (answer.status, answer.content) == (503, {"error": "UnknownPopulation"})
    assert await fetch_value(url, "SELECT count(*) FROM usersync.target WHERE instance_id IS NOT NULL") == 0


async def test_an_event_of_another_instance_is_refused(clerk: ClerkEmulator, url: str, replica: Replica) -> None:
    async with aiohttp.ClientSession(replica.url) as session:
        sender = Sender(session, clerk.webhook_secret, "ins_another")
        assert (await sender.send("user.deleted", next(iter(clerk.users)))).status == 403
    assert await count(url, "claims") == 0


async def test_what_was_recorded_while_suspended_is_brought_in_step_on_resume(clerk: ClerkEmulator, url: str) -> None:
    gone_user, *_ = list(clerk.users)
    async with real_service(clerk, url, replace(SPEC, suspend=True)) as replica:
        clerk.delete(gone_user)
        new_user = clerk.sign_up()
        assert await results(clerk) == [200, 200]
        assert await count(url, "claims") == 2
        assert await rows_in_all(url, gone_user) == (1, 2, 2, 2)
        assert await gone(url, new_user)
        replica.apply(SPEC)

        async def in_step() -> bool:
            return await gone(url, gone_user) and await rows_in_all(url, new_user) == (1, 0, 0, 0)

        await eventually(in_step)
    assert await count(url, OWED) == 0


async def test_a_dry_run_acknowledges_and_writes_nothing(clerk: ClerkEmulator, url: str) -> None:
    users = set(clerk.users)
    async with real_service(clerk, url, replace(SPEC, dry_run=True)):
        clerk.delete(next(iter(clerk.users)))
        clerk.sign_up()
        assert await results(clerk) == [200, 200]
    assert await users_with_rows(url) == users
    assert (await count(url, "claims"), await count(url, "deliveries"), await count(url, "tombstones")) == (0, 0, 0)


async def test_a_schema_that_is_missing_is_503_and_never_made_from_here(
    clerk: ClerkEmulator, database_url: str
) -> None:
    async with real_service(clerk, database_url) as replica:
        user_id = clerk.sign_up()

        async def refused() -> bool:
            return bool(replica.counted("usersync_webhook_failures_total", reason="SchemaMissing"))

        await eventually(refused)
        assert not await fetch_value(database_url, "SELECT to_regnamespace('usersync')")
        await migrate(database_url)
        await clerk.webhooks.settle()
        assert [each.status for each in clerk.webhooks.deliveries][-1] == 200
    assert await rows_in_all(database_url, user_id) == (1, 0, 0, 0)


async def test_without_any_of_the_tables_a_deletion_waits_and_a_sign_up_is_503_until_they_are_there(
    clerk: ClerkEmulator, url: str, replica: Replica
) -> None:
    user_id = next(iter(clerk.users))
    async with aiohttp.ClientSession(replica.url) as session:
        sender = Sender(session, clerk.webhook_secret, clerk.instance.id)
        assert (await sender.send("user.created", clerk.sign_up(webhook=False))).status == 200
        await execute(url, "ALTER SCHEMA public RENAME TO elsewhere", "CREATE SCHEMA public")
        answer = await sender.send("user.created", clerk.sign_up(webhook=False))
        assert (answer.status, answer.content) == (503, {"error": "TablesMissing"})
        clerk.delete(user_id)
        assert (await results(clerk))[-1] == 200
        await until(url, "SELECT attempts > 0 FROM usersync.claims")
        assert await count(url, "tombstones") == 0
        await execute(
            url,
            "DROP SCHEMA public",
            "ALTER SCHEMA elsewhere RENAME TO public",
            "UPDATE usersync.claims SET due_at = clock_timestamp()",
        )
    await eventually(lambda: gone(url, user_id))


REFUSES_AT_COMMIT = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.mark.parametrize("event_type", ["user.created", "user.deleted"])
async def test_an_effect_that_is_not_committed_is_not_acknowledged(
    clerk: ClerkEmulator, url: str, replica: Replica, event_type: str
) -> None:
    user_id = clerk.sign_up(webhook=False)
    async with aiohttp.ClientSession(replica.url) as session:
        sender = Sender(session, clerk.webhook_secret, clerk.instance.id)
        await execute(url, REFUSES_AT_COMMIT.format(table="usersync.deliveries"))
        answer = await sender.send(event_type, user_id, message_id="msg_1")
        assert answer.status == 503
        assert "Retry-After" in answer.headers
        assert (await count(url, "deliveries"), await count(url, "claims")) == (0, 0)
        await execute(url, "DROP TRIGGER refuse ON usersync.deliveries")
        answer = await sender.send(event_type, user_id, message_id="msg_1")
        assert answer.content["result"] in {"created", "claimed"}


async def test_a_database_that_is_down_is_503_and_the_senders_next_attempt_succeeds(clerk: ClerkEmulator) -> None:
    with LocalPostgres() as server:
        url = server.create_database("app")
        await create_tables(url)
        await migrate(url)
        async with real_service(clerk, url) as replica:
            first = clerk.sign_up()
            assert await results(clerk) == [200]
            server.kill()
            second = clerk.sign_up()

            async def failed() -> bool:
                return bool(replica.counted("usersync_webhook_failures_total", reason="DatabaseUnavailable"))

            await eventually(failed)
            server.start()
            await clerk.webhooks.settle()
            attempts = [each.status for each in clerk.webhooks.deliveries]
            assert attempts[1] == 503
            assert attempts[-1] == 200
        assert await rows_in_all(url, first) == await rows_in_all(url, second) == (1, 0, 0, 0)
