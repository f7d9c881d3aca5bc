"""The fake store keeps the contract of the real one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.contracts.leaving import LargeLeavingContract, LeavingContract
from tests.support.contracts.mapping import MAPPED, MappedInboxContract, MappedRunContract, events
from tests.support.contracts.store import BITE, BOUND, BusyContract, InboxContract, LargeRemovalContract, StoreContract
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.store import SOME_TIME, FakeStore

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from controller.core.users import UserId

__all__ = ["events"]


@dataclass
class FakePremises:
    """The fake as both store and inbox."""

    clock: FakeClock = field(default_factory=FakeClock)
    store: FakeStore = field(init=False)
    inbox: FakeStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = self.inbox = FakeStore(self.clock)

    async def add_row(self, table: str, user_id: str | None, created_at: datetime | None = None) -> None:
        self.store.add_row(table, user_id, created_at)

    async def rows(self, table: str) -> list[tuple[str | None, datetime | None]]:
        found = [(row.user_id, row.created_at) for row in self.store.tables[table]]
        return sorted(found, key=lambda row: (row[0] or "", row[1] or SOME_TIME))

    async def hold(self, user_id: UserId) -> None:
        self.store.unremovable.add(user_id)

    async def let_pass(self, time: timedelta) -> None:
        self.clock.advance(time)

    def elapsed(self) -> float:
        return self.clock.elapsed()

    async def values(self, user_id: UserId) -> list[tuple[Any, ...]]:
        return [row.values for row in self.store.tables["user_progress"] if row.user_id == user_id]

    async def set_values(self, user_id: UserId, *values: Any) -> None:
        self.store.set_values(user_id, values)

    async def take_rows(self, table: str, user_id: UserId) -> None:
        self.store.tables[table] = [row for row in self.store.tables[table] if row.user_id != user_id]


@pytest.fixture
def premises() -> FakePremises:
    return FakePremises()


class TestFakeStore(StoreContract):
    """Held by the inherited tests."""


class TestFakeInbox(InboxContract):
    """Held by the inherited tests."""


class TestLeavingTheFake(LeavingContract):
    """Held by the inherited tests."""


class TestLargeRemovalOfTheFake(LargeRemovalContract, LargeLeavingContract):
    """Held by the inherited tests."""

    @pytest.fixture
    def premises(self) -> FakePremises:
        premises = FakePremises()
        premises.store.bound, premises.store.bite = BOUND, BITE
        return premises


class TestBusyFakeStore(BusyContract):
    """Held by the inherited tests."""

    @pytest.fixture
    def premises(self) -> FakePremises:
        premises = FakePremises()
        premises.store.busy = True
        return premises


@pytest.fixture
def mapped() -> FakePremises:
    premises = FakePremises()
    premises.store = premises.inbox = FakeStore(premises.clock, MAPPED)
    return premises


class TestMappedInboxOfTheFake(MappedInboxContract):
    """Held by the inherited tests."""

    @pytest.fixture
    def premises(self, mapped: FakePremises) -> FakePremises:
        return mapped


class TestMappedRunOfTheFake(MappedRunContract):
    """Held by the inherited tests."""

    @pytest.fixture
    def premises(self, mapped: FakePremises) -> FakePremises:
        return mapped
