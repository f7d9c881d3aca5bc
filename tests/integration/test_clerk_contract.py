"""The real client over HTTP keeps the contract that the fake keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controller.emulator import ClerkEmulator, EmulatorSettings
from tests.support.clerks import EmulatedPopulation, clerk_of
from tests.support.contracts.directory import MAPPING, DirectoryContract, MappedDirectoryContract

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class TestClerk(DirectoryContract):
    @pytest.fixture
    async def population(self) -> AsyncGenerator[EmulatedPopulation, None]:
        async with ClerkEmulator(EmulatorSettings(rate_limit=None)) as emulator, clerk_of(emulator) as clerk:
            yield EmulatedPopulation(clerk, emulator)


class TestMappedClerk(MappedDirectoryContract):
    @pytest.fixture
    async def population(self) -> AsyncGenerator[EmulatedPopulation, None]:
        settings = EmulatorSettings(rate_limit=None)
        async with ClerkEmulator(settings) as emulator, clerk_of(emulator, mapping=MAPPING) as clerk:
            yield EmulatedPopulation(clerk, emulator)
