from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.outcomes import Changes, Outcome
from controller.core.plans import Plan
from controller.core.targets import Role, Table, Target
from controller.errors import ClerkUnavailable, DatabaseUnavailable, LockLost, TargetBusy
from controller.postgres import LockTimes
from tests.support.databases import (
    connected,
    create_tables,
    execute,
    fetch,
    fetch_value,
    rows_of,
    seed_users,
    until,
    user_ids,
)
from tests.support.fakes.clock import FakeClock
from tests.support.stores import TERMS, delivery, ids, label, opened, proofs, running

if TYPE_CHECKING:
    from controller.cli.demo.local_postgres import LocalPostgres
    from controller.core.ports import Run
    from controller.postgres import Database

QUICK = LockTimes(beat=timedelta(milliseconds=20), stale=timedelta(minutes=1))
SILENT = LockTimes(beat=timedelta(hours=1), stale=timedelta(minutes=1))
WAITING_FOR_LOCK_ROW = """
    SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%usersync.locks%'
"""
FRESH = "SELECT bool_and(heartbeat_at > clock_timestamp() - interval '1 minute') FROM usersync.locks"
AGED = "UPDATE usersync.locks SET heartbeat_at = heartbeat_at - interval '2 minutes'"


async def audit(url: str) -> list[tuple[str, str | None]]:
    """State and reason of every run, oldest first."""
    rows = await fetch(url, "SELECT state, reason FROM usersync.runs ORDER BY started_at")
    return [(row["state"], row["reason"]) for row in rows]


async def finish(run: Run) -> None:
    drift = await run.observe()
    await run.finish(Outcome(run.id, drift, drift, Plan(), Changes()))


async def test_a_second_run_is_told_who_is_at_work_and_since_when(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as other, running(one, holder="host-a/17"):
        with pytest.raises(TargetBusy, match=r"host-a/17, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"):
            async with running(other):
                pass


async def test_of_many_who_begin_at_once_one_gets_the_lock(database_url: str) -> None:
    async def try_once(database: Database) -> bool:
        try:
            async with database.begin_run(label()):
                await everybody_tried.wait()
                return True
        except TargetBusy:
            return False

    everybody_tried = asyncio.Event()
    async with opened(database_url) as one, opened(database_url) as other:
        tries = [asyncio.create_task(try_once(database)) for database in (one, other) * 3]
        done, _ = await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 5:
            done, _ = await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
        everybody_tried.set()
        assert sorted(await asyncio.gather(*tries)) == [False] * 5 + [True]


async def test_two_schemas_of_one_database_do_not_wait_for_each_other(database_url: str) -> None:
    await create_tables(database_url, schema="staging")
    async with (
        opened(database_url) as one,
        opened(database_url, target=Target(schema="staging")) as other,
        running(one, user_ids(1)),
        running(other, user_ids(2)) as run,
    ):
        assert (await run.observe()).clerk_users == 2


async def test_the_lock_is_given_back(database_url: str) -> None:
    async with opened(database_url) as database:
        async with running(database) as run:
            await finish(run)
        async with running(database) as run:
            await finish(run)
    assert await audit(database_url) == [("succeeded", None), ("succeeded", None)]


async def test_a_failed_run_gives_the_lock_back_and_says_why_in_the_audit(database_url: str) -> None:
    async with opened(database_url) as database:
        with pytest.raises(ClerkUnavailable):
            await _fail(database, ClerkUnavailable("Clerk answered 500 three times"))
        async with running(database):
            pass
    (first, _) = await fetch(database_url, "SELECT state, reason, message FROM usersync.runs ORDER BY started_at")
    assert tuple(first) == ("failed", "ClerkUnavailable", "Clerk answered 500 three times")


async def test_a_cancelled_run_gives_the_lock_back(database_url: str) -> None:
    begun = asyncio.Event()

    async def run_for_ever(database: Database) -> None:
        async with running(database):
            begun.set()
            await asyncio.Event().wait()

    async with opened(database_url) as database:
        task = asyncio.create_task(run_for_ever(database))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with running(database) as run:
            await finish(run)
    assert await audit(database_url) == [("failed", "Interrupted"), ("succeeded", None)]


async def test_working_rows_do_not_outlive_their_run(database_url: str) -> None:
    await seed_users(database_url, user_ids(3))
    async with opened(database_url) as database, running(database, user_ids(2, start=2)) as run:
        await run.remove_users(proofs(user_ids(1)), TERMS)
    for table in ("listed", "drifted", "places"):
        assert await fetch_value(database_url, f"SELECT count(*) FROM usersync.{table}") == 0


async def test_a_heart_that_beats_keeps_the_lock(database_url: str) -> None:
    async with opened(database_url, times=QUICK) as one, opened(database_url, times=QUICK) as other, running(one):
        await execute(database_url, AGED)
        await until(database_url, FRESH)
        with pytest.raises(TargetBusy):
            async with running(other):
                pass


async def test_a_stale_lock_is_taken_over_and_the_dead_run_is_closed(database_url: str) -> None:
    await seed_users(database_url, user_ids(3))
    async with (
        opened(database_url, times=SILENT) as one,
        opened(database_url, times=SILENT) as other,
        running(one, user_ids(1)) as dead,
    ):
        await execute(database_url, AGED)
        async with running(other, user_ids(2)) as run:
            rows = await fetch(database_url, "SELECT DISTINCT run_id::text FROM usersync.listed")
            assert [row["run_id"] for row in rows] == [run.id]
            await finish(run)
        with pytest.raises(LockLost):
            await dead.observe()
    assert await audit(database_url) == [("failed", "Interrupted"), ("succeeded", None)]


async def test_a_run_that_was_taken_over_can_write_no_more(database_url: str) -> None:
    users = user_ids(4)
    await seed_users(database_url, users[:2])
    async with (
        opened(database_url, times=SILENT) as one,
        opened(database_url, times=SILENT) as other,
        running(one, users[2:]) as dead,
    ):
        drift = await dead.observe()
        await execute(database_url, AGED)
        async with running(other, users):
            for attempt in (
                lambda: dead.record_listed(ids(users)),
                lambda: dead.create_profiles(ids(users[2:])),
                lambda: dead.remove_users(proofs(users[:2]), TERMS),
                lambda: dead.reduce_duplicates(ids(users[:1])),
                lambda: dead.finish(Outcome(dead.id, drift, drift, Plan(), Changes())),
                lambda: anext(aiter(dead.orphaned())),
            ):
                dead.lock.lost = False  # the server refuses, not our own memory
                with pytest.raises(LockLost):
                    await attempt()
    assert await rows_of(database_url, users[0]) == {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
    assert await rows_of(database_url, users[2]) == {"user_progress": 0, "tasks": 0, "daily_checkins": 0, "moods": 0}
    assert await fetch_value(database_url, "SELECT count(*) FROM usersync.tombstones") == 0


async def test_a_take_over_waits_for_the_transaction_under_way(database_url: str) -> None:
    async with (
        opened(database_url, times=SILENT) as one,
        opened(database_url, times=SILENT) as other,
        running(one) as run,
    ):
        await execute(database_url, AGED)
        holding, may_end = asyncio.Event(), asyncio.Event()

        async def hold(transaction: object) -> None:
            del transaction
            holding.set()
            await may_end.wait()

        writer = asyncio.create_task(run.lock.transact(hold))
        await holding.wait()
        taking = asyncio.create_task(_take(other))
        await until(database_url, WAITING_FOR_LOCK_ROW)
        assert not taking.done()
        may_end.set()
        await writer
        await taking


async def test_a_take_over_of_a_transaction_that_does_not_end_is_told_that_the_target_is_busy(
    database_url: str,
) -> None:
    async with (
        opened(database_url, times=SILENT) as one,
        opened(database_url, times=SILENT) as other,
        running(one) as run,
    ):
        await execute(database_url, AGED)

        async def hold(transaction: object) -> None:
            del transaction
            with pytest.raises(TargetBusy, match="still under way, though its heart has stopped"):
                await _take(other)

        await run.lock.transact(hold)
        await _take(other)


@pytest.mark.parametrize("spelling", ["localhost", "socket", "options"])
async def test_another_url_of_the_same_database_meets_the_same_lock(
    database_url: str, postgres_server: LocalPostgres, spelling: str
) -> None:
    name = database_url.rpartition("/")[2]
    other_url = {
        "localhost": database_url.replace("127.0.0.1", "localhost").replace("postgres://", "postgresql://"),
        "socket": postgres_server.socket_url(name),
        "options": f"{database_url}?application_name=other&options=-c%20search_path%3Delsewhere",
    }[spelling]
    async with opened(database_url) as one, opened(other_url) as other, running(one, holder="host-a/17"):
        with pytest.raises(TargetBusy, match="host-a/17"):
            await _take(other)


async def test_one_resource_may_work_while_another_of_the_same_database_waits(database_url: str) -> None:
    """Two UserSyncs that name one database and schema: the tables that they list do not matter."""
    one_table = Target(tables=(Table("user_progress", Role.PROFILE),))
    async with opened(database_url, target=one_table) as one, opened(database_url) as other:
        async with one.begin_run(label(resource="app/first")):
            with pytest.raises(TargetBusy):
                async with other.begin_run(label(resource="app/second")):
                    pass
        async with other.begin_run(label(resource="app/second")):
            pass


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400)], ids=["ahead", "behind"])
async def test_a_clock_of_ours_that_jumps_neither_frees_nor_keeps_a_lock(database_url: str, jump: timedelta) -> None:
    clock = FakeClock(datetime.now(UTC) + jump)
    async with opened(database_url, times=QUICK) as one, opened(database_url, clock=clock, times=SILENT) as other:
        async with running(one):
            with pytest.raises(TargetBusy):
                await _take(other)
        async with running(other) as run:
            await until(database_url, FRESH)
            await execute(database_url, AGED)
            async with running(one):
                with pytest.raises(LockLost):
                    await run.observe()


async def test_a_heartbeat_does_not_wait_for_a_writer(database_url: str) -> None:
    async with opened(database_url, times=SILENT) as database, running(database) as run:

        async def beat_meanwhile(transaction: object) -> None:
            del transaction
            async with asyncio.timeout(10):
                await run.lock.beat()

        await run.lock.transact(beat_meanwhile)


async def test_a_heartbeat_that_fails_for_a_while_does_not_end_the_run(database_url: str) -> None:
    async with opened(database_url, times=QUICK) as database, running(database, user_ids(1)) as run:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'usersync'"
        async with connected(database_url) as connection:
            for _ in range(5):
                await connection.execute(others)
                await asyncio.sleep(0.03)
        for _ in range(10):
            # The pool meets the connections that were ended, one by one.
            with contextlib.suppress(DatabaseUnavailable):
                assert (await run.observe()).clerk_users == 1
                return
        pytest.fail("the run did not come back")


async def test_an_event_does_not_wait_for_a_run(database_url: str) -> None:
    async with opened(database_url) as database, running(database):
        assert (await database.create_profile(delivery("m1"), ids(user_ids(1))[0])).value == "created"


async def _fail(database: Database, error: Exception) -> None:
    async with running(database):
        raise error


async def _take(database: Database) -> None:
    async with running(database):
        pass


async def test_the_fence_changes_with_every_hand_over_and_never_repeats(database_url: str) -> None:
    fences = []
    async with opened(database_url, times=SILENT) as one, opened(database_url, times=SILENT) as other:
        async with running(one) as run:
            fences.append(run.lock.fence)
        async with running(one) as run:
            fences.append(run.lock.fence)
            await execute(database_url, AGED)
            async with running(other) as taking:
                fences.append(taking.lock.fence)
        fences.append(await fetch_value(database_url, "SELECT fence FROM usersync.locks"))
    assert fences == sorted(set(fences))
