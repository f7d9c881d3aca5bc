from __future__ import annotations

import asyncio

import pytest

from controller.core.targets import Role, Table, Target
from tests.support.databases import connected, execute, fetch, fetch_value, until_waited_for, user_ids
from tests.support.stores import ids, opened, running

TARGET = Target(tables=(Table("profiles", Role.PROFILE),))
USER = user_ids(1)[0]


async def kept(url: str, *, target: Target = TARGET) -> list[object]:
    """The `n` of the rows that stay after reducing."""
    async with opened(url, target=target) as database, running(database, [USER]) as run:
        async for batch in run.duplicated():
            await run.reduce_duplicates(batch)
        assert (await run.observe()).duplicates == 0
    return [row["n"] for row in await fetch(url, "SELECT n FROM profiles ORDER BY n")]


async def make(url: str, columns: str, *rows: str) -> None:
    await execute(
        url,
        f"CREATE TABLE profiles (user_id text, {columns})",
        *(f"INSERT INTO profiles VALUES ('{USER}', {row})" for row in rows),
    )


@pytest.mark.parametrize("unordered", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
async def test_the_oldest_row_is_kept(empty_database_url: str, unordered: tuple[int, ...]) -> None:
    await make(empty_database_url, "n int, created_at timestamptz", *(f"{n}, '2026-01-0{n}'" for n in unordered))
    assert await kept(empty_database_url) == [1]


async def test_a_row_without_a_time_is_kept_only_among_its_like(empty_database_url: str) -> None:
    await make(empty_database_url, "n int PRIMARY KEY, created_at timestamptz", "1, NULL", "2, '2026-01-02'", "3, NULL")
    assert await kept(empty_database_url) == [2]


async def test_ties_are_settled_by_the_primary_key(empty_database_url: str) -> None:
    await make(
        empty_database_url, "n int PRIMARY KEY, created_at date", "9, '2026-01-01'", "4, '2026-01-01'", "7, NULL"
    )
    assert await kept(empty_database_url) == [4]


async def test_ties_without_a_primary_key_are_settled_by_the_place(empty_database_url: str) -> None:
    await make(empty_database_url, "n int, created_at date", "9, '2026-01-01'", "4, '2026-01-01'")
    assert await kept(empty_database_url) == [9]


async def test_without_a_creation_time_the_primary_key_decides(empty_database_url: str) -> None:
    await make(empty_database_url, "n int PRIMARY KEY", "9", "4", "7")
    assert await kept(empty_database_url) == [4]


async def test_removed_rows_are_archived_with_their_reason(empty_database_url: str) -> None:
    await make(empty_database_url, "n int, created_at date", "1, '2026-01-01'", "2, '2026-01-02'")
    await kept(empty_database_url)
    (row,) = await fetch(empty_database_url, "SELECT reason, content->>'n' AS n, user_id FROM usersync.archive")
    assert tuple(row) == ("duplicate", "2", USER)


async def test_reducing_is_no_deletion_of_the_user(empty_database_url: str) -> None:
    await make(empty_database_url, "n int, created_at date", "1, NULL", "2, NULL")
    await kept(empty_database_url)
    assert await fetch_value(empty_database_url, "SELECT count(*) FROM usersync.tombstones") == 0


async def test_rows_of_foreign_values_are_never_reduced(empty_database_url: str) -> None:
    await execute(
        empty_database_url,
        "CREATE TABLE profiles (user_id text, n int)",
        "INSERT INTO profiles VALUES ('system', 1), ('system', 2), (NULL, 3), (NULL, 4), ('', 5), ('', 6)",
    )
    assert await kept(empty_database_url) == [1, 2, 3, 4, 5, 6]


async def test_in_partitions_one_row_is_kept(empty_database_url: str) -> None:
    await execute(
        empty_database_url,
        "CREATE TABLE profiles (user_id text, n int, created_at date) PARTITION BY LIST (n)",
        "CREATE TABLE profiles_1 PARTITION OF profiles FOR VALUES IN (1)",
        "CREATE TABLE profiles_2 PARTITION OF profiles FOR VALUES IN (2)",
        f"INSERT INTO profiles VALUES ('{USER}', 2, '2026-01-01'), ('{USER}', 1, '2026-01-02')",
    )
    assert await kept(empty_database_url) == [2]


async def test_a_row_that_another_table_needs_stays_and_the_others_go(empty_database_url: str) -> None:
    other = user_ids(1, start=1)[0]
    await make(empty_database_url, "n int PRIMARY KEY, created_at date", "1, '2026-01-01'", "2, '2026-01-02'")
    await execute(
        empty_database_url,
        f"INSERT INTO profiles VALUES ('{other}', 3, '2026-01-01'), ('{other}', 4, '2026-01-02')",
        "CREATE TABLE orders (profile int REFERENCES profiles)",
        "INSERT INTO orders VALUES (2)",
    )
    async with opened(empty_database_url, target=TARGET) as database, running(database, [USER]) as run:
        assert (await run.reduce_duplicates(ids([USER, other]))).rows == 1
    assert [row["n"] for row in await fetch(empty_database_url, "SELECT n FROM profiles ORDER BY n")] == [1, 2, 3]


async def test_two_who_reduce_at_once_leave_one_row(empty_database_url: str) -> None:
    await make(empty_database_url, "n int, created_at date", *(f"{n}, '2026-01-{n:02d}'" for n in range(1, 20)))
    async with opened(empty_database_url, target=TARGET) as database, running(database, [USER]) as run:
        removed = await asyncio.gather(*(run.reduce_duplicates(ids([USER])) for _ in range(4)))
    assert sum(reduction.rows for reduction in removed) == 18
    assert await fetch_value(empty_database_url, "SELECT n FROM profiles") == 1


async def test_a_row_that_the_application_is_deleting_is_not_the_one_kept(empty_database_url: str) -> None:
    await make(empty_database_url, "n int, created_at date", "1, '2026-01-01'", "2, '2026-01-02'", "3, '2026-01-03'")
    async with (
        opened(empty_database_url, target=TARGET) as database,
        running(database, [USER]) as run,
        connected(empty_database_url) as application,
    ):
        deletion = application.transaction()
        await deletion.start()
        await application.execute("DELETE FROM profiles WHERE n = 1")
        reducing = asyncio.create_task(run.reduce_duplicates(ids([USER])))
        await until_waited_for(application)
        await deletion.commit()
        assert (await reducing).rows == 1
    assert await fetch_value(empty_database_url, "SELECT n FROM profiles") == 2
