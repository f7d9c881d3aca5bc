"""The naive way, as the usual script does it: offset pages, every row kept in memory, a statement per user.

``python -m tests.bench.naive CLERK_URL KEY DATABASE_URL [ORDER]`` prints one line of JSON with its phases in seconds.
Only the first `SAMPLE` users of each kind are mended where it takes too long; the time is scaled up then, and
`extrapolated` says so.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import aiohttp
import asyncpg

from tests.bench.measuring import Stopwatch, peak_memory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAGE = 500
ROWS_PAGE = 1000
SAMPLE = 100
TABLES = ("user_progress", "tasks", "daily_checkins", "moods")

Row = dict[str, Any]
Connection: TypeAlias = asyncpg.Connection
Work = TypeVar("Work")


async def list_users(url: str, key: str) -> list[Row]:
    """Every user object, page after page, by offset."""
    users: list[Row] = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        while True:
            async with session.get(f"{url}/v1/users", params={"limit": PAGE, "offset": len(users)}) as answer:
                page = json.loads(await answer.read())
            users += page
            if len(page) < PAGE:
                return users


async def read_table(connection: Connection, table: str, order: str) -> list[Row]:
    """Every row, a page at a time as an HTTP interface would hand them out."""
    rows: list[Row] = []
    while True:
        page = await connection.fetch(f"SELECT * FROM {table} {order} LIMIT {ROWS_PAGE} OFFSET {len(rows)}")
        rows += [dict(row) for row in page]
        if len(page) < ROWS_PAGE:
            return rows


async def main(url: str, key: str, database_url: str, order: str = "ORDER BY id") -> None:
    """Do it and print the figures; pages without an order skip rows beside a writer, but come faster."""
    watch = Stopwatch()
    users = {user["id"] for user in await list_users(url, key)}
    watch.lap("listing")
    connection = await asyncpg.connect(database_url)
    tables = {table: await read_table(connection, table, order) for table in TABLES}
    owners = {row["user_id"] for rows in tables.values() for row in rows}
    profiles: dict[str, list[Row]] = {}
    for row in tables["user_progress"]:
        profiles.setdefault(row["user_id"], []).append(row)
    missing = [user for user in users if user not in profiles]
    orphans = [owner for owner in owners if owner not in users]
    duplicates = [rows for rows in profiles.values() if len(rows) > 1]
    watch.lap("diff")
    apply = await _timed(_create, connection, missing)
    apply += await _timed(_remove, connection, orphans)
    apply += await _timed(_reduce, connection, duplicates)
    await connection.close()
    figures = {**watch.laps, "apply": apply, "peak_mib": peak_memory(), "extrapolated": len(orphans) > SAMPLE}
    print(json.dumps({**figures, "missing": len(missing), "orphaned": len(orphans), "duplicates": len(duplicates)}))


async def _timed(
    mend: Callable[[Connection, Work], Awaitable[None]], connection: Connection, work: list[Work]
) -> float:
    """Return the seconds that all of `work` takes, from the first `SAMPLE` of it."""
    started = time.perf_counter()
    for item in work[:SAMPLE]:
        await mend(connection, item)
    return (time.perf_counter() - started) * len(work) / max(min(len(work), SAMPLE), 1)


async def _create(connection: Connection, user: str) -> None:
    if await connection.fetchval("SELECT 1 FROM user_progress WHERE user_id = $1", user) is None:
        await connection.execute("INSERT INTO user_progress (user_id) VALUES ($1)", user)


async def _remove(connection: Connection, user: str) -> None:
    for table in TABLES:
        await connection.execute(f"DELETE FROM {table} WHERE user_id = $1", user)


async def _reduce(connection: Connection, rows: list[Row]) -> None:
    for row in sorted(rows, key=lambda each: each["created_at"])[1:]:
        await connection.execute("DELETE FROM user_progress WHERE id = $1", row["id"])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
