"""The real command as a process, against an emulated Clerk and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BOUND = 60.0
"""Seconds within which a command must have ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The result, as `-o json` prints it."""
        found: dict[str, Any] = json.loads(self.out)
        return found


AT_ONCE = ("--yes", "--grace-period", "0s")
"""Without a person to ask, and nobody waits: for tests of everything else that decides about a deletion."""


@dataclass(frozen=True, slots=True)
class Command:
    """`usersync` with an environment; nothing of the test's own environment reaches it but PATH."""

    environ: dict[str, str]

    def without(self, name: str) -> Command:
        """The same without a variable."""
        return Command({key: value for key, value in self.environ.items() if key != name})

    def having(self, **environ: str) -> Command:
        """The same with more variables."""
        return Command(self.environ | environ)

    async def start(self, *arguments: str, **streams: Any) -> asyncio.subprocess.Process:
        """Start it."""
        pipe = asyncio.subprocess.PIPE
        streams = {"stdin": asyncio.subprocess.DEVNULL, "stdout": pipe, "stderr": pipe} | streams
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "controller.cli.main", *arguments, env=self.environ, **streams
        )

    async def __call__(self, *arguments: str, stdin: str | None = None) -> Ended:
        """Run it to its end, without a terminal."""
        process = await self.start(*arguments, **({} if stdin is None else {"stdin": asyncio.subprocess.PIPE}))
        try:
            async with asyncio.timeout(BOUND):
                out, err = await process.communicate(None if stdin is None else stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    """An instance with Clerk's higher rate limit, and no users yet."""
    async with ClerkEmulator(EmulatorSettings(environment=Environment.PRODUCTION)) as emulator:
        yield emulator


@pytest.fixture
def usersync(clerk: ClerkEmulator, database_url: str) -> Command:
    """The command, on the environment alone."""
    return Command(
        {
            "PATH": os.environ["PATH"],
            "CLERK_SECRET_KEY": clerk.secret_key,
            "CLERK_API_URL": clerk.url,
            "DATABASE_URL": database_url,
            "USERSYNC_ALLOW_INSECURE_CLERK_URL": "1",
        }
    )
