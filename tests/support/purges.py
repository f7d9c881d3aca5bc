"""A user with too many rows for one transaction, by bounds so low that 29 are too many, and looks at his removal."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from controller.core.targets import Target
from controller.postgres import Bounds, Database
from tests.support.databases import TABLES, fetch, rows_of, seed, seed_users, user_ids
from tests.support.fakes.clock import FakeClock
from tests.support.stores import INSTANCE, ids, proofs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controller.core.outcomes import Removal
    from controller.core.ports import Clock
    from controller.core.removals import RemovalTerms
    from controller.postgres.runs import PostgresRun

LARGE, LIVING, SMALL = ids(user_ids(3))
"""Who has too many rows, and others beside him."""
ROWS = {"user_progress": 1, "tasks": 12, "daily_checkins": 7, "moods": 9}
WITHOUT_PROFILE = {**ROWS, "user_progress": 0}
NOTHING = dict.fromkeys(TABLES, 0)
BATCHES = [5, 5, 2, 5, 2, 5, 4]
"""Rows of each transaction after the first one: of tasks, daily_checkins, moods."""
BOUNDS = Bounds(rows=20, batch=5, slice=timedelta())
"""A slice without length ends after each transaction."""


@asynccontextmanager
async def database_of(url: str, *, bounds: Bounds = BOUNDS, clock: Clock | None = None) -> AsyncIterator[Database]:
    """A database that has been inspected and pinned, by low bounds."""
    async with Database.open(url, Target(), clock or FakeClock(), bounds=bounds) as database:
        await database.inspect()
        await database.pin_instance(INSTANCE)
        yield database


async def seed_large(url: str, *, mixed_with: int = 0) -> None:
    """Give LARGE his rows, among those of two others."""
    await seed_users(url, [LIVING, SMALL])
    for table, rows in ROWS.items():
        await seed(url, table, [LIVING], rows=mixed_with)
        await seed(url, table, [LARGE], rows=rows)


async def begin(run: PostgresRun, terms: RemovalTerms) -> Removal:
    """Let a run begin with LARGE."""
    return await run.remove_users(proofs([LARGE], run.clock), terms)


async def go_on(run: PostgresRun, terms: RemovalTerms, *, times: int = 100) -> list[Removal]:
    """Go on until he is gone or left, or so many times."""
    parts: list[Removal] = []
    while len(parts) < times:
        parts.append(await run.go_on(proofs([LARGE], run.clock)[0], terms))
        if not parts[-1].users_unfinished:
            break
    return parts


async def archived(url: str, user: str = LARGE) -> dict[str, int]:
    """How many rows of each table the archive has of a user."""
    rows = await fetch(
        url, "SELECT table_name, count(*) FROM usersync.archive WHERE user_id = $1 GROUP BY table_name", user
    )
    return {**NOTHING, **{row["table_name"]: row["count"] for row in rows}}


async def archived_and_there(url: str) -> dict[str, int]:
    """Rows of LARGE, wherever they are: what never changes."""
    gone, there = await archived(url), await rows_of(url, LARGE)
    return {table: gone[table] + there[table] for table in TABLES}


async def receipts(url: str) -> list[tuple[str, bool, dict[str, int]]]:
    """Act, whether it counts, and rows of each receipt, oldest first."""
    rows: list[Any] = await fetch(url, "SELECT act, counted, rows FROM usersync.receipts ORDER BY id")
    return [(row["act"], row["counted"], json.loads(row["rows"])) for row in rows]
