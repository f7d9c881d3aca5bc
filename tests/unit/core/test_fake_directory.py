"""The in-memory directory, on which the core's tests stand, keeps the contract of the real one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from controller.errors import ClerkRefused, ListingIncomplete
from tests.support.contracts.directory import MAPPING, DirectoryContract, MappedDirectoryContract
from tests.support.fakes.directory import INSTANCE, FakeDirectory, user

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from controller.core.users import Instance, UserId


@dataclass
class FakePopulation:
    directory: FakeDirectory = field(default_factory=FakeDirectory)
    instance: Instance = INSTANCE

    @property
    def accounts(self) -> FakeDirectory:
        return self.directory

    def sign_up(self, count: int, since: datetime) -> list[UserId]:
        ids = [user(number) for number in range(count)]
        self.directory.sign_up(*ids, created_at=since)
        return ids

    def delete(self, user_ids: Sequence[UserId]) -> None:
        self.directory.delete(*user_ids)

    def hide_from_filter(self, user_id: UserId) -> None:
        self.directory.hidden_from_filter.add(user_id)

    def cut_listing_short(self) -> None:
        self.directory.errors["list_users"] = ListingIncomplete("the listing ended early")

    def refuse_deletion(self) -> None:
        self.directory.errors["delete_user"] = ClerkRefused("the user cannot be deleted")

    def edit(self, user_id: UserId, updated_at: int, address: str | None, name: str | None) -> None:
        self.directory.edit(user_id, updated_at, address, name)

    def answer_oddly(self, user_id: UserId) -> None:
        self.directory.odd_look_up.add(user_id)


class TestFakeDirectory(DirectoryContract):
    @pytest.fixture
    def population(self) -> FakePopulation:
        return FakePopulation()


class TestMappedFakeDirectory(MappedDirectoryContract):
    @pytest.fixture
    def population(self) -> FakePopulation:
        population = FakePopulation()
        population.directory.mapping = MAPPING
        return population
