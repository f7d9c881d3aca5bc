"""Through a real PgBouncer in transaction mode, whose sessions are fewer than those who use them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from controller.core.claims import ClaimKind
from controller.core.outcomes import Absorbed, Reduction, Removal
from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings
from controller.errors import LockLost, TargetBusy
from controller.postgres import LockTimes, migrate
from controller.postgres.connections import Connections, Transaction
from tests.support import pgbouncer
from tests.support.databases import (
    execute,
    fetch_value,
    rows_of,
    seed,
    seed_users,
    until,
    user_ids,
    user_ids_in,
    users_with_rows,
)
from tests.support.pgbouncer import PgBouncer, PgBouncerMissing, pgbouncing
from tests.support.serving import OWED, count, eventually, real_service, rows_in_all
from tests.support.stores import DELETION, TERMS, delivery, ids, label, opened, proofs, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
SILENT = LockTimes(beat=timedelta(hours=1), stale=timedelta(minutes=1))
QUICK = LockTimes(beat=timedelta(milliseconds=5), stale=timedelta(minutes=1))
AGED = "UPDATE usersync.locks SET heartbeat_at = heartbeat_at - interval '2 minutes'"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture(params=[1, 2], ids=["one-session", "two-sessions"])
def pooler(request: pytest.FixtureRequest, database_url: str) -> Iterator[PgBouncer]:
    with pgbouncing(database_url, size=request.param) as pooler:
        yield pooler


@pytest.fixture
def pooler_of_two(database_url: str) -> Iterator[PgBouncer]:
    with pgbouncing(database_url, size=2) as pooler:
        yield pooler


async def session(transaction: Transaction) -> int:
    number: int = await transaction.value("SELECT pg_backend_pid()")
    return number


async def test_a_run_creates_removes_and_reduces_and_leaves_nothing_in_the_sessions(
    database_url: str, pooler: PgBouncer
) -> None:
    users = user_ids(8)
    await seed_users(database_url, users[:6])
    await seed(database_url, "user_progress", users[:1])
    # A heart that beats a hundred times as often as anybody's, in between the transactions of the run.
    async with opened(pooler.url, times=QUICK) as database, running(database, users[:4] + users[6:]) as run:
        assert await run.create_profiles(ids(users[6:])) == 2
        assert await run.remove_users(proofs(users[4:6]), TERMS) == Removal(users=2, rows=14)
        assert await run.reduce_duplicates(ids(users[:1])) == Reduction(1)
        assert (await run.observe()).total == 0
        assert await fetch_value(database_url, SESSIONS) == pooler.size
    assert await pooler.left_behind() == []
    assert await users_with_rows(database_url) == {*users[:4], *users[6:]}
    assert await fetch_value(database_url, "SELECT count(*) FROM usersync.archive") == 15


async def test_our_schema_is_made_through_it(database_url: str, pooler: PgBouncer) -> None:
    assert await migrate(pooler.url)
    assert await migrate(pooler.url) == ()
    assert await pooler.left_behind() == []
    assert await fetch_value(database_url, "SELECT to_regclass('usersync.locks') IS NOT NULL")


async def test_an_event_creates_and_a_claim_is_taken_and_settled(database_url: str, pooler: PgBouncer) -> None:
    users = ids(user_ids(2))
    await seed_users(database_url, users[:1])
    async with opened(pooler.url) as database:
        assert await database.create_profile(delivery("m1"), users[1]) is Absorbed.CREATED
        assert await database.create_profile(delivery("m1"), users[1]) is Absorbed.REPEATED
        await database.record_claim(delivery("m2"), users[0], ClaimKind.DELETION)
        (claim,) = await database.take_claims(5, timedelta(minutes=1))
        assert await database.settle_by_removal(claim, proofs(users[:1])[0], DELETION) == Removal(users=1, rows=7)
        assert await database.create_profile(delivery("m3"), users[0]) is Absorbed.TOMBSTONED
    assert await pooler.left_behind() == []
    assert await user_ids_in(database_url) == [users[1]]


async def test_the_webhook_service_works_through_it(database_url: str, pooler: PgBouncer) -> None:
    settings = EmulatorSettings(environment=Environment.PRODUCTION, rate_limit=None)
    async with ClerkEmulator(settings, users=5) as clerk:
        await migrate(database_url)
        await seed_users(database_url, clerk.users)
        living = list(clerk.users)
        async with real_service(clerk, pooler.url):
            newcomers = [clerk.sign_up() for _ in range(5)]
            clerk.delete(living[0])
            await clerk.webhooks.settle()

            async def settled() -> bool:
                return await rows_in_all(database_url, living[0]) == (0, 0, 0, 0)

            await eventually(settled)
        assert {each.status for each in clerk.webhooks.deliveries} == {200}
    assert await users_with_rows(database_url) == {*living[1:], *newcomers}
    assert await count(database_url, OWED) == 0
    assert await pooler.left_behind() == []


async def test_of_many_who_begin_at_once_one_gets_the_lock(database_url: str, pooler: PgBouncer) -> None:
    async def try_once(url: str) -> str:
        async with opened(url) as database:
            await everybody_came.wait()
            try:
                async with running(database):
                    await everybody_tried.wait()
                    return "ran"
            except TargetBusy:
                refused.append(url)
                if len(refused) == len(tries) - 1:
                    everybody_tried.set()
                return "refused"

    await migrate(database_url)
    refused: list[str] = []
    everybody_came, everybody_tried = asyncio.Event(), asyncio.Event()
    # Some through the pooler, some beside it: the lock is of the schema, whatever the way there.
    tries = [asyncio.create_task(try_once(url)) for url in (pooler.url, database_url) * 3]
    everybody_came.set()
    assert sorted(await asyncio.gather(*tries)) == ["ran"] + ["refused"] * 5


async def test_a_run_that_was_taken_over_can_write_no_more(database_url: str, pooler: PgBouncer) -> None:
    users = user_ids(4)
    await seed_users(database_url, users[:2])
    async with (
        opened(pooler.url, times=SILENT) as one,
        opened(pooler.url, times=SILENT) as other,
        running(one, users[2:]) as dead,
    ):
        await execute(database_url, AGED)
        async with running(other, users) as run:
            for attempt in (
                lambda: dead.record_listed(ids(users)),
                lambda: dead.create_profiles(ids(users[2:])),
                lambda: dead.remove_users(proofs(users[:2]), TERMS),
                lambda: dead.reduce_duplicates(ids(users[:1])),
            ):
                dead.lock.lost = False  # the server refuses, not our own memory
                with pytest.raises(LockLost):
                    await attempt()
            assert (await run.observe()).orphaned == 0
    assert await rows_of(database_url, users[0]) == WHOLE
    assert await user_ids_in(database_url) == users[:2]
    assert await pooler.left_behind() == []


async def test_a_take_over_waits_for_the_transaction_under_way(database_url: str, pooler_of_two: PgBouncer) -> None:
    waiting = """
        SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%usersync.locks%'
    """
    holding, may_end = asyncio.Event(), asyncio.Event()

    async def hold(transaction: Transaction) -> None:
        await transaction.change("INSERT INTO moods (user_id) VALUES ('written in time')")
        holding.set()
        await may_end.wait()

    async with (
        opened(pooler_of_two.url, times=SILENT) as one,
        opened(pooler_of_two.url, times=SILENT) as other,
        running(one) as run,
    ):
        await execute(database_url, AGED)
        writer = asyncio.create_task(run.lock.transact(hold))
        await holding.wait()

        async def take() -> list[str | None]:
            async with other.begin_run(label()):
                return await user_ids_in(database_url, "moods")

        taking = asyncio.create_task(take())
        await until(database_url, waiting)
        may_end.set()
        await writer
        assert await taking == ["written in time"]


async def test_two_transactions_of_one_client_meet_two_sessions(pooler_of_two: PgBouncer) -> None:
    async with Connections.open(pooler_of_two.url, size=2) as connections:
        assert await pooler_of_two.left_behind() == []  # by now both are there
        assert await connections.transact(session) != await connections.transact(session)


async def test_session_state_would_be_seen(database_url: str) -> None:
    with pgbouncing(database_url, size=1) as pooler:
        connection = await asyncpg.connect(pooler.url, statement_cache_size=0)
        await connection.execute("SET lock_timeout = 17")
        await connection.execute("SELECT pg_advisory_lock(4711)")
        await connection.execute("PREPARE kept AS SELECT 1")
        await connection.execute("CREATE TEMPORARY TABLE kept_too ()")
        await connection.close()
        assert await pooler.left_behind() == [
            "advisory lock 4711", "prepared statement kept", "setting lock_timeout", "temporary table kept_too",
        ]  # fmt: skip


async def test_without_a_pgbouncer_a_test_fails_and_says_what_to_do(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(PgBouncerMissing, match="no apt-get or dpkg-deb"):
        pgbouncer.find_or_fetch()
    with pytest.raises(pytest.fail.Exception, match="apt-get install pgbouncer"), pgbouncing(database_url):
        pass
    monkeypatch.setenv(pgbouncer.WITHOUT, "1")
    with pytest.raises(pytest.skip.Exception, match="nothing is proved"), pgbouncing(database_url):
        pass


async def test_the_library_would_leave_prepared_statements_behind_if_we_let_it(database_url: str) -> None:
    with pgbouncing(database_url, size=1) as pooler:
        connection = await asyncpg.connect(pooler.url)
        await connection.fetch("SELECT $1::int", 1)
        await connection.close()
        assert any(found.startswith("prepared statement") for found in await pooler.left_behind())
