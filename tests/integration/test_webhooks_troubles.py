"""Events under load while what serves them is killed, restarted, held up: each has exactly one effect, none is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import aiohttp
import pytest
import yaml

from controller.cli.demo.local_postgres import LocalPostgres
from controller.core.targets import Deletion, Limits
from controller.core.users import Environment
from controller.emulator import ClerkEmulator, DeliveryFault, DeliveryFaultName, EmulatorSettings
from controller.postgres import migrate
from controller.web.webhooks import Bounds
from tests.support.databases import connected, create_tables, execute, fetch, seed_users
from tests.support.serving import OWED, count, environment_of, eventually, real_service, send_to, start
from tests.support.usersyncs import clerk as clerk_part
from tests.support.usersyncs import usersync
from tests.support.webhooks import SPEC, Sender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.serving import Program

USERS = 60
"""Who are there before; of fewer than fifty no more than five may go, whatever the limits."""
SIGN_UPS = 120
SHORT_PATH = "/api/webhooks/clerk"
COMPRESSION = 2000.0
"""Svix's eight attempts within 50 s."""


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    settings = EmulatorSettings(environment=Environment.PRODUCTION, rate_limit=None)
    async with ClerkEmulator(settings, users=USERS) as emulator:
        yield emulator


async def prepare(url: str, clerk: ClerkEmulator) -> str:
    await migrate(url)
    await seed_users(url, clerk.users)
    return url


@dataclass
class Load:
    """Users who sign up, and of whom and of those before some leave; every fourth message is sent three times."""

    clerk: ClerkEmulator
    chance: random.Random
    pause_seconds: float = 0.05
    before: tuple[str, ...] = ()
    signed_up: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    async def run(self, until: asyncio.Event | None = None) -> None:
        """Make a certain load, or go on until `until` is set."""
        self.before = tuple(self.clerk.users)
        for number in itertools.count():
            if until.is_set() if until else number == SIGN_UPS:
                return
            if number % 4 == 0:
                self.clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.DUPLICATE, copies=3))
            self.signed_up += (self.clerk.sign_up(),)
            if number % 3 == 0:
                leaver = self.chance.choice(list(self.clerk.users))
                self.left += (leaver,)
                self.clerk.delete(leaver)
            await asyncio.sleep(self.chance.uniform(0, self.pause_seconds))

    async def check(self, url: str) -> None:
        """Wait until all is received and settled, then look at what every event has done."""
        await self.clerk.webhooks.settle(120)
        last = {each.message_id: each.status for each in self.clerk.webhooks.deliveries}
        assert set(last.values()) == {200}

        async def nothing_owed() -> bool:
            # the lease of a killed worker ends by itself after half a minute, which no test needs to sit through
            await execute(url, f"UPDATE usersync.{OWED.replace('WHERE', 'SET due_at = clock_timestamp() WHERE')}")
            return await count(url, OWED) == 0

        await eventually(nothing_owed, seconds=60)
        profiles = Counter(row["user_id"] for row in await fetch(url, "SELECT user_id FROM user_progress"))
        assert profiles == Counter(self.clerk.users)
        messages = [row["message_id"] for row in await fetch(url, "SELECT message_id FROM usersync.deliveries")]
        assert sorted(messages) == sorted(set(last))
        assert await count(url, "tombstones") == await count(url, "receipts") == len(self.left)
        archived = Counter(row["user_id"] for row in await fetch(url, "SELECT user_id FROM usersync.archive"))
        assert {archived[user_id] for user_id in set(self.left) & set(self.before)} <= {7}
        assert {archived[user_id] for user_id in set(self.left) - set(self.before)} <= {0, 1}
        assert set(archived) <= set(self.left)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def manifest(clerk: ClerkEmulator, folder: Path) -> Path:
    secret = {"name": "clerk", "key": "CLERK_WEBHOOK_SECRET"}
    resource = usersync(
        clerk=clerk_part(apiUrl=clerk.url, webhookSecretRefs=[secret]),
        deletion={"limits": {"users": 1000, "percent": 100}},
    )
    path = folder / "usersync.yaml"
    path.write_text(yaml.safe_dump(resource))
    return path


async def test_killed_again_and_again_under_load_no_event_is_lost_and_none_has_two_effects(
    clerk: ClerkEmulator, database_url: str, tmp_path: Path
) -> None:
    url, chance = await prepare(database_url, clerk), random.Random(5)
    port = free_port()
    clerk.webhooks.settings = replace(
        clerk.webhooks.settings, url=f"http://127.0.0.1:{port}{SHORT_PATH}", compression=COMPRESSION
    )
    arguments = ("-f", str(manifest(clerk, tmp_path)), "--port", str(port))
    programs: list[Program] = []

    async def begin() -> None:
        programs.append(
            start(tmp_path, *arguments, environment=environment_of(clerk, url), name=f"serve-{len(programs)}")
        )
        await programs[-1].saying("serving")

    load = Load(clerk, chance, pause_seconds=0.15)
    killed_at_work = 0
    try:
        await begin()
        loading = asyncio.create_task(load.run())
        for _ in range(5):
            await asyncio.sleep(chance.uniform(0.05, 0.6))
            killed_at_work += clerk.webhooks.pending > 0
            programs[-1].kill()
            await begin()
        await loading
        await load.check(url)
    finally:
        programs[-1].kill()
    assert killed_at_work >= 3


async def test_with_the_database_killed_and_restarted_under_load_no_event_is_lost_and_none_has_two_effects(
    clerk: ClerkEmulator,
) -> None:
    chance = random.Random(6)
    with LocalPostgres() as server:
        url = server.create_database("app")
        await create_tables(url)
        await prepare(url, clerk)
        async with real_service(clerk, url, replace(SPEC, deletion=Deletion(limits=Limits(1000, 100)))):
            clerk.webhooks.settings = replace(clerk.webhooks.settings, compression=COMPRESSION)
            load = Load(clerk, chance)
            enough = asyncio.Event()
            loading = asyncio.create_task(load.run(enough))
            for _ in range(3):
                await asyncio.sleep(chance.uniform(0.3, 1.0))
                server.kill()
                server.start()
            enough.set()
            await loading
            await load.check(url)


async def test_with_the_pool_exhausted_under_load_it_is_503_in_time_and_no_event_is_lost(
    clerk: ClerkEmulator, database_url: str
) -> None:
    url = await prepare(database_url, clerk)
    spec = replace(SPEC, deletion=Deletion(limits=Limits(1000, 100)))
    async with real_service(clerk, url, spec, bounds=Bounds(answer_seconds=0.5)) as replica:
        send_to(clerk, replica.url)
        clerk.webhooks.settings = replace(clerk.webhooks.settings, compression=COMPRESSION)
        load = Load(clerk, random.Random(7))
        async with aiohttp.ClientSession(replica.url) as session, connected(url) as other, other.transaction():
            # whatever an event does, it waits for this, and more of them than there are connections
            await other.execute("LOCK TABLE usersync.deliveries IN ACCESS EXCLUSIVE MODE")
            loading = asyncio.create_task(load.run())

            async def refused() -> bool:
                return any(each.status == 503 for each in clerk.webhooks.deliveries)

            await eventually(refused)
            sender = Sender(session, clerk.webhook_secret, clerk.instance.id)
            answer = await sender.send("user.created", "user_2another")
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert not any(each.status == 200 for each in clerk.webhooks.deliveries)
        await loading
        await load.check(url)
