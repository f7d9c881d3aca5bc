from __future__ import annotations

import asyncio

import pytest

from controller.core.outcomes import Absorbed
from controller.errors import DatabaseUnavailable, TableUnsupported
from tests.support.databases import (
    connected,
    create_tables,
    execute,
    fetch_value,
    seed,
    seed_users,
    until_waited_for,
    user_ids,
    user_ids_in,
)
from tests.support.stores import TERMS, delivery, ids, opened, proofs, running

UNIQUE = pytest.mark.parametrize("unique", [True, False], ids=["unique-index", "no-index"])


@UNIQUE
async def test_missing_profiles_are_created_once(empty_database_url: str, *, unique: bool) -> None:
    users = user_ids(1200)
    await create_tables(empty_database_url, unique=unique)
    await seed(empty_database_url, "user_progress", users[:100])
    async with opened(empty_database_url) as database, running(database, users) as run:
        created = [await run.create_profiles(batch) async for batch in run.missing()]
        assert created == [500, 500, 100]
        assert await run.create_profiles(ids(users[:500])) == 0
    assert await user_ids_in(empty_database_url) == users


@UNIQUE
async def test_many_who_create_the_same_profiles_at_once_make_one_each(
    empty_database_url: str, *, unique: bool
) -> None:
    users = user_ids(40)
    await create_tables(empty_database_url, unique=unique)
    async with opened(empty_database_url) as one, opened(empty_database_url) as other, running(one, users) as run:
        by_runs = asyncio.gather(run.create_profiles(ids(users)), run.create_profiles(ids(reversed(users))))
        by_events = await asyncio.gather(
            *(
                database.create_profile(delivery(f"{number}-{user}"), user)
                for number, database in enumerate((one, other, other))
                for user in ids(users)
            ),
        )
        created = sum(await by_runs) + by_events.count(Absorbed.CREATED)
    assert created == 40
    assert await user_ids_in(empty_database_url) == users


async def test_a_partial_unique_index_is_not_relied_upon(database_url: str) -> None:
    await execute(database_url, "CREATE UNIQUE INDEX ON user_progress (user_id) WHERE note = 'special'")
    async with opened(database_url) as database, running(database, user_ids(2)) as run:
        assert await run.create_profiles(ids(user_ids(2))) == 2


async def test_a_deferred_unique_constraint_is_not_relied_upon(database_url: str) -> None:
    await execute(database_url, "ALTER TABLE user_progress ADD UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED")
    async with opened(database_url) as database, running(database, user_ids(2)) as run:
        assert await run.create_profiles(ids(user_ids(2))) == 2


async def test_a_user_who_was_not_listed_gets_no_profile(database_url: str) -> None:
    async with opened(database_url) as database, running(database, user_ids(1)) as run:
        assert await run.create_profiles(ids(user_ids(3))) == 1
    assert await user_ids_in(database_url) == user_ids(1)


async def test_a_user_buried_since_the_observation_gets_no_profile(database_url: str) -> None:
    users = user_ids(2)
    async with opened(database_url) as database, running(database, users) as run:
        await run.remove_users(proofs(users[:1]), TERMS)
        assert await run.create_profiles(ids(users)) == 1
    assert await user_ids_in(database_url) == users[1:]


async def test_the_creation_time_is_given_where_the_column_has_no_default(database_url: str) -> None:
    await execute(
        database_url,
        "ALTER TABLE user_progress ALTER COLUMN created_at DROP DEFAULT",
        "ALTER TABLE user_progress ALTER COLUMN created_at SET NOT NULL",
    )
    async with opened(database_url) as database, running(database, user_ids(1)) as run:
        assert await run.create_profiles(ids(user_ids(1))) == 1
    age = "SELECT now() - created_at < interval '1 hour' FROM user_progress"
    assert await fetch_value(database_url, age) is True


async def test_a_constraint_that_refuses_profiles_is_named(database_url: str) -> None:
    await execute(database_url, "ALTER TABLE user_progress ADD CONSTRAINT only_short CHECK (length(user_id) < 5)")
    async with opened(database_url) as database, running(database, user_ids(1)) as run:
        with pytest.raises(TableUnsupported, match="only_short"):
            await run.create_profiles(ids(user_ids(1)))


async def test_a_table_lock_is_not_waited_for_without_end(database_url: str) -> None:
    async with (
        opened(database_url) as database,
        running(database, user_ids(1)) as run,
        connected(database_url) as other,
    ):
        async with other.transaction():
            await other.execute("LOCK TABLE user_progress IN ROW EXCLUSIVE MODE")
            creating = asyncio.create_task(run.create_profiles(ids(user_ids(1))))
            with pytest.raises(DatabaseUnavailable, match="lock"):
                await creating
        assert await run.create_profiles(ids(user_ids(1))) == 1


async def test_an_application_that_writes_meanwhile_is_waited_for(database_url: str) -> None:
    """Without a unique index: its uncommitted row is seen once it is committed."""
    (user,) = ids(user_ids(1))
    async with opened(database_url) as database, running(database, [user]) as run, connected(database_url) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("INSERT INTO user_progress (user_id) VALUES ($1)", user)
        creating = asyncio.create_task(run.create_profiles([user]))
        await until_waited_for(other)
        await transaction.commit()
        assert await creating == 0
    assert await user_ids_in(database_url) == [user]


async def test_users_who_have_a_profile_get_no_second_one(database_url: str) -> None:
    await seed_users(database_url, user_ids(3))
    async with opened(database_url) as database, running(database, user_ids(3)) as run:
        assert await run.create_profiles(ids(user_ids(3))) == 0
