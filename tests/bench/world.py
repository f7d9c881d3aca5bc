"""The world both contestants sweep: an instance of Clerk, and a database that has drifted from it.

Of N users: 1 % have no profile row, as many orphans have rows, 0.5 % have two profile rows, 5 % no row in
the three large tables; rows of one user lie scattered. With 100,000 users 1.15 million rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

TABLES = {"user_progress": 1.0, "tasks": 4.75, "daily_checkins": 2.85, "moods": 2.85}
"""Rows per user who has any."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a right sweep does."""

    missing: int
    orphaned: int
    duplicates: int


async def build(database_url: str, user_ids: list[str], *, index: bool) -> Expected:
    """Fill the database for these users of the emulator; returns what a sweep has to mend."""
    count = len(user_ids)
    orphans = [f"user_gone{number:022d}" for number in range(count // 100)]
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("CREATE TABLE owners (place int, user_id text)")
        owners = [*user_ids[count // 100 :], *orphans]
        await connection.copy_records_to_table("owners", records=list(enumerate(owners)))
        for table, per_user in TABLES.items():
            await connection.execute(_fill(table, per_user))
        await connection.execute(
            "INSERT INTO user_progress (user_id, created_at) "
            "SELECT user_id, now() FROM user_progress WHERE user_id !~ 'gone' LIMIT $1",
            count // 200,
        )
        if index:
            for table in TABLES:
                await connection.execute(f"CREATE INDEX ON {table} (user_id)")
        await connection.execute("DROP TABLE owners")
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
    return Expected(missing=count // 100, orphaned=len(orphans), duplicates=count // 200)


def _fill(table: str, per_user: float) -> str:
    """Rows in an order that has nothing to do with their owners; one in twenty owners has none of a large table."""
    owners = "TRUE" if table == "user_progress" else "place % 20 <> 0"
    rows = per_user if table == "user_progress" else per_user / 0.95
    return f"""
        CREATE TABLE {table} (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id text NOT NULL,
            note text NOT NULL DEFAULT 'as many words as such', created_at timestamptz NOT NULL DEFAULT now());
        INSERT INTO {table} (user_id, created_at)
        SELECT user_id, now() - place * interval '1 second'
        FROM owners CROSS JOIN generate_series(1, 8) AS copy
        WHERE {owners} AND copy <= floor({rows}) + (place % 100 < 100 * ({rows} - floor({rows})))::int
        ORDER BY md5(place::text || copy::text)
    """


async def mended(database_url: str) -> tuple[int, int, int]:
    """Count what is left: users without a profile row (0 if all were created), rows of orphans, duplicates."""
    connection = await asyncpg.connect(database_url)
    try:
        orphaned = 0
        for table in TABLES:
            orphaned += await connection.fetchval(f"SELECT count(*) FROM {table} WHERE user_id ~ 'gone'")
        profiles = await connection.fetchval("SELECT count(DISTINCT user_id) FROM user_progress")
        surplus = await connection.fetchval("SELECT count(*) - count(DISTINCT user_id) FROM user_progress")
    finally:
        await connection.close()
    return int(profiles), int(orphaned), int(surplus)
