"""Users with too many rows for one transaction, by the run that begins with them and whoever goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.outcomes import Removal
from controller.core.proofs import MAX_AGE
from controller.core.removals import RemovalTerms
from controller.core.targets import Deletion, DeletionPolicy, Limits
from controller.errors import LockLost
from controller.postgres import Bounds
from controller.postgres.purging import Purging
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
    until_waited_for,
    user_ids,
    users_with_rows,
)
from tests.support.fakes.clock import FakeClock
from tests.support.purges import (
    BATCHES,
    BOUNDS,
    LARGE,
    LIVING,
    NOTHING,
    ROWS,
    SMALL,
    WITHOUT_PROFILE,
    archived,
    archived_and_there,
    begin,
    database_of,
    go_on,
    receipts,
    seed_large,
)
from tests.support.stores import OTHER_INSTANCE, proofs, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.postgres import Database

LIMITED = RemovalTerms.of(Deletion(limits=Limits(10, 100)), permitted=10)
ERASE = replace(LIMITED, policy=DeletionPolicy.ERASE)
RETAIN = replace(LIMITED, policy=DeletionPolicy.RETAIN)
INDEXED = pytest.mark.parametrize("index", [True, False], ids=["indexed", "no-index"])
BEGUN = ("begun", True, {"user_progress": 1})
UNFINISHED = "SELECT count(*) FROM usersync.unfinished"


@pytest.fixture(params=["indexed", "no-index"])
async def url(empty_database_url: str, request: pytest.FixtureRequest) -> str:
    """Tables with and without an index, with LARGE and others in them."""
    await create_tables(empty_database_url, index=request.param == "indexed")
    await seed_large(empty_database_url, mixed_with=7)
    return empty_database_url


@pytest.fixture
async def indexed_url(empty_database_url: str) -> str:
    """The same with an index, for what has nothing to do with it."""
    await create_tables(empty_database_url, index=True)
    await seed_large(empty_database_url)
    return empty_database_url


async def purge(database: Database, terms: RemovalTerms = LIMITED) -> list[Removal]:
    """Begin and go on to the end in one run."""
    async with running(database, [LIVING, SMALL]) as run:
        return [await begin(run, terms), *await go_on(run, terms)]


async def test_tombstone_and_profile_go_first_and_all_other_rows_stay(url: str) -> None:
    async with database_of(url) as database, running(database, [LIVING]) as run:
        assert await begin(run, LIMITED) == Removal(rows=1, users_unfinished=1)
    assert await rows_of(url, LARGE) == WITHOUT_PROFILE
    assert await archived(url) == {**NOTHING, "user_progress": 1}
    assert await fetch_value(url, "SELECT count(*) FROM usersync.tombstones") == 1
    assert await receipts(url) == [BEGUN]


async def test_the_rest_goes_in_batches_of_one_table_each_and_a_last_transaction_ends_it(url: str) -> None:
    async with database_of(url) as database:
        first, *parts = await purge(database)
    assert first == Removal(rows=1, users_unfinished=1)
    assert parts == [*(Removal(rows=rows, users_unfinished=1) for rows in BATCHES), Removal(users=1)]
    assert await users_with_rows(url) == {LIVING, SMALL}
    assert await receipts(url) == [BEGUN, ("archived", False, ROWS)]
    assert await fetch_value(url, UNFINISHED) == 0


async def test_the_rows_of_others_stay_as_they_are(url: str) -> None:
    others = "SELECT array_agg(t ORDER BY id) FROM {} AS t WHERE user_id <> $1"
    before = [await fetch_value(url, others.format(table), LARGE) for table in TABLES]
    async with database_of(url) as database:
        await purge(database)
    assert [await fetch_value(url, others.format(table), LARGE) for table in TABLES] == before


async def test_all_that_was_removed_is_in_the_archive_as_of_one_time(url: str) -> None:
    before = await fetch_value(url, "SELECT array_agg(id::text ORDER BY id::text) FROM tasks WHERE user_id = $1", LARGE)
    async with database_of(url) as database:
        await purge(database)
    assert await archived(url) == ROWS
    assert await fetch_value(url, "SELECT count(DISTINCT (removed_at, expires_at)) FROM usersync.archive") == 1
    tasks = "SELECT array_agg(content->>'id' ORDER BY content->>'id') FROM usersync.archive WHERE table_name = 'tasks'"
    assert await fetch_value(url, tasks) == before


@pytest.mark.parametrize(("bound", "whole"), [(29, True), (28, False)])
async def test_up_to_the_bound_over_all_tables_a_user_leaves_in_one_transaction(
    url: str, bound: int, *, whole: bool
) -> None:
    bounds = replace(BOUNDS, rows=bound)
    async with database_of(url, bounds=bounds) as database, running(database, [LIVING, SMALL]) as run:
        removal = await begin(run, LIMITED)
    assert removal == (Removal(users=1, rows=29) if whole else Removal(rows=1, users_unfinished=1))


async def test_the_others_of_his_batch_leave_in_one_transaction(url: str) -> None:
    async with database_of(url) as database, running(database, [LIVING]) as run:
        removal = await run.remove_users(proofs([SMALL, LARGE]), LIMITED)
    assert removal == Removal(users=1, rows=8, users_unfinished=1)
    assert await rows_of(url, SMALL) == NOTHING
    assert await rows_of(url, LARGE) == WITHOUT_PROFILE


@pytest.mark.parametrize("after", range(len(BATCHES) + 1))
async def test_a_run_killed_between_two_batches_is_gone_on_with_by_the_next(url: str, after: int) -> None:
    async with database_of(url) as killed, running(killed, [LIVING, SMALL]) as run:
        await begin(run, LIMITED)
        await go_on(run, LIMITED, times=after)
    assert await archived_and_there(url) == ROWS
    async with database_of(url) as database, running(database, [LIVING, SMALL]) as run:
        assert [batch async for batch in run.unfinished()] == [[LARGE]]
        parts = await go_on(run, LIMITED)
    assert parts == [*(Removal(rows=rows, users_unfinished=1) for rows in BATCHES[after:]), Removal(users=1)]
    assert await archived(url) == ROWS
    assert await receipts(url) == [BEGUN, ("archived", False, ROWS)]


async def test_a_back_end_that_dies_in_a_batch_leaves_what_was_committed_before(url: str) -> None:
    await execute(
        url,
        """
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_terminate_backend(pg_backend_pid()) FROM armed;
            RETURN OLD;
        END $$
        """,
        "CREATE TABLE armed AS SELECT 1",
        "CREATE TRIGGER die BEFORE DELETE ON daily_checkins FOR EACH ROW EXECUTE FUNCTION die()",
    )
    async with database_of(url) as database, running(database, [LIVING, SMALL]) as run:
        await begin(run, LIMITED)
        with pytest.raises(Exception, match="terminating connection"):
            await go_on(run, LIMITED)
        assert await archived(url) == {**NOTHING, "user_progress": 1, "tasks": 12}
        assert await archived_and_there(url) == ROWS
        await execute(url, "DROP TABLE armed", "CREATE TABLE armed ()")
        await go_on(run, LIMITED)
    assert await archived(url) == ROWS


async def test_batches_follow_each_other_for_a_slice_on_one_proof(url: str) -> None:
    async with database_of(url, bounds=replace(BOUNDS, slice=timedelta(seconds=8))) as database:
        assert await purge(database) == [Removal(rows=1, users_unfinished=1), Removal(users=1, rows=28)]


async def test_an_expired_proof_removes_nothing_more(indexed_url: str) -> None:
    clock = FakeClock()
    async with database_of(indexed_url, clock=clock) as database, running(database) as run:
        await begin(run, LIMITED)
        (old,) = proofs([LARGE], clock)
        clock.advance(MAX_AGE + timedelta(seconds=1))
        assert await run.go_on(old, LIMITED) == Removal(users_left=1)
        assert await rows_of(indexed_url, LARGE) == WITHOUT_PROFILE
        assert (await go_on(run, LIMITED))[-1] == Removal(users=1)


async def test_a_proof_that_expires_between_two_batches_ends_the_slice(indexed_url: str) -> None:
    clock = FakeClock()
    slow = FakeClock(clock.at)
    bounds = replace(BOUNDS, slice=timedelta(hours=1))

    class Slow(FakeClock):
        def elapsed(self) -> float:
            slow.advance(timedelta(minutes=1))
            return slow.elapsed()

    async with database_of(indexed_url, bounds=bounds, clock=Slow()) as database, running(database) as run:
        await begin(run, LIMITED)
        (proof,) = proofs([LARGE], slow)
        removal = await run.go_on(proof, LIMITED)
    assert removal.users_unfinished == 1
    assert 0 < removal.rows < 28
    assert await archived_and_there(indexed_url) == ROWS


async def test_with_an_expired_proof_nobody_is_begun_with(indexed_url: str) -> None:
    clock = FakeClock()
    async with database_of(indexed_url, clock=clock) as database, running(database) as run:
        (old,) = proofs([LARGE], clock)
        clock.advance(MAX_AGE + timedelta(seconds=1))
        assert await run.remove_users([old], LIMITED) == Removal(users_left=1)
    assert await fetch_value(indexed_url, "SELECT count(*) FROM usersync.tombstones") == 0


async def test_a_proof_that_expires_on_the_way_to_the_beginning_begins_nothing(indexed_url: str) -> None:
    class Leaping(FakeClock):
        """An hour later from the second question on: the first is asked before the rows are counted."""

        asked = 0

        def elapsed(self) -> float:
            self.asked += 1
            return super().elapsed() + (3600 if self.asked > 1 else 0)

    async with database_of(indexed_url, clock=Leaping()) as database, running(database) as run:
        assert await run.remove_users(proofs([LARGE]), LIMITED) == Removal(users_left=1)
    assert await fetch_value(indexed_url, "SELECT count(*) FROM usersync.tombstones") == 0


async def test_who_has_few_rows_by_the_time_his_lock_is_held_is_not_begun_with(indexed_url: str) -> None:
    """Somebody else may have come to the end with him between the two transactions."""
    async with database_of(indexed_url) as database, running(database) as run:
        purging = Purging(run.clearing._removing(LIMITED), proofs([SMALL])[0])
        assert await run.lock.transact(purging.begin) == Removal(users_left=1)
    assert await receipts(indexed_url) == []
    assert await fetch_value(indexed_url, "SELECT count(*) FROM usersync.tombstones") == 0


async def test_a_row_that_becomes_another_users_while_we_wait_for_it_stays(url: str) -> None:
    async with database_of(url) as database, running(database, [LIVING, SMALL]) as run, connected(url) as application:
        await begin(run, LIMITED)
        async with application.transaction():
            given = "UPDATE tasks SET user_id = $1 WHERE ctid IN (SELECT ctid FROM tasks WHERE user_id = $2 LIMIT 1)"
            await application.execute(given, LIVING, LARGE)
            going_on = asyncio.create_task(go_on(run, LIMITED))
            await until_waited_for(application)
        assert (await going_on)[-1] == Removal(users=1)
    assert (await rows_of(url, LIVING))["tasks"] == 2 + 7 + 1
    assert await archived(url) == {**ROWS, "tasks": 11}


async def test_a_proof_of_another_instance_removes_nothing_more(indexed_url: str) -> None:
    async with database_of(indexed_url) as database, running(database) as run:
        await begin(run, LIMITED)
        (foreign,) = proofs([LARGE], instance=OTHER_INSTANCE)
        assert await run.go_on(foreign, LIMITED) == Removal(users_left=1)
    assert await rows_of(indexed_url, LARGE) == WITHOUT_PROFILE


async def test_without_a_tombstone_that_stands_nothing_more_is_removed(indexed_url: str) -> None:
    async with database_of(indexed_url) as database, running(database) as run:
        await begin(run, LIMITED)
        await execute(
            indexed_url,
            "INSERT INTO usersync.lifted_tombstones (tombstone_id, lifted_by) SELECT id, 'x' FROM usersync.tombstones",
        )
        assert await go_on(run, LIMITED) == [Removal(users_left=1)]
    assert await rows_of(indexed_url, LARGE) == WITHOUT_PROFILE


async def test_a_user_beyond_the_limits_is_not_begun_with(indexed_url: str) -> None:
    none = replace(LIMITED, permitted=0)
    async with database_of(indexed_url) as database, running(database) as run:
        assert await begin(run, none) == Removal(users_left=1, limit_reached=True)
    assert await rows_of(indexed_url, LARGE) == ROWS
    assert await receipts(indexed_url) == []
    assert await fetch_value(indexed_url, "SELECT count(*) FROM usersync.tombstones") == 0


async def test_he_counts_once_against_the_limits(indexed_url: str) -> None:
    one = replace(LIMITED, permitted=1)
    async with database_of(indexed_url) as database:
        await purge(database, one)
        async with running(database, [LIVING]) as run:
            assert await run.remove_users(proofs([SMALL]), one) == Removal(users_left=1, limit_reached=True)
        async with running(database, [LIVING]) as run:
            assert (await run.remove_users(proofs([SMALL]), replace(one, permitted=2))).users == 1


async def test_he_counts_also_where_his_profile_stays_to_the_end(indexed_url: str) -> None:
    await execute(
        indexed_url,
        "ALTER TABLE user_progress ADD CONSTRAINT one UNIQUE (id, user_id)",
        "CREATE TABLE invoices (id uuid, user_id text)",
        "ALTER TABLE invoices ADD FOREIGN KEY (id, user_id) REFERENCES user_progress (id, user_id)",
    )
    async with database_of(indexed_url) as database:
        await purge(database)
    assert await receipts(indexed_url) == [("begun", True, {"user_progress": 0}), ("archived", False, ROWS)]


@pytest.mark.parametrize(
    "obstacle",
    [
        [
            "CREATE TABLE invoices (profile uuid REFERENCES user_progress)",
        ],
        [
            """
            CREATE FUNCTION clean() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN DELETE FROM moods WHERE user_id = OLD.user_id; RETURN NULL; END $$
            """,
            "CREATE TRIGGER clean AFTER DELETE ON user_progress FOR EACH ROW EXECUTE FUNCTION clean()",
        ],
    ],
    ids=["foreign-key", "trigger"],
)
async def test_a_profile_whose_deletion_may_reach_further_goes_last(indexed_url: str, obstacle: Sequence[str]) -> None:
    await execute(indexed_url, *obstacle)
    async with database_of(indexed_url) as database, running(database) as run:
        assert await begin(run, LIMITED) == Removal(users_unfinished=1)
        assert await rows_of(indexed_url, LARGE) == ROWS
        parts = await go_on(run, LIMITED)
    assert [part.rows for part in parts] == [*BATCHES, 1, 0]
    assert await archived(indexed_url) == ROWS


async def test_rows_that_refer_to_rows_of_their_own_table_go_together(indexed_url: str) -> None:
    await execute(
        indexed_url,
        "ALTER TABLE tasks ADD COLUMN parent uuid REFERENCES tasks ON DELETE CASCADE",
        "CREATE TABLE firsts AS SELECT DISTINCT ON (user_id) user_id, id FROM tasks ORDER BY user_id, ctid DESC",
        "UPDATE tasks AS t SET parent = f.id FROM firsts AS f WHERE f.user_id = t.user_id AND f.id <> t.id",
        "VACUUM FULL tasks",
    )
    async with database_of(indexed_url) as database:
        parts = await purge(database)
    assert [part.rows for part in parts] == [1, 12, *BATCHES[3:], 0]
    assert await archived(indexed_url) == ROWS


async def test_while_a_cascade_leads_into_an_unlisted_table_nobody_is_begun_with_or_gone_on_with(
    indexed_url: str,
) -> None:
    cascade = "CREATE TABLE invoices (mood uuid REFERENCES moods ON DELETE CASCADE)"
    async with database_of(indexed_url) as database:
        await execute(indexed_url, cascade)
        async with running(database) as run:
            assert await begin(run, LIMITED) == Removal(users_left=1)
        await execute(indexed_url, "DROP TABLE invoices")
        async with running(database) as run:
            await begin(run, LIMITED)
        await execute(indexed_url, cascade)
        async with running(database) as run:
            assert await go_on(run, LIMITED) == [Removal(users_left=1)]
    assert await rows_of(indexed_url, LARGE) == WITHOUT_PROFILE


async def test_a_table_from_which_a_cascade_leads_to_another_listed_one_goes_whole(indexed_url: str) -> None:
    await execute(indexed_url, "ALTER TABLE moods ADD COLUMN task uuid REFERENCES tasks ON DELETE CASCADE")
    async with database_of(indexed_url) as database:
        parts = await purge(database)
    assert sorted(part.rows for part in parts) == [0, 1, 2, 4, 5, 5, 12]
    assert await archived(indexed_url) == ROWS


async def test_a_cascade_to_a_row_of_somebody_else_leaves_him_unfinished(indexed_url: str) -> None:
    await execute(
        indexed_url,
        "ALTER TABLE moods ADD COLUMN task uuid REFERENCES tasks ON DELETE CASCADE",
        f"UPDATE moods SET task = (SELECT id FROM tasks WHERE user_id = '{LARGE}' LIMIT 1) WHERE user_id = '{LIVING}'",
    )
    async with database_of(indexed_url) as database:
        assert (await purge(database))[-1] == Removal(users_left=1)
    assert (await rows_of(indexed_url, LIVING))["moods"] == 2
    assert (await rows_of(indexed_url, LARGE))["tasks"] == 12


async def test_where_the_keys_make_a_cycle_he_leaves_in_one_transaction(indexed_url: str) -> None:
    await execute(
        indexed_url,
        "ALTER TABLE moods ADD COLUMN task uuid REFERENCES tasks DEFERRABLE",
        "ALTER TABLE tasks ADD COLUMN mood uuid REFERENCES moods DEFERRABLE",
        *(
            f"UPDATE {table} SET {column} = (SELECT id FROM {other} WHERE user_id = '{LARGE}' LIMIT 1)"
            f" WHERE user_id = '{LARGE}'"
            for table, column, other in (("moods", "task", "tasks"), ("tasks", "mood", "moods"))
        ),
    )
    async with database_of(indexed_url) as database, running(database) as run:
        assert await begin(run, LIMITED) == Removal(users=1, rows=29)
    assert await archived(indexed_url) == ROWS


async def test_rows_that_a_foreign_key_holds_are_left_with_those_behind_them_and_reported(indexed_url: str) -> None:
    await execute(
        indexed_url,
        "CREATE TABLE invoices (checkin uuid REFERENCES daily_checkins)",
        f"INSERT INTO invoices SELECT id FROM daily_checkins WHERE user_id = '{LARGE}'",
    )
    async with database_of(indexed_url) as database, running(database) as run:
        await begin(run, LIMITED)
        assert (await go_on(run, LIMITED))[-1] == Removal(users_left=1)
        assert await archived(indexed_url) == {**NOTHING, "user_progress": 1, "tasks": 12}
        await execute(indexed_url, "DROP TABLE invoices")
        assert (await go_on(run, LIMITED))[-1] == Removal(users=1)
    assert await archived(indexed_url) == ROWS


@pytest.mark.parametrize("referring", [True, False], ids=["whole-table", "batches"])
async def test_a_trigger_that_keeps_rows_without_a_word_ends_in_no_endless_loop(url: str, *, referring: bool) -> None:
    await execute(
        url,
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        f"CREATE TRIGGER keep BEFORE DELETE ON moods FOR EACH ROW WHEN (OLD.user_id = '{LARGE}') "
        "EXECUTE FUNCTION keep()",
    )
    if referring:
        await execute(url, "ALTER TABLE moods ADD COLUMN before uuid REFERENCES moods")
    async with database_of(url) as database, running(database, [LIVING, SMALL]) as run:
        await begin(run, LIMITED)
        parts = await go_on(run, LIMITED)
    assert parts[-1] == Removal(users_left=1)
    assert await rows_of(url, LARGE) == {**NOTHING, "moods": 9}
    assert await fetch_value(url, UNFINISHED) == 1


async def test_a_trigger_that_keeps_some_rows_without_a_word_ends_in_no_endless_loop(url: str) -> None:
    await execute(
        url,
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "ALTER TABLE tasks ADD COLUMN kept boolean",
        f"UPDATE tasks SET kept = true WHERE ctid IN (SELECT ctid FROM tasks WHERE user_id = '{LARGE}' LIMIT 3)",
        "CREATE TRIGGER keep BEFORE DELETE ON tasks FOR EACH ROW WHEN (OLD.kept) EXECUTE FUNCTION keep()",
    )
    async with database_of(url) as database, running(database, [LIVING, SMALL]) as run:
        await begin(run, LIMITED)
        parts = await go_on(run, LIMITED)
    assert parts[-1] == Removal(users_left=1)
    assert (await rows_of(url, LARGE))["tasks"] == 3


async def test_rows_that_came_meanwhile_to_earlier_places_go_too(url: str) -> None:
    async with database_of(url) as database, running(database, [LIVING, SMALL]) as run:
        await begin(run, LIMITED)
        await go_on(run, LIMITED, times=4)
        await execute(url, "VACUUM tasks")
        await seed(url, "tasks", [LARGE], rows=7)
        await seed(url, "user_progress", [LARGE])
        parts = await go_on(run, LIMITED)
    assert parts[-1] == Removal(users=1)
    assert await rows_of(url, LARGE) == NOTHING
    assert await archived(url) == {**ROWS, "tasks": 19, "user_progress": 2}
    assert (await receipts(url))[-1] == ("archived", False, {**ROWS, "tasks": 19, "user_progress": 2})


@pytest.mark.parametrize(
    "parts",
    [
        [
            "CREATE TABLE tasks (user_id text, day int) PARTITION BY LIST (day)",
            *(f"CREATE TABLE tasks_{day} PARTITION OF tasks FOR VALUES IN ({day})" for day in range(3)),
        ],
        ["CREATE TABLE tasks (user_id text, day int)", "CREATE TABLE heir () INHERITS (tasks)"],
    ],
    ids=["partitions", "heirs"],
)
async def test_a_table_of_several_parts_without_an_index_is_emptied_of_him_alone(
    indexed_url: str, parts: Sequence[str]
) -> None:
    """In each part the same places hold rows, of him and of others."""
    heir = "heir" if len(parts) == 2 else "tasks"
    fill = "INSERT INTO {} SELECT u.id, day FROM generate_series(1, 4), unnest(ARRAY['{}', '{}']) AS u (id), "
    days = "generate_series(0, 2) AS day"
    await execute(
        indexed_url,
        "DROP TABLE tasks",
        *parts,
        fill.format("tasks", LARGE, LIVING) + days,
        fill.format(heir, LARGE, LIVING) + days,
    )
    async with database_of(indexed_url) as database, running(database, [LIVING]) as run:
        await begin(run, LIMITED)
        parts_removed = await go_on(run, LIMITED)
    assert max(part.rows for part in parts_removed) == 5
    assert await archived(indexed_url) == {**ROWS, "tasks": 24}
    assert (await rows_of(indexed_url, LARGE), (await rows_of(indexed_url, LIVING))["tasks"]) == (NOTHING, 24)


async def test_who_is_erased_leaves_nothing_in_the_archive(url: str) -> None:
    async with database_of(url) as database:
        async with running(database, [LIVING, SMALL]) as run:
            await run.remove_users(proofs([SMALL]), LIMITED)
        await execute(url, f"UPDATE usersync.archive SET user_id = '{LARGE}'")
        parts = await purge(database, ERASE)
    assert [part.rows for part in parts] == [1, *BATCHES, 0, 0, 0]
    assert await archived(url) == await rows_of(url, LARGE) == NOTHING
    assert (await receipts(url))[-1] == ("erased", False, ROWS)


@pytest.mark.parametrize(("first", "then"), [(ERASE, LIMITED), (LIMITED, ERASE)], ids=["from-erase", "to-erase"])
async def test_who_is_to_be_erased_before_or_after_a_change_of_the_policy_is_erased(
    url: str, first: RemovalTerms, then: RemovalTerms
) -> None:
    async with database_of(url) as database, running(database, [LIVING, SMALL]) as run:
        await begin(run, first)
        await go_on(run, first, times=2)
        await go_on(run, then, times=1)
        await go_on(run, LIMITED)
    assert await archived(url) == await rows_of(url, LARGE) == NOTHING
    assert [act for act, _, _ in await receipts(url)] == ["begun", "erased"]


async def test_who_is_retained_keeps_all_rows_however_many(indexed_url: str) -> None:
    async with database_of(indexed_url) as database, running(database) as run:
        assert await begin(run, RETAIN) == Removal(users=1)
    assert await rows_of(indexed_url, LARGE) == ROWS


async def test_a_run_that_was_taken_over_removes_no_further_batch(indexed_url: str) -> None:
    async with database_of(indexed_url) as database, running(database) as run:
        await begin(run, LIMITED)
        await execute(indexed_url, "UPDATE usersync.locks SET fence = fence + 1")
        with pytest.raises(LockLost):
            await go_on(run, LIMITED)
    assert await rows_of(indexed_url, LARGE) == WITHOUT_PROFILE


async def test_a_snapshot_shows_no_profile_of_a_user_who_has_a_part_of_his_rows(url: str) -> None:
    seen: list[tuple[int, int, int]] = []
    ended = asyncio.Event()
    look = ", ".join(f"(SELECT count(*) FROM {table} WHERE user_id = '{LARGE}') AS {table}" for table in TABLES)

    async def watch() -> None:
        async with connected(url) as connection:
            while not ended.is_set():
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    buried = await connection.fetchval("SELECT count(*) FROM usersync.tombstones")
                    profile, *others = await connection.fetchrow(f"SELECT {look}")
                seen.append((profile, sum(others), buried))

    async with database_of(url) as database, running(database, [LIVING, SMALL]) as run:
        watching = asyncio.create_task(watch())
        await begin(run, LIMITED)
        await go_on(run, LIMITED)
    ended.set()
    await watching
    assert {(profile, rows) for profile, rows, _ in seen if profile} <= {(1, 28)}
    assert all(buried for profile, rows, buried in seen if (profile, rows) != (1, 28))
    assert len({rows for _, rows, _ in seen}) > 2


async def test_two_who_go_on_at_once_remove_each_row_once(url: str) -> None:
    async with database_of(url) as one, running(one, [LIVING, SMALL]) as run:
        await begin(run, LIMITED)
        parts = [part for parts in await asyncio.gather(*(go_on(run, LIMITED) for _ in range(4))) for part in parts]
    assert sum(part.rows for part in parts) == 28
    assert sum(part.users for part in parts) == 1
    assert await archived(url) == ROWS
    assert len(await receipts(url)) == 2


async def test_what_a_run_has_begun_is_claimed_for_the_service_in_case_the_run_ends(indexed_url: str) -> None:
    async with database_of(indexed_url) as database:
        async with running(database) as run:
            await begin(run, LIMITED)
        due = await database.next_claim_due()
        assert due is not None
        assert timedelta(minutes=9) < due <= timedelta(minutes=10)
        async with running(database) as run:
            await go_on(run, LIMITED)
        assert await database.next_claim_due() is None


@INDEXED
async def test_a_user_with_very_many_rows_is_removed_by_the_bounds_in_force(
    empty_database_url: str, *, index: bool
) -> None:
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, [LIVING, *user_ids(100, start=50)])
    for table in TABLES[1:]:
        await execute(
            empty_database_url,
            f"INSERT INTO {table} (user_id) SELECT CASE WHEN n % 3 = 0 THEN '{LIVING}' ELSE '{LARGE}' END "
            "FROM generate_series(1, 60000) AS n",
            f"ANALYZE {table}",
        )
    await seed(empty_database_url, "user_progress", [LARGE])
    listed = [LIVING, *user_ids(100, start=50)]
    async with database_of(empty_database_url, bounds=Bounds()) as database, running(database, listed) as run:
        assert await begin(run, LIMITED) == Removal(rows=1, users_unfinished=1)
        assert sum(part.rows for part in await go_on(run, LIMITED)) == 120_000
    sizes = "SELECT count(*) FROM usersync.archive GROUP BY xmin::text, table_name"
    assert sorted(row["count"] for row in await fetch(empty_database_url, sizes)) == [1, *[10_000] * 12]
    assert await rows_of(empty_database_url, LIVING) == {**dict.fromkeys(TABLES, 20_002), "user_progress": 1}
