"""Migrations of the application that come in between: while a run is under way, and while a transaction waits."""

from __future__ import annotations

import asyncio

import pytest

from controller.core.outcomes import Reduction, Removal
from controller.errors import TableUnsupported
from tests.support.databases import (
    connected,
    create_tables,
    execute,
    fetch_value,
    rows_of,
    seed,
    seed_users,
    until_waited_for,
    user_ids,
    users_with_rows,
)
from tests.support.purges import LARGE, begin, database_of, go_on, seed_large
from tests.support.stores import TERMS, ids, opened, proofs, running

INDEXED = pytest.mark.parametrize("index", [True, False], ids=["indexed", "by-place"])


def cascade_to(parent: str) -> tuple[str, ...]:
    """A table that nobody has listed, with a row for each of the parent's."""
    return (
        f"CREATE TABLE badges (parent uuid REFERENCES {parent} ON DELETE CASCADE)",
        f"INSERT INTO badges SELECT id FROM {parent}",
    )


async def badges(url: str) -> int:
    count: int = await fetch_value(url, "SELECT count(*) FROM badges")
    return count


async def archived_notes(url: str) -> int:
    """How many archived rows have the column that was added in the middle."""
    count: int = await fetch_value(url, "SELECT count(*) FROM usersync.archive WHERE content ->> 'added' = 'dear'")
    return count


async def test_a_cascade_made_during_a_run_takes_nothing_of_a_living_user_along(database_url: str) -> None:
    users = user_ids(1)
    await seed(database_url, "user_progress", users, rows=2)
    async with opened(database_url) as database, running(database, users) as run:
        await execute(database_url, *cascade_to("user_progress"))
        assert await run.reduce_duplicates(ids(users)) == Reduction(users_left=1)
    assert await badges(database_url) == 2


@INDEXED
async def test_while_a_cascade_made_during_a_run_leads_to_an_unlisted_table_nobody_is_removed(
    empty_database_url: str, *, index: bool
) -> None:
    users = user_ids(2)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, users)
    async with opened(empty_database_url) as database, running(database) as run:
        assert (await run.remove_users(proofs(users[:1]), TERMS)).users == 1
        await execute(empty_database_url, *cascade_to("tasks"))
        assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users_left=1)
    assert await badges(empty_database_url) == 2


@INDEXED
async def test_a_column_added_during_a_run_is_archived(empty_database_url: str, *, index: bool) -> None:
    users = user_ids(2)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, users)
    async with opened(empty_database_url) as database, running(database) as run:
        assert (await run.remove_users(proofs(users[:1]), TERMS)).users == 1
        await execute(empty_database_url, "ALTER TABLE tasks ADD COLUMN added text", "UPDATE tasks SET added = 'dear'")
        assert (await run.remove_users(proofs(users[1:]), TERMS)).users == 1
    assert await archived_notes(empty_database_url) == 2


async def test_a_column_added_between_two_batches_of_one_user_is_archived(database_url: str) -> None:
    await seed_large(database_url)
    async with database_of(database_url) as database, running(database) as run:
        await begin(run, TERMS)
        await go_on(run, TERMS, times=1)
        await execute(database_url, "ALTER TABLE moods ADD COLUMN added text", "UPDATE moods SET added = 'dear'")
        parts = await go_on(run, TERMS)
    assert parts[-1].users == 1
    assert await fetch_value(database_url, "SELECT count(*) FROM moods WHERE user_id = $1", LARGE) == 0
    assert await archived_notes(database_url) == 9


async def test_a_user_is_removed_whole_though_an_index_is_dropped_during_the_run(database_url: str) -> None:
    users = user_ids(2)
    await execute(database_url, "CREATE INDEX of_tasks ON tasks (user_id)")
    await seed_users(database_url, users)
    async with opened(database_url) as database, running(database) as run:
        assert (await run.remove_users(proofs(users[:1]), TERMS)).users == 1
        await execute(database_url, "DROP INDEX of_tasks")
        assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users=1, rows=7)
    assert await users_with_rows(database_url) == set()


async def test_a_cascade_made_while_a_removal_waits_is_seen_before_it_commits(database_url: str) -> None:
    """Our DELETE waits for a row of one table; the key is made meanwhile at the next one."""
    (user,) = user_ids(1)
    await execute(database_url, "CREATE TABLE slow (id int PRIMARY KEY)", "INSERT INTO slow VALUES (1)")
    await execute(
        database_url,
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM 1 FROM slow FOR UPDATE; RETURN OLD; END $$",
        "CREATE TRIGGER wait BEFORE DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION wait()",
    )
    await seed_users(database_url, [user])
    async with opened(database_url) as database, running(database) as run, connected(database_url) as other:
        async with other.transaction():
            await other.execute("SELECT 1 FROM slow FOR UPDATE")
            going = asyncio.create_task(run.remove_users(proofs([user]), TERMS))
            await until_waited_for(other)
            await execute(database_url, *cascade_to("moods"))
        assert await going == Removal(users_left=1)
    assert await badges(database_url) == 2
    assert await rows_of(database_url, user) == {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}


async def test_while_a_listed_table_is_renamed_nobody_is_removed_without_its_rows(empty_database_url: str) -> None:
    users = user_ids(1)
    await create_tables(empty_database_url, index=True)
    await seed_users(empty_database_url, users)
    async with opened(empty_database_url) as database, running(database) as run:
        await execute(empty_database_url, "ALTER TABLE moods RENAME TO feelings")
        with pytest.raises(TableUnsupported, match="moods of schema public came or went while users were removed"):
            await run.remove_users(proofs(users), TERMS)
    assert await fetch_value(empty_database_url, "SELECT count(*) FROM tasks") == 2
