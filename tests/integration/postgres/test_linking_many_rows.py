"""What referred to the rows of a user with very many: noted batch by batch, set again as a whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from controller.core.outcomes import Removal
from controller.core.proofs import MAX_AGE
from controller.core.removals import RemovalTerms
from controller.core.requests import Links, RestoreTerms
from controller.core.targets import Deletion, Limits
from tests.support.databases import (
    connected,
    create_tables,
    execute,
    fetch,
    fetch_value,
    rows_of,
    until,
    until_waited_for,
)
from tests.support.fakes.clock import FakeClock
from tests.support.purges import (
    BOUNDS,
    LARGE,
    LIVING,
    ROWS,
    SMALL,
    WITHOUT_PROFILE,
    archived,
    begin,
    database_of,
    go_on,
    seed_large,
)
from tests.support.stores import ERASE, erase, proofs, running
from tests.support.traces import tables_that_name

if TYPE_CHECKING:
    from controller.postgres import Database

TERMS = RemovalTerms.of(Deletion(limits=Limits(10, 100)), permitted=10)
RESTORE = RestoreTerms("somebody")
IN_ONE_SLICE = replace(BOUNDS, slice=timedelta(seconds=8))
LIKED = "CREATE TABLE likes (id serial PRIMARY KEY, task uuid REFERENCES tasks ON DELETE SET NULL)"
LIKES = f"INSERT INTO likes (task) SELECT id FROM tasks WHERE user_id = '{LARGE}'"
PARTITIONED = (
    "DROP TABLE tasks CASCADE",
    "CREATE TABLE tasks (id uuid PRIMARY KEY, user_id text, note text) PARTITION BY HASH (id)",
    *(f"CREATE TABLE tasks_{n} PARTITION OF tasks FOR VALUES WITH (MODULUS 3, REMAINDER {n})" for n in range(3)),
    f"INSERT INTO tasks SELECT gen_random_uuid(), '{LARGE}' FROM generate_series(1, 12)",
)
TASKS_LIKED = "SELECT count(task) FROM likes"
NOTED = "SELECT count(*) FROM usersync.links"


async def texts(url: str) -> list[str]:
    return [row["text"] for row in await fetch(url, "SELECT t::text AS text FROM likes AS t ORDER BY 1")]


async def purge(database: Database, terms: RemovalTerms = TERMS) -> list[Removal]:
    """Begin and go on to the end in one run."""
    async with running(database, [LIVING, SMALL]) as run:
        return [await begin(run, terms), *await go_on(run, terms)]


@pytest.fixture(params=["indexed", "no-index"])
async def url(empty_database_url: str, request: pytest.FixtureRequest) -> str:
    """Tables with and without an index, with LARGE and others in them; a table that is not listed likes his tasks."""
    await create_tables(empty_database_url, index=request.param == "indexed")
    await seed_large(empty_database_url, mixed_with=7)
    await execute(empty_database_url, LIKED, LIKES)
    return empty_database_url


@pytest.fixture
async def indexed_url(empty_database_url: str) -> str:
    """The same with an index, for what has nothing to do with it."""
    await create_tables(empty_database_url, index=True)
    await seed_large(empty_database_url)
    await execute(empty_database_url, LIKED, LIKES)
    return empty_database_url


@pytest.mark.parametrize("part", ["whole", "partitioned"])
async def test_rows_that_refer_are_noted_batch_by_batch_and_refer_again(url: str, part: str) -> None:
    if part == "partitioned":
        await execute(
            url,
            *PARTITIONED,
            "TRUNCATE likes",
            "ALTER TABLE likes ADD FOREIGN KEY (task) REFERENCES tasks ON DELETE SET NULL",
            LIKES,
        )
    before = await texts(url)
    async with database_of(url) as database:
        assert (await purge(database))[-1] == Removal(users=1)
        assert await fetch_value(url, TASKS_LIKED) == 0
        assert await fetch_value(url, NOTED) == 12
        assert await archived(url) == ROWS
        assert (await database.restore(LARGE, RESTORE)).links == Links({"likes": 12})
    assert await texts(url) == before
    assert await fetch_value(url, "SELECT count(DISTINCT (removed_at, expires_at)) FROM usersync.links") == 1


async def test_the_batches_are_as_small_as_without_such_a_key(url: str) -> None:
    async with database_of(url) as database:
        parts = await purge(database)
    assert max(part.rows for part in parts) == 5
    assert sum(part.rows for part in parts) == sum(ROWS.values())


async def test_of_a_profile_that_goes_last_they_are_noted_too(indexed_url: str) -> None:
    await execute(
        indexed_url,
        "ALTER TABLE user_progress ADD UNIQUE (user_id)",
        "CREATE TABLE invited (guest text PRIMARY KEY, "
        "host text REFERENCES user_progress (user_id) ON DELETE SET NULL)",
        f"INSERT INTO invited VALUES ('{LIVING}', '{LARGE}')",
    )
    async with database_of(indexed_url) as database:
        await purge(database)
        assert (await database.restore(LARGE, RESTORE)).links == Links({"invited": 1, "likes": 12})


async def test_a_restore_in_the_middle_sets_what_has_gone_so_far(indexed_url: str) -> None:
    before = await texts(indexed_url)
    async with database_of(indexed_url) as database:
        async with running(database, [SMALL]) as run:
            await begin(run, TERMS)
            await go_on(run, TERMS, times=2)
        assert await fetch_value(indexed_url, TASKS_LIKED) == 2
        assert (await database.restore(LARGE, RESTORE)).links == Links({"likes": 10})
    assert await texts(indexed_url) == before


async def test_a_row_being_inserted_is_waited_for_and_noted(url: str) -> None:
    await execute(url, "TRUNCATE likes")
    async with database_of(url) as database, running(database, [SMALL]) as run, connected(url) as application:
        await begin(run, TERMS)
        async with application.transaction():
            await application.execute(LIKES)
            going_on = asyncio.create_task(go_on(run, TERMS))
            await until_waited_for(application)
        assert (await going_on)[-1] == Removal(users=1)
    assert await fetch_value(url, NOTED) == 12


async def test_a_row_inserted_between_the_look_and_the_delete_is_refused(url: str) -> None:
    await execute(
        url,
        "TRUNCATE likes",
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN OLD; END $$",
        "CREATE TRIGGER stop BEFORE DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION stop()",
    )
    async with (
        database_of(url, bounds=replace(BOUNDS, batch=12)) as database,
        running(database, [SMALL]) as run,
        connected(url) as gate,
        connected(url) as application,
    ):
        await begin(run, TERMS)
        await gate.execute("SELECT pg_advisory_lock(42)")
        going_on = asyncio.create_task(go_on(run, TERMS, times=1))
        await until_waited_for(gate)
        inserting = asyncio.create_task(application.execute(LIKES))
        await until(url, "SELECT count(*) > 1 FROM pg_locks WHERE NOT granted")
        await gate.execute("SELECT pg_advisory_unlock(42)")
        await going_on
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await inserting


async def test_a_proof_that_expires_while_a_batch_is_waited_for_removes_nothing_more(indexed_url: str) -> None:
    clock = FakeClock()
    async with (
        database_of(indexed_url, clock=clock) as database,
        running(database, [SMALL]) as run,
        connected(indexed_url) as application,
    ):
        await begin(run, TERMS)
        async with application.transaction():
            await application.execute("SELECT FROM tasks FOR KEY SHARE")
            going_on = asyncio.create_task(run.go_on(proofs([LARGE], clock)[0], TERMS))
            await until_waited_for(application)
            clock.advance(MAX_AGE + timedelta(seconds=1))
        assert await going_on == Removal(users_left=1)
    assert await rows_of(indexed_url, LARGE) == WITHOUT_PROFILE
    assert await fetch_value(indexed_url, NOTED) == 0


async def test_erased_in_the_middle_nothing_of_what_was_noted_stays(indexed_url: str) -> None:
    async with database_of(indexed_url) as database:
        async with running(database, [SMALL]) as run:
            await begin(run, TERMS)
            await go_on(run, TERMS, times=2)
            assert await fetch_value(indexed_url, NOTED) == 10
            await go_on(run, ERASE)
        assert await fetch_value(indexed_url, NOTED) == 0
    assert await archived(indexed_url) == dict.fromkeys(ROWS, 0)


async def test_an_archived_user_with_very_many_links_is_erased_with_them(indexed_url: str) -> None:
    async with database_of(indexed_url, bounds=IN_ONE_SLICE) as database:
        await purge(database)
        await seed_large(indexed_url)
        await erase(database, proofs([LARGE])[0])
        assert await tables_that_name(indexed_url, LARGE) == ["claims"]
