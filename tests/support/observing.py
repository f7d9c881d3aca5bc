"""An onlooker for tests that kill: does anybody ever see a user's rows gone from one table and present in another?"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.databases import TABLES, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg


@dataclass
class Observer:
    """What was seen in looks with one snapshot over all tables each, as a reader in REPEATABLE READ has it.

    `halves`: users with rows in some tables and not in all; `users`: those with rows at the last look.
    """

    halves: list[str] = field(default_factory=list)
    looks: int = 0
    users: int = 0

    async def watch(self, url: str) -> None:
        """Look again and again, until cancelled."""
        async with connected(url) as connection:
            while True:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    found = [
                        {row["user_id"] for row in await connection.fetch(f'SELECT user_id FROM "{table}"')}
                        for table in TABLES
                    ]
                self.halves += set().union(*found) - set(found[0]).intersection(*found)
                self.users = len(found[0])
                self.looks += 1

    async def looked_again(self, times: int = 2) -> None:
        """Wait for looks that began after this call."""
        wanted = self.looks + times
        while self.looks < wanted:  # noqa: ASYNC110 - each look takes a round trip to the server anyway
            await asyncio.sleep(0.005)


@asynccontextmanager
async def observing(url: str) -> AsyncIterator[Observer]:
    """Look on while the block lasts; every user must have rows in all tables when it begins."""
    observer = Observer()
    task = asyncio.create_task(observer.watch(url))
    try:
        async with asyncio.timeout(30):
            await observer.looked_again()
        yield observer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled(), task.exception()


@asynccontextmanager
async def row_held(url: str, table: str, user_id: str) -> AsyncIterator[asyncpg.Connection]:
    """Lock a user's rows in one table, so that a removal of that user comes as far as this table and waits.

    Yields who holds them, for `databases.until_waited_for`.
    """
    async with connected(url) as connection, connection.transaction():
        assert await connection.fetch(f'SELECT FROM "{table}" WHERE user_id = $1 FOR UPDATE', user_id)
        yield connection


STALE_LOCK = "UPDATE usersync.locks SET heartbeat_at = heartbeat_at - interval '10 minutes'"
"""For `databases.execute`: as a minute without a heartbeat would leave the lock of a killed run."""
