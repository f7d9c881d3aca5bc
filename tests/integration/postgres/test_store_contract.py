"""PostgreSQL keeps the contract that the fake of the unit tests keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from controller.core.targets import Target
from controller.postgres import Bounds, Database
from tests.support.contracts.leaving import LargeLeavingContract, LeavingContract
from tests.support.contracts.mapping import MAPPED, MappedInboxContract, MappedRunContract, events
from tests.support.contracts.store import (
    BITE,
    BOUND,
    LABEL,
    BusyContract,
    InboxContract,
    LargeRemovalContract,
    StoreContract,
)
from tests.support.databases import connected, create_tables, execute, fetch, put_clock
from tests.support.fakes.clock import START, FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from controller.core.users import UserId

__all__ = ["events"]


@dataclass
class PostgresPremises:
    """A database of the default target."""

    url: str
    store: Database
    inbox: Database
    clock: FakeClock = field(default_factory=FakeClock)
    ahead: timedelta = field(default_factory=timedelta)

    async def add_row(self, table: str, user_id: str | None, created_at: datetime | None = None) -> None:
        async with connected(self.url) as connection:
            await connection.execute(f"INSERT INTO {table} (user_id, created_at) VALUES ($1, $2)", user_id, created_at)

    async def rows(self, table: str) -> list[tuple[Any, Any]]:
        found = await fetch(self.url, f"SELECT user_id, created_at FROM {table}")
        return sorted(map(tuple, found), key=lambda row: (row[0] or "", row[1] or START))

    async def hold(self, user_id: UserId) -> None:
        await execute(
            self.url,
            "CREATE TABLE invoices (mood uuid REFERENCES moods)",
            f"INSERT INTO invoices SELECT id FROM moods WHERE user_id = '{user_id}'",
        )

    async def let_pass(self, time: timedelta) -> None:
        self.clock.advance(time)
        self.ahead += time
        await put_clock(self.url, self.ahead)

    def elapsed(self) -> float:
        return self.clock.elapsed()

    async def values(self, user_id: UserId) -> list[tuple[Any, ...]]:
        found = await fetch(self.url, "SELECT email, plan FROM user_progress WHERE user_id = $1", user_id)
        return [tuple(row) for row in found]

    async def set_values(self, user_id: UserId, *values: Any) -> None:
        async with connected(self.url) as connection:
            await connection.execute(
                "UPDATE user_progress SET email = $2, plan = $3 WHERE user_id = $1", user_id, *values
            )

    async def take_rows(self, table: str, user_id: UserId) -> None:
        await execute(self.url, f"DELETE FROM {table} WHERE user_id = '{user_id}'")


@pytest.fixture(params=["indexed", "no-index"])
async def premises(empty_database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[PostgresPremises]:
    await create_tables(empty_database_url, index=request.param == "indexed")
    clock = FakeClock()
    async with Database.open(empty_database_url, Target(), clock) as database:
        await database.inspect()
        yield PostgresPremises(empty_database_url, database, database, clock)


@pytest.fixture(params=["indexed", "no-index"])
async def mapped(empty_database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[PostgresPremises]:
    await create_tables(empty_database_url, index=request.param == "indexed")
    await execute(empty_database_url, "ALTER TABLE user_progress ADD email text, ADD plan varchar(20)")
    clock = FakeClock()
    async with Database.open(empty_database_url, MAPPED, clock) as database:
        await database.inspect()
        yield PostgresPremises(empty_database_url, database, database, clock)


class TestPostgresStore(StoreContract):
    """Held by the inherited tests."""


class TestPostgresInbox(InboxContract):
    """Held by the inherited tests."""


class TestLeavingPostgres(LeavingContract):
    """Held by the inherited tests."""


class TestLargeRemovalOfPostgres(LargeRemovalContract, LargeLeavingContract):
    """Held by the inherited tests."""

    @pytest.fixture
    async def premises(self, database_url: str) -> AsyncIterator[PostgresPremises]:
        clock, bounds = FakeClock(), Bounds(BOUND, BITE, timedelta())
        async with Database.open(database_url, Target(), clock, bounds=bounds) as database:
            await database.inspect()
            yield PostgresPremises(database_url, database, database, clock)


class TestBusyPostgres(BusyContract):
    """Held by the inherited tests."""

    @pytest.fixture
    async def premises(self, database_url: str) -> AsyncIterator[PostgresPremises]:
        async with Database.open(database_url, Target(), FakeClock()) as database:
            await database.inspect()
            async with database.begin_run(LABEL):
                yield PostgresPremises(database_url, database, database)


class TestMappedInboxOfPostgres(MappedInboxContract):
    """Held by the inherited tests."""

    @pytest.fixture
    def premises(self, mapped: PostgresPremises) -> PostgresPremises:
        return mapped


class TestMappedRunOfPostgres(MappedRunContract):
    """Held by the inherited tests."""

    @pytest.fixture
    def premises(self, mapped: PostgresPremises) -> PostgresPremises:
        return mapped
