from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.outcomes import Removal
from controller.core.proofs import MAX_AGE
from controller.postgres import Bounds
from tests.support.databases import (
    TABLES,
    connected,
    create_tables,
    execute,
    fetch,
    fetch_value,
    rows_of,
    seed,
    seed_users,
    until,
    until_waited_for,
    user_ids,
    users_with_rows,
)
from tests.support.fakes.clock import FakeClock
from tests.support.stores import OTHER_INSTANCE, TERMS, delivery, ids, opened, proofs, running

if TYPE_CHECKING:
    from datetime import datetime

    from controller.cli.demo.local_postgres import LocalPostgres

WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
NOTHING = dict.fromkeys(TABLES, 0)
INDEXED = pytest.mark.parametrize("index", [True, False], ids=["indexed", "by-place"])


@dataclass
class LeapingClock:
    """Stands still but for the n-th question, from which on it is an hour later."""

    leaps_at: int
    asked: int = field(default=0, init=False)
    at: FakeClock = field(default_factory=FakeClock)

    def now(self) -> datetime:
        return self.at.now()

    def elapsed(self) -> float:
        self.asked += 1
        return self.at.elapsed() + (3600 if self.asked >= self.leaps_at else 0)


@INDEXED
async def test_all_rows_of_a_user_go_from_all_tables_and_nobody_elses(empty_database_url: str, *, index: bool) -> None:
    users = user_ids(1300)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, users)
    await seed(empty_database_url, "moods", ["system", None, ""])
    async with opened(empty_database_url) as database, running(database, users[:100]) as run:
        total = Removal()
        async for batch in run.orphaned():
            total += await run.remove_users(proofs(batch), TERMS)
        assert total == Removal(users=1200, rows=1200 * 7)
        assert (await run.observe()).total == 0
    assert await users_with_rows(empty_database_url) == {*users[:100], "system", ""}
    assert await rows_of(empty_database_url, users[0]) == WHOLE


AS_TEXTS = """
    SELECT jsonb_object(
        ARRAY['id', 'user_id', 'note', 'created_at'],
        ARRAY[id::text, user_id, note, (created_at AT TIME ZONE 'UTC')::text || '+00']
    )::text AS content FROM {table}"""
"""Each value of a row as PostgreSQL writes it, times in UTC."""


@INDEXED
async def test_every_removed_row_is_archived_as_it_was(empty_database_url: str, *, index: bool) -> None:
    (user,) = user_ids(1)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, [user])
    before = {
        (table, row["content"])
        for table in TABLES
        for row in await fetch(empty_database_url, AS_TEXTS.format(table=table))
    }
    async with opened(empty_database_url) as database, running(database) as run:
        await run.remove_users(proofs([user]), TERMS)
        run_id = run.id
    rows = await fetch(empty_database_url, "SELECT *, expires_at - removed_at AS kept FROM usersync.archive")
    assert {(row["table_name"], row["content"]) for row in rows} == before
    assert {(row["user_id"], row["reason"], str(row["run_id"]), row["kept"]) for row in rows} == {
        (user, "orphaned", run_id, timedelta(days=30))
    }


async def test_columns_named_like_our_aliases_are_archived_too(database_url: str) -> None:
    await execute(database_url, "ALTER TABLE moods ADD COLUMN usersync_row text, ADD COLUMN removed text DEFAULT 'no'")
    await seed_users(database_url, user_ids(1))
    async with opened(database_url) as database, running(database) as run:
        await run.remove_users(proofs(user_ids(1)), TERMS)
    content = await fetch_value(database_url, "SELECT content FROM usersync.archive WHERE table_name = 'moods' LIMIT 1")
    assert json.loads(content)["removed"] == "no"
    assert json.loads(content)["user_id"] == user_ids(1)[0]


async def test_a_removed_user_is_buried_and_stays_so(database_url: str) -> None:
    (user,) = user_ids(1)
    await seed_users(database_url, [user])
    async with opened(database_url) as database:
        async with running(database) as run:
            await run.remove_users(proofs([user]), TERMS)
        assert (await database.create_profile(delivery("late"), ids([user])[0])).value == "tombstoned"
    assert await rows_of(database_url, user) == NOTHING


@INDEXED
async def test_an_expired_proof_leaves_its_user_whole(empty_database_url: str, *, index: bool) -> None:
    old, fresh = user_ids(2)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, [old, fresh])
    clock = FakeClock()
    async with opened(empty_database_url, clock=clock) as database, running(database) as run:
        early = proofs([old], clock)
        clock.advance(MAX_AGE + timedelta(seconds=1))
        removal = await run.remove_users([*early, *proofs([fresh], clock)], TERMS)
        assert removal == Removal(users=1, rows=7, users_left=1)
    assert await rows_of(empty_database_url, old) == WHOLE
    assert await fetch_value(empty_database_url, "SELECT count(*) FROM usersync.tombstones") == 1


@pytest.mark.parametrize("leaps_at", range(2, 8))
async def test_a_proof_that_expires_before_any_delete_leaves_its_user_whole(
    empty_database_url: str, leaps_at: int
) -> None:
    """The clock is asked when the locks are held (1), and before the DELETE of each of four tables (2 to 5)."""
    await create_tables(empty_database_url, index=True)
    await seed_users(empty_database_url, user_ids(1))
    async with opened(empty_database_url, clock=LeapingClock(leaps_at)) as database, running(database) as run:
        removal = await run.remove_users(proofs(user_ids(1)), TERMS)
    kept = leaps_at <= 5
    assert removal.users_left == int(kept)
    assert await rows_of(empty_database_url, user_ids(1)[0]) == (WHOLE if kept else NOTHING)


async def test_a_proof_of_another_instance_leaves_its_user_whole(database_url: str) -> None:
    await seed_users(database_url, user_ids(1))
    async with opened(database_url) as database, running(database) as run:
        removal = await run.remove_users(proofs(user_ids(1), instance=OTHER_INSTANCE), TERMS)
        assert removal == Removal(users_left=1)
    assert await rows_of(database_url, user_ids(1)[0]) == WHOLE
    assert await fetch_value(database_url, "SELECT count(*) FROM usersync.archive") == 0


async def test_without_a_pinned_instance_nobody_is_removed(database_url: str) -> None:
    await seed_users(database_url, user_ids(1))
    async with opened(database_url, pin=False) as database, running(database) as run:
        assert await run.remove_users(proofs(user_ids(1)), TERMS) == Removal(users_left=1)
    assert await rows_of(database_url, user_ids(1)[0]) == WHOLE


async def test_no_proofs_remove_nobody(database_url: str) -> None:
    async with opened(database_url) as database, running(database) as run:
        assert await run.remove_users([], TERMS) == Removal()


@INDEXED
async def test_a_proved_user_whom_the_observation_did_not_find_is_removed_whole(
    empty_database_url: str, *, index: bool
) -> None:
    """Rows that came after the observation go too, where no place was noted for them."""
    users = user_ids(2)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, users[:1])
    async with opened(empty_database_url) as database, running(database) as run:
        await seed_users(empty_database_url, users[1:])
        assert await run.remove_users(proofs(users), TERMS) == Removal(users=2, rows=14)
    assert await users_with_rows(empty_database_url) == set()


async def test_a_row_that_moved_since_its_place_was_noted_is_removed_all_the_same(database_url: str) -> None:
    users = user_ids(3)
    await seed_users(database_url, users)
    async with opened(database_url) as database, running(database) as run:
        await run.remove_users(proofs(users[:1]), TERMS)
        assert run.clearing.places_noted_at is not None
        await execute(database_url, "UPDATE tasks SET note = 'moved'")
        assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users=2, rows=14)
    assert await users_with_rows(database_url) == set()


async def test_a_place_that_holds_another_users_row_by_now_is_left_alone(database_url: str) -> None:
    gone, living = user_ids(2)
    await seed_users(database_url, [gone])
    async with opened(database_url) as database, running(database, [living]) as run:
        await run.remove_users(proofs([user_ids(1, start=9)[0]]), TERMS)
        await run.clearing._note_places(ids([gone]))
        assert run.clearing.places_noted_at is not None
        await execute(
            database_url,
            f"DELETE FROM tasks WHERE user_id = '{gone}'",
            "VACUUM tasks",
            f"INSERT INTO tasks (user_id) SELECT '{living}' FROM generate_series(1, 50)",
        )
        assert await run.remove_users(proofs([gone]), TERMS) == Removal(users=1, rows=5)
    assert (await rows_of(database_url, living))["tasks"] == 50


async def test_places_are_noted_anew_after_a_while(database_url: str) -> None:
    clock = FakeClock()
    users = user_ids(2)
    await seed_users(database_url, users)
    async with opened(database_url, clock=clock) as database, running(database) as run:
        await run.remove_users(proofs(users[:1], clock), TERMS)
        await seed(database_url, "moods", users[1:])
        clock.advance(timedelta(minutes=1))
        assert await run.remove_users(proofs(users[1:], clock), TERMS) == Removal(users=1, rows=8)
    assert await users_with_rows(database_url) == set()


async def test_a_partitioned_table_without_an_index_is_emptied_of_the_user_alone(database_url: str) -> None:
    """In two partitions the same place holds two rows."""
    users = user_ids(40)
    await execute(
        database_url,
        "DROP TABLE moods",
        "CREATE TABLE moods (user_id text, created_at timestamptz DEFAULT now()) PARTITION BY HASH (user_id)",
        "CREATE TABLE moods_0 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE moods_1 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    )
    await seed(database_url, "moods", users)
    async with opened(database_url) as database, running(database, users[:20]) as run:
        assert (await run.remove_users(proofs(users[20:]), TERMS)).rows == 20
    assert await users_with_rows(database_url) == set(users[:20])


@INDEXED
@pytest.mark.parametrize("seen_from", ["tables_in_order", "tables_in_reverse"])
async def test_no_snapshot_ever_shows_a_part_of_a_user(empty_database_url: str, seen_from: str, *, index: bool) -> None:
    users = user_ids(300)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, users)
    order = TABLES if seen_from == "tables_in_order" else TABLES[::-1]
    partial: list[set[str]] = []
    looks = 0
    ended = asyncio.Event()

    async def watch() -> None:
        nonlocal looks
        async with connected(empty_database_url) as connection:
            while not ended.is_set():
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    seen = [
                        {row["user_id"] for row in await connection.fetch(f"SELECT DISTINCT user_id FROM {table}")}
                        for table in order
                    ]
                partial.append(set.union(*seen) - set.intersection(*seen))
                looks += 1

    watching = asyncio.create_task(watch())
    async with opened(empty_database_url) as database, running(database, users[:10]) as run:
        for start in range(10, 300, 20):
            await run.remove_users(proofs(users[start : start + 20]), TERMS)
    ended.set()
    await watching
    assert looks > 3
    assert set.union(*partial) == set()
    assert await users_with_rows(empty_database_url) == set(users[:10])


@INDEXED
async def test_a_back_end_killed_in_the_middle_leaves_every_user_whole(empty_database_url: str, *, index: bool) -> None:
    users = user_ids(50)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, users)
    await execute(
        empty_database_url,
        """
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_terminate_backend(pg_backend_pid()) FROM armed;
            RETURN OLD;
        END $$
        """,
        "CREATE TABLE armed AS SELECT 1",
        "CREATE TRIGGER die BEFORE DELETE ON user_progress FOR EACH ROW EXECUTE FUNCTION die()",
    )
    async with opened(empty_database_url) as database, running(database) as run:
        with pytest.raises(Exception, match="terminating connection"):
            await run.remove_users(proofs(users), TERMS)
        assert await rows_of(empty_database_url, users[0]) == WHOLE
        assert await fetch_value(empty_database_url, "SELECT count(*) FROM usersync.archive") == 0
        assert await fetch_value(empty_database_url, "SELECT count(*) FROM usersync.tombstones") == 0
        await execute(empty_database_url, "DROP TABLE armed", "CREATE TABLE armed ()")
        assert (await run.remove_users(proofs(users), TERMS)).users == 50
    assert await users_with_rows(empty_database_url) == set()


async def test_a_run_and_an_event_remove_the_same_users_without_a_deadlock(empty_database_url: str) -> None:
    users = ids(user_ids(60))
    await create_tables(empty_database_url, index=True)
    await seed_users(empty_database_url, users)
    async with opened(empty_database_url) as one, opened(empty_database_url) as other, running(one) as run:
        await asyncio.gather(
            run.remove_users(proofs(users), TERMS),
            run.remove_users(proofs(users[::-1]), TERMS),
            *(other.create_profile(delivery(user), user) for user in users),
        )
        profiles = await users_with_rows(empty_database_url, tables=("user_progress",))
        others = await users_with_rows(empty_database_url, tables=TABLES[1:])
    assert profiles == others == set()
    assert await fetch_value(empty_database_url, "SELECT count(*) FROM usersync.tombstones") == 60


async def test_the_lock_of_a_user_is_taken_before_anything_is_read(empty_database_url: str) -> None:
    """Whoever waited for the user sees what the other one committed."""
    (user,) = ids(user_ids(1))
    await create_tables(empty_database_url)
    async with opened(empty_database_url) as database, running(database) as run, connected(empty_database_url) as other:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(hashtextextended('public/' || $1, 1970694498))", user)
            removing = asyncio.create_task(run.remove_users(proofs([user]), TERMS))
            await until_waited_for(other)
            await seed_users(empty_database_url, [user])
        assert (await removing).rows == 7


async def test_who_locks_several_users_in_another_order_waits_instead_of_deadlocking(
    empty_database_url: str, postgres_server: LocalPostgres
) -> None:
    users = ids(user_ids(3))
    await create_tables(empty_database_url, index=True)
    await seed_users(empty_database_url, users)
    before = postgres_server.log.count("deadlock detected")
    async with opened(empty_database_url) as database, running(database) as run, connected(empty_database_url) as other:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(hashtextextended('public/' || $1, 1970694498))", users[1])
            removing = asyncio.gather(
                run.remove_users(proofs(users), TERMS), run.remove_users(proofs(users[::-1]), TERMS)
            )
            await until(empty_database_url, "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted")
        removals = await removing
    assert sum(removal.rows for removal in removals) == 21
    assert postgres_server.log.count("deadlock detected") == before


@pytest.mark.parametrize("index", [True, False])
async def test_users_with_too_many_rows_together_leave_in_several_transactions(
    empty_database_url: str, *, index: bool
) -> None:
    await create_tables(empty_database_url, index=index)
    users = user_ids(6)
    await seed_users(empty_database_url, users)
    async with opened(empty_database_url, bounds=Bounds(together=20)) as database, running(database, users[:1]) as run:
        assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users=5, rows=35)
    rows = await fetch(empty_database_url, "SELECT count(*) AS rows FROM usersync.archive GROUP BY removed_at")
    assert sorted(row["rows"] for row in rows) == [7, 14, 14]
