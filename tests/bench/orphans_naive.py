"""The naive way to archive and remove: for each user and table, copy the rows to another table and delete them.

``python -m tests.bench.orphans_naive DATABASE_URL USERS ORPHANS`` prints one line of JSON. It is told who the orphans
are, asks nobody again, and writes neither tombstone nor receipt. It stops after a minute; `measured` says how many
users it came to, and the time of all is scaled up from theirs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import asyncpg

from tests.bench.measuring import peak_memory
from tests.bench.population import TABLES, Population

BUDGET = 60.0
"""Seconds."""


async def main(database_url: str, population: Population) -> None:
    """Do it and print the figures."""
    connection = await asyncpg.connect(database_url)
    for table in TABLES:
        await connection.execute(f"CREATE TABLE archived_{table} (LIKE {table})")
    measured = rows = 0
    longest = 0.0
    began = time.perf_counter()
    for user in population.gone():
        for table in TABLES:
            started = time.perf_counter()
            rows += await _remove(connection, table, user)
            longest = max(longest, time.perf_counter() - started)
        measured += 1
        if time.perf_counter() - began > BUDGET:
            break
    took = time.perf_counter() - began
    await connection.close()
    removal = took * population.orphans / measured
    figures = {"removal": removal, "longest": longest, "rows_per_s": rows / took, "peak_mib": peak_memory()}
    print(json.dumps({**figures, "measured": measured, "rows": rows}))


async def _remove(connection: asyncpg.Connection, table: str, user: str) -> int:
    async with connection.transaction():
        await connection.execute(f"INSERT INTO archived_{table} SELECT * FROM {table} WHERE user_id = $1", user)
        status: str = await connection.execute(f"DELETE FROM {table} WHERE user_id = $1", user)
    return int(status.rpartition(" ")[2])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Population(int(sys.argv[2]), int(sys.argv[3]))))
