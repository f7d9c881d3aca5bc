"""The world of `tests.bench.orphans`: a base of many users, of whom some are gone from Clerk.

Made by SQL alone. A user's rows lie as far apart as they can: those of everybody else are between two of his.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import asyncpg

TABLES = {"user_progress": 1.0, "tasks": 4.75, "daily_checkins": 2.85, "moods": 2.85}
"""Rows per user, on average; profile table first."""
AMONG = 0.84
"""Orphans are spread over this part of the users, those with more rows: 11.9 of an orphan on average."""


@dataclass(frozen=True, slots=True)
class Population:
    """`users` of the database, `orphans` of them unknown to Clerk."""

    users: int
    orphans: int

    @property
    def step(self) -> int:
        """From one orphan to the next."""
        return max(int(self.users * AMONG) // self.orphans, 1)

    def is_gone(self, place: int) -> bool:
        """Whether the user of this number is an orphan."""
        return place % self.step == 0 and place // self.step < self.orphans

    def gone(self) -> list[str]:
        """The ids of the orphans."""
        return [user_id(number * self.step) for number in range(self.orphans)]


def user_id(place: int) -> str:
    """Of Clerk's form and length; the order of the ids says nothing of that of the rows."""
    return "user_" + hashlib.md5(str(place).encode(), usedforsecurity=False).hexdigest()[:27]


async def build(database_url: str, users: int) -> None:
    """Fill a database, without an index on user_id."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SET maintenance_work_mem = '512MB'")
        for table, per_user in TABLES.items():
            await connection.execute(f"""
                CREATE TABLE {table} (
                    id uuid NOT NULL DEFAULT gen_random_uuid(), user_id text NOT NULL,
                    note text NOT NULL DEFAULT 'as many words as such', created_at timestamptz NOT NULL DEFAULT now());
                INSERT INTO {table} (user_id)
                SELECT 'user_' || left(md5((number % {users})::text), 27)
                FROM generate_series(0, {int(users * per_user) - 1}) AS number;
                ALTER TABLE {table} ADD PRIMARY KEY (id)
            """)
        await settle(connection)
    finally:
        await connection.close()


async def add_indexes(database_url: str) -> None:
    """Create the index on user_id of each table."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SET maintenance_work_mem = '512MB'")
        for table in TABLES:
            await connection.execute(f"CREATE INDEX ON {table} (user_id)")
        await settle(connection)
    finally:
        await connection.close()


async def settle(connection: asyncpg.Connection) -> None:
    """Leave nothing that the server would do in the background while somebody is measured."""
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")


async def rows_of(database_url: str, user_ids: list[str]) -> tuple[int, int]:
    """How many rows these users have in the four tables, and how many there are in all."""
    connection = await asyncpg.connect(database_url)
    try:
        own = total = 0
        for table in TABLES:
            own += await connection.fetchval(f"SELECT count(*) FROM {table} WHERE user_id = ANY($1)", user_ids)
            total += await connection.fetchval(f"SELECT count(*) FROM {table}")
    finally:
        await connection.close()
    return own, total


async def left_behind(database_url: str) -> tuple[int, int, int]:
    """How many rows usersync archived, and how many tombstones and receipts it wrote."""
    connection = await asyncpg.connect(database_url)
    try:
        archived = await connection.fetchval("SELECT count(*) FROM usersync.archive")
        tombstones = await connection.fetchval("SELECT count(*) FROM usersync.tombstones")
        receipts = await connection.fetchval("SELECT count(*) FROM usersync.receipts WHERE act = 'archived'")
    finally:
        await connection.close()
    return int(archived), int(tombstones), int(receipts)
