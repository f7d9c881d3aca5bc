from __future__ import annotations

import pytest

from controller.cli.demo.local_postgres import LocalPostgres
from controller.core.drift import TableDrift
from controller.core.targets import Role, Table, Target
from controller.errors import DatabaseUnavailable, ListingIncomplete, UserSyncError
from controller.postgres import Database
from tests.support.databases import create_tables, execute, fetch, seed, seed_users, user_ids
from tests.support.fakes.clock import FakeClock
from tests.support.stores import INSTANCE, TERMS, delivery, ids, label, opened, proofs, running


async def test_counts_and_sets_are_those_of_the_tables(database_url: str) -> None:
    users = user_ids(8)
    await seed_users(database_url, users[:4])
    await seed(database_url, "tasks", users[4:5])
    await seed(database_url, "user_progress", [users[0], users[0], users[3], "system", None, ""])
    await seed(database_url, "moods", ["system", "0b0f7f0e-9c7a-4d5b-8f1f-0f7b6a1c2d3e", None])
    async with opened(database_url) as database, running(database, [*users[:3], *users[5:]]) as run:
        drift = await run.observe()
        assert drift.clerk_users == 6
        assert drift.users_with_rows == 5
        assert (drift.synced, drift.missing, drift.clerk_only) == (3, 3, 3)
        assert drift.orphaned == 2
        assert (drift.duplicates, drift.duplicated_users) == (3, 2)
        assert drift.foreign == 2
        assert drift.tables == (
            TableDrift("user_progress", 10, 3, 2),
            TableDrift("tasks", 9, 3, 3),
            TableDrift("daily_checkins", 8, 3, 2),
            TableDrift("moods", 11, 3, 2),
        )
        assert [page async for page in run.missing()] == [users[5:]]
        assert [page async for page in run.orphaned()] == [users[3:5]]
        assert [page async for page in run.duplicated()] == [[users[0], users[3]]]


async def test_a_listed_user_with_rows_but_no_profile_is_missing_and_not_clerk_only(database_url: str) -> None:
    await seed(database_url, "tasks", user_ids(1))
    async with opened(database_url) as database, running(database, user_ids(2)) as run:
        drift = await run.observe()
        assert (drift.missing, drift.clerk_only) == (2, 1)


@pytest.mark.parametrize(
    "value",
    [
        "system",
        "user_",
        "user_a-b",
        "user_ä",
        "User_abc",
        " user_abc",
        "user_abc ",
        "user_abc\n",
        "user_abc\nuser_abd",
        "x" * 300,
        "user_" + "a" * 251,
    ],
)
async def test_a_value_that_is_not_of_clerks_form_is_foreign_and_never_a_candidate(
    database_url: str, value: str
) -> None:
    await seed(database_url, "user_progress", [value, value])
    async with opened(database_url) as database, running(database, user_ids(1)) as run:
        drift = await run.observe()
        assert (drift.foreign, drift.orphaned, drift.duplicates, drift.users_with_rows) == (1, 0, 0, 0)
        assert [page async for page in run.orphaned()] == []


async def test_a_value_too_long_for_any_index_is_foreign_and_the_others_are_observed(empty_database_url: str) -> None:
    await create_tables(empty_database_url, index=False)
    longest, endless = "user_" + "a" * 250, "user_" + "".join(f"{number:x}" for number in range(10_000))
    await seed(empty_database_url, "tasks", [longest, endless])
    async with opened(empty_database_url) as database, running(database, user_ids(1)) as run:
        assert (await run.observe()).foreign == 1
        assert [page async for page in run.orphaned()] == [[longest]]


@pytest.mark.parametrize("value", [None, ""])
async def test_null_and_empty_belong_to_nobody(database_url: str, value: str | None) -> None:
    await seed(database_url, "user_progress", [value, value])
    async with opened(database_url) as database, running(database) as run:
        drift = await run.observe()
        assert (drift.foreign, drift.orphaned, drift.users_with_rows, drift.total) == (0, 0, 0, 0)
        assert drift.tables[0].rows == 2


async def test_ids_that_differ_by_case_are_different_users(database_url: str) -> None:
    await seed(database_url, "user_progress", ["user_abc", "user_ABC"])
    async with opened(database_url) as database, running(database, ["user_abc"]) as run:
        assert [page async for page in run.orphaned()] == [["user_ABC"]]


async def test_an_observation_can_be_repeated_after_changes(database_url: str) -> None:
    users = user_ids(4)
    await seed_users(database_url, users[:3])
    async with opened(database_url) as database, running(database, users[:2] + users[3:]) as run:
        await run.create_profiles(ids(users[3:]))
        await run.remove_users(proofs(users[2:3]), TERMS)
        again = await run.observe()
        assert (again.total, again.synced, again.users_with_rows) == (0, 3, 3)
        assert [page async for page in run.orphaned()] == []
        assert [page async for page in run.missing()] == []


async def test_a_user_found_by_the_second_look_is_no_orphan_any_more(database_url: str) -> None:
    await seed_users(database_url, user_ids(3))
    async with opened(database_url) as database, running(database, user_ids(1)) as run:
        await run.record_listed(ids(user_ids(1, start=1)))
        assert (await run.observe()).orphaned == 1


async def test_a_user_recorded_twice_is_one_user(database_url: str) -> None:
    async with opened(database_url) as database, running(database, user_ids(2)) as run:
        await run.record_listed(ids(user_ids(2)))
        drift = await run.observe()
        assert (drift.clerk_users, drift.missing) == (2, 2)


async def test_a_buried_user_is_not_missing(database_url: str) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    async with opened(database_url) as database:
        async with running(database) as run:
            await run.remove_users(proofs(users[:1]), TERMS)
        async with running(database, users) as run:
            assert (await run.observe()).missing == 0
            assert [page async for page in run.missing()] == []


async def test_tombstones_hold_no_id(database_url: str) -> None:
    (user,) = user_ids(1)
    await seed_users(database_url, [user])
    async with opened(database_url) as database, running(database) as run:
        await run.remove_users(proofs([user]), TERMS)
    (row,) = await fetch(
        database_url,
        """
        SELECT s.user_hash = sha256(t.salt || convert_to(t.instance_id || $1, 'UTF8')) AS as_promised, s::text
        FROM usersync.tombstones AS s JOIN usersync.target AS t USING (schema_name)
        """,
        user,
    )
    assert row["as_promised"]
    assert user not in row["s"]


async def test_sets_come_in_pages_in_byte_order(empty_database_url: str) -> None:
    await create_tables(empty_database_url)
    users = [f"user_{letter}{number:04d}" for letter in "aBcD" for number in range(300)]
    await seed(empty_database_url, "tasks", users)
    async with opened(empty_database_url) as database, running(database) as run:
        pages = [page async for page in run.orphaned()]
        assert [len(page) for page in pages] == [500, 500, 200]
        assert [user for page in pages for user in page] == sorted(users)


async def test_recorded_ids_that_are_gone_fail_the_observation(database_url: str) -> None:
    await seed_users(database_url, user_ids(3))
    async with opened(database_url) as database, running(database, user_ids(3)) as run:
        await execute(database_url, f"DELETE FROM usersync.listed WHERE user_id = '{user_ids(1)[0]}'")
        with pytest.raises(ListingIncomplete, match="Of 3 users listed, 2 are still recorded"):
            await run.observe()


async def test_a_crash_of_the_server_in_the_middle_of_a_run_makes_no_orphans() -> None:
    users = user_ids(5)
    with LocalPostgres() as server:
        url = server.create_database("app")
        await create_tables(url)
        await seed_users(url, users)
        async with opened(url) as database:
            async with running(database, users) as run:
                server.kill()
                server.start()
                await _until_connected(database)
                with pytest.raises(ListingIncomplete):
                    await run.observe()
            async with running(database, users) as run:
                assert (await run.observe()).total == 0


async def _until_connected(database: Database) -> None:
    """The pool meets the connections that the crash has cut, one by one."""
    for _ in range(10):
        try:
            await database.pinned_instance()
        except DatabaseUnavailable:
            continue
        return


async def test_a_table_that_disappears_in_the_middle_of_a_run_fails_it(database_url: str) -> None:
    async with opened(database_url) as database, running(database) as run:
        await execute(database_url, "DROP TABLE moods")
        with pytest.raises(UserSyncError, match="moods"):
            await run.observe()


async def test_columns_of_different_collations_are_compared(empty_database_url: str) -> None:
    await execute(
        empty_database_url,
        'CREATE TABLE user_progress (user_id varchar(50) COLLATE "POSIX")',
        'CREATE TABLE tasks (user_id text COLLATE "C")',
        "CREATE TABLE moods (user_id text)",
    )
    for table in ("user_progress", "tasks", "moods"):
        await seed(empty_database_url, table, user_ids(3))
    async with opened(empty_database_url) as database, running(database, user_ids(1)) as run:
        assert (await run.observe()).orphaned == 2
        assert (await run.remove_users(proofs(user_ids(2, start=1)), TERMS)).rows == 6


ODD = ['we"ird', "two words", "Größe", "select", "{user_id}", "dollar$1", "%s", "a.b", "it's", "--", "x" * 63]


@pytest.mark.parametrize("odd", ODD)
async def test_any_name_of_schema_table_and_column_is_served(empty_database_url: str, odd: str) -> None:
    async def quote(connection_url: str, name: str) -> str:
        (row,) = await fetch(connection_url, "SELECT quote_ident($1)", name)
        return str(row[0])

    name = await quote(empty_database_url, odd)
    await execute(
        empty_database_url,
        f"CREATE SCHEMA {name}",
        f"CREATE TABLE {name}.{name} ({name} text, other text)",
        f"INSERT INTO {name}.{name} ({name}) VALUES ('user_a'), ('user_a'), ('user_b')",
    )
    target = Target(schema=odd, tables=(Table(odd, Role.PROFILE, odd),))
    async with Database.open(empty_database_url, target, FakeClock()) as database:
        await database.inspect()
        await database.pin_instance(INSTANCE)
        async with database.begin_run(label()) as run:
            await run.record_listed(ids(["user_a", "user_c"]))
            drift = await run.observe()
            assert (drift.missing, drift.orphaned, drift.duplicates) == (1, 1, 1)
            assert await run.create_profiles(ids(["user_c"])) == 1
            assert (await run.remove_users(proofs(["user_b"]), TERMS)).rows == 1
            assert (await run.reduce_duplicates(ids(["user_a"]))).rows == 1
            assert (await run.observe()).total == 0
        assert (await database.create_profile(delivery("m1"), ids(["user_d"])[0])).value == "created"
