"""Application databases for tests: the four tables of the default spec, rows for users, and looks at them.

Works by asyncpg alone, beside our own code, so that a fault there cannot hide itself.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

TABLES = ("user_progress", "tasks", "daily_checkins", "moods")
"""Profile table first, as in the default spec."""


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def execute(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    async with connected(url) as connection:
        for statement in statements:
            await connection.execute(statement)


async def fetch(url: str, query: str, *arguments: object) -> list[Any]:
    """All rows of a query."""
    async with connected(url) as connection:
        return list(await connection.fetch(query, *arguments))


async def fetch_value(url: str, query: str, *arguments: object) -> Any:
    """The first column of the first row."""
    async with connected(url) as connection:
        return await connection.fetchval(query, *arguments)


async def put_clock(url: str, ahead: timedelta) -> None:
    """Put usersync's clock ahead of the server's, from now on and for everybody."""
    microseconds = ahead // timedelta(microseconds=1)
    await execute(
        url,
        "CREATE OR REPLACE FUNCTION usersync.clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS "
        f"$$ SELECT pg_catalog.clock_timestamp() + interval '{microseconds} microseconds' $$",
    )


async def until(url: str, condition: str, *, seconds: float = 15) -> None:
    """Wait until a query answers true."""
    async with connected(url) as connection:
        await _until(connection, condition, seconds)


async def until_waited_for(holder: asyncpg.Connection, *, seconds: float = 15) -> None:
    """Wait until somebody waits for a lock of this connection; who waits for another one does not count."""
    query = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    await _until(holder, query, seconds)


async def _until(connection: asyncpg.Connection, condition: str, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await connection.fetchval(condition):  # noqa: ASYNC110 - the server has no event to wait for
            await asyncio.sleep(0.005)


async def create_tables(
    url: str,
    *,
    schema: str = "public",
    tables: Iterable[str] = TABLES,
    index: bool = False,
    unique: bool = False,
) -> None:
    """Create application tables as the default spec has them.

    `index`: on user_id of each; `unique`: on user_id of the profile table.
    """
    async with connected(url) as connection, connection.transaction():
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        for table in tables:
            await connection.execute(f"""
                CREATE TABLE "{schema}"."{table}" (
                    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                    user_id text,
                    note text NOT NULL DEFAULT 'something of the user''s',
                    created_at timestamptz DEFAULT now())""")
            if unique and table == TABLES[0]:
                await connection.execute(f'CREATE UNIQUE INDEX ON "{schema}"."{table}" (user_id)')
            elif index:
                await connection.execute(f'CREATE INDEX ON "{schema}"."{table}" (user_id)')


async def seed(
    url: str,
    table: str,
    user_ids: Iterable[str | None],
    *,
    rows: int = 1,
    schema: str = "public",
) -> None:
    """Insert `rows` rows for each value into one table."""
    records = [(user_id,) for user_id in user_ids for _ in range(rows)]
    async with connected(url) as connection:
        await connection.copy_records_to_table(table, records=records, columns=["user_id"], schema_name=schema)


async def seed_users(url: str, user_ids: Iterable[str], *, rows: int = 2, schema: str = "public") -> None:
    """Give each user one profile row and `rows` rows in each other table."""
    users = list(user_ids)
    for table in TABLES:
        await seed(url, table, users, rows=1 if table == TABLES[0] else rows, schema=schema)


async def rows_of(url: str, user_id: str, *, schema: str = "public", tables: Iterable[str] = TABLES) -> dict[str, int]:
    """How many rows a user has in each table."""
    async with connected(url) as connection:
        return {
            table: await connection.fetchval(f'SELECT count(*) FROM "{schema}"."{table}" WHERE user_id = $1', user_id)
            for table in tables
        }


async def user_ids_in(url: str, table: str = TABLES[0], *, schema: str = "public") -> list[str | None]:
    """The `user_id` of every row of a table, sorted (NULLs last): an id twice is there twice."""
    rows = await fetch(url, f'SELECT user_id FROM "{schema}"."{table}" ORDER BY user_id COLLATE "C"')
    return [row["user_id"] for row in rows]


async def users_with_rows(url: str, *, schema: str = "public", tables: Iterable[str] = TABLES) -> set[str]:
    """Every distinct value, but NULL, of `user_id` over the tables."""
    return {
        user_id for table in tables for user_id in await user_ids_in(url, table, schema=schema) if user_id is not None
    }


def user_id(number: int) -> str:
    """A made-up id of Clerk's form; their byte order is that of the numbers."""
    return f"user_test{number:023d}"


def user_ids(count: int, *, start: int = 0) -> list[str]:
    """`count` different made-up ids."""
    return [user_id(number) for number in range(start, start + count)]
