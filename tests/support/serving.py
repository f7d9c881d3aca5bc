"""`usersync serve` on a real database and the emulator of Clerk: in this process, or as programs of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from controller.core.targets import ClerkSource, Spec
from controller.runtime import open_inbox
from controller.settings import ClerkURLs, Credentials
from controller.web.endpoints import Workshop
from controller.web.keyring import Declaration, Rhythm
from controller.web.metrics import Metrics
from controller.web.resources import Resources
from controller.web.worker import Pace
from tests.support.controlplane.processes import end, spawn
from tests.support.databases import TABLES, fetch_value
from tests.support.webhooks import PATH, SPEC, serving

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from controller.emulator import ClerkEmulator
    from controller.web.webhooks import Bounds

BOUND_SECONDS = 30.0
"""For what takes a second or less on a quiet machine."""
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Replica:
    """A service in this process; `apply` declares its resource anew, as a change of the UserSync does."""

    url: str
    metrics: Metrics
    resources: Resources
    credentials: Credentials
    clerk: ClerkEmulator

    def apply(self, spec: Spec = SPEC) -> None:
        credentials = self.credentials

        async def read() -> Credentials:
            return credentials

        spec = replace(spec, clerk=ClerkSource(self.clerk.url))
        self.resources.apply(Declaration(spec, None, read))

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def real_service(
    clerk: ClerkEmulator,
    database_url: str,
    spec: Spec = SPEC,
    *,
    pace: Pace | None = None,
    bounds: Bounds | None = None,
) -> AsyncIterator[Replica]:
    """Serve `spec`; Clerk's webhooks go there from now on."""
    opener = partial(open_inbox, urls=ClerkURLs(allow_insecure=True))
    metrics = Metrics()
    resources = Resources(Workshop(opener, metrics, Rhythm(), pace or Pace()))
    credentials = Credentials(clerk.secret_key, database_url, (clerk.webhook_secret,))
    async with serving(resources, metrics, bounds) as url:
        replica = Replica(url, metrics, resources, credentials, clerk)
        replica.apply(spec)
        send_to(clerk, url)
        yield replica


def send_to(clerk: ClerkEmulator, url: str, path: str = PATH) -> None:
    """Let Clerk's webhooks go to a service, retried a thousand times as fast as Svix does."""
    clerk.webhooks.settings = replace(clerk.webhooks.settings, url=f"{url}{path}", compression=1000.0)


async def eventually(condition: Callable[[], Awaitable[object]], *, seconds: float = BOUND_SECONDS) -> None:
    """Wait until the condition, which asks the outside, holds.

    Raises:
        TimeoutError: it does not, within the bound.
    """
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what is outside has no event for it
            await asyncio.sleep(0.02)


async def rows_in_all(url: str, user_id: str) -> tuple[int, ...]:
    """Rows of a user in each table, in one statement, so in one snapshot."""
    counts = ", ".join(f"(SELECT count(*) FROM {table} WHERE user_id = $1)" for table in TABLES)
    counted: list[int] = await fetch_value(url, f"SELECT ARRAY[{counts}]", user_id)
    return tuple(counted)


OWED = "claims WHERE kind <> 'second_sweep'"
"""The claims whose effect is still owed; a second look some time after a removal is not."""


async def count(url: str, table: str) -> int:
    """Rows of one of our own tables, such as `claims`."""
    rows: int = await fetch_value(url, f"SELECT count(*) FROM usersync.{table}")
    return rows


@dataclass
class Program:
    """`usersync serve` as a process."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self, event: str) -> Iterator[dict[str, Any]]:
        """Lines of the log about one event."""
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                record = json.loads(line)
                if record.get("event") == event:
                    yield record

    async def saying(self, event: str) -> dict[str, Any]:
        """Wait for the first such line."""

        async def has() -> bool:
            if self.process.poll() is not None:
                message = f"it ended with {self.process.returncode}:\n{self.log.read_text()}"
                raise AssertionError(message)
            return any(self.said(event))

        await eventually(has)
        return next(self.said(event))

    async def url(self) -> str:
        return f"http://127.0.0.1:{(await self.saying('webhooks_listening'))['port']}"

    async def ops_url(self) -> str:
        return f"http://127.0.0.1:{(await self.saying('ops_listening'))['port']}"

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        return end(self.process)


def start(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, name: str = "serve") -> Program:
    """Start `usersync serve` on free ports of 127.0.0.1."""
    log = folder / f"{name}.log"
    argv = [sys.executable, "-m", "controller.cli.main", "serve", "--host", "127.0.0.1", "--port", "0"]
    argv += ["--ops-host", "127.0.0.1", "--ops-port", "0", "--log-format", "json", "--allow-insecure-clerk-url"]
    env = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment or {})
    return Program(spawn([*argv, *arguments], log=log, env=env, cwd=REPOSITORY), log)


def environment_of(clerk: ClerkEmulator, database_url: str) -> dict[str, str]:
    """What `usersync serve` needs where there is neither a cluster nor a manifest."""
    return {
        "CLERK_SECRET_KEY": clerk.secret_key,
        "CLERK_WEBHOOK_SECRET": clerk.webhook_secret,
        "CLERK_API_URL": clerk.url,
        "DATABASE_URL": database_url,
    }


async def status_of(url: str) -> int:
    """What a GET answers; 0 where nobody listens."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status
    except aiohttp.ClientConnectionError:
        return 0
