"""`usersync serve` is killed at each point of a user's own deletion; begun anew, it finishes it once.

The points are those of docs/security.md. Clerk's own event is not sent here: it would finish the work too.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import pytest
import yaml

from controller.emulator import ClerkEmulator, Endpoint, Fault, FaultName
from tests.support.databases import connected, execute, fetch, seed, until_waited_for, users_with_rows
from tests.support.observing import observing, row_held
from tests.support.serving import OWED, Program, count, environment_of, eventually, rows_in_all, start
from tests.support.sessions import ORIGIN, ask, bearer
from tests.support.usersyncs import clerk as clerk_part
from tests.support.usersyncs import usersync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.webhooks import Answer

WHOLE = (1, 2, 2, 2)
LOCK_OF_THE_CHAIN = "SELECT pg_advisory_xact_lock(hashtextextended('usersync.receipt_chain/public', 0))"
LOCK_OF_THE_USER = "SELECT pg_advisory_xact_lock(hashtextextended('public/' || $1::text, 1970694498))"
LEASE_OVER = "UPDATE usersync.claims SET due_at = usersync.clock() WHERE kind = 'own_request'"
"""As half a minute would leave what the killed process had taken."""


@dataclass
class World:
    """One user who asks, the others who stay, and the programs that serve them."""

    clerk: ClerkEmulator
    url: str
    folder: Path
    programs: list[Program] = field(default_factory=list)
    asking: list[asyncio.Task[Answer]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.user, *self.others = list(self.clerk.users)

    @property
    def token(self) -> str:
        """A token made now: it lives a minute, and programs take their time to start."""
        return self.clerk.sessions.token(self.user, ORIGIN)

    async def start(self) -> Program:
        """A program that serves."""
        manifest = self.folder / "usersync.yaml"
        reference = {"name": "clerk", "key": "CLERK_WEBHOOK_SECRET"}
        clerk = clerk_part(apiUrl=self.clerk.url, webhookSecretRefs=[reference])
        deletion = {"enabled": True, "authorizedParties": [ORIGIN], "issuer": self.clerk.sessions.issuer}
        manifest.write_text(yaml.safe_dump(usersync("production", clerk=clerk, accountDeletion=deletion)))
        environment = environment_of(self.clerk, self.url)
        name = f"serve-{len(self.programs)}"
        program = start(self.folder, "-f", str(manifest), environment=environment, name=name)
        self.programs.append(program)
        await program.saying("serving")
        return program

    async def begin_to_ask(self, program: Program) -> None:
        """Ask, without waiting for the answer that a kill may take away."""
        base = await program.url()
        self.asking.append(asyncio.create_task(ask(base, bearer(self.token))))

    async def finished_once(self, program: Program) -> None:
        """Everything is done, once, and the user can still be told so."""

        async def done() -> bool:
            return await count(self.url, OWED) == 0 and await count(self.url, "receipts WHERE act = 'erased'") == 1

        await eventually(done)
        assert await users_with_rows(self.url) == set(self.others) == set(self.clerk.users)
        assert (await count(self.url, "archive"), await count(self.url, "unfinished")) == (0, 0)
        answer = await ask(await program.url(), bearer(self.token))
        assert (answer.status, answer.content["rows"]["user_progress"]) == (200, 1)
        receipts = await fetch(self.url, "SELECT requested_by FROM usersync.receipts WHERE act = 'erased'")
        assert [row["requested_by"] for row in receipts] == ["own request"]


@pytest.fixture
def world(clerk: ClerkEmulator, url: str, tmp_path: Path) -> Iterator[World]:
    world = World(clerk, url, tmp_path)
    yield world
    for program in world.programs:
        program.end()


@asynccontextmanager
async def killed(world: World) -> AsyncIterator[Program]:
    """A program that is asked, and killed when the block ends."""
    program = await world.start()
    await world.begin_to_ask(program)
    yield program
    program.kill()
    for each in world.asking:
        with pytest.raises(aiohttp.ClientError):
            await each


async def test_killed_before_the_intent_is_stored_nothing_has_happened(world: World) -> None:
    async with connected(world.url) as connection, connection.transaction():
        await connection.execute(LOCK_OF_THE_USER, world.user)
        async with killed(world):
            await until_waited_for(connection)
    assert await count(world.url, "claims") == 0
    assert world.user in world.clerk.users
    assert await rows_in_all(world.url, world.user) == WHOLE
    second = await world.start()
    answer = await ask(await second.url(), bearer(world.token))
    assert answer.status == 200
    await world.finished_once(second)


async def test_killed_when_the_intent_is_stored_and_clerk_has_not_acted(world: World) -> None:
    number = world.clerk.switch_on(Fault(FaultName.TIMEOUT, endpoint=Endpoint.DELETE))
    async with killed(world):
        await eventually(lambda: asked(world, Endpoint.DELETE))
        assert world.user in world.clerk.users
    assert await rows_in_all(world.url, world.user) == WHOLE
    world.clerk.faults.switch_off(number)
    await execute(world.url, LEASE_OVER)
    await world.finished_once(await world.start())


async def test_killed_when_clerk_has_deleted_him_and_not_said_so(world: World) -> None:
    number = world.clerk.switch_on(Fault(FaultName.UNANSWERED, endpoint=Endpoint.DELETE))
    async with killed(world):
        await eventually(lambda: gone_from_clerk(world))
    assert await rows_in_all(world.url, world.user) == WHOLE
    world.clerk.faults.switch_off(number)
    await execute(world.url, LEASE_OVER)
    await world.finished_once(await world.start())


async def test_killed_when_clerk_has_said_so_and_the_proof_is_owed(world: World) -> None:
    number = world.clerk.switch_on(Fault(FaultName.TIMEOUT, endpoint=Endpoint.LOOKUP))
    async with killed(world):
        await eventually(lambda: asked(world, Endpoint.LOOKUP))
    assert world.user not in world.clerk.users
    assert await rows_in_all(world.url, world.user) == WHOLE
    world.clerk.faults.switch_off(number)
    await execute(world.url, LEASE_OVER)
    await world.finished_once(await world.start())


async def test_killed_in_the_middle_of_the_removal_nobody_sees_half_of_him(world: World) -> None:
    async with observing(world.url) as observer:
        async with row_held(world.url, "daily_checkins", world.user) as holder, killed(world):
            await until_waited_for(holder)
        await observer.looked_again()
        assert await rows_in_all(world.url, world.user) == WHOLE
        await execute(world.url, LEASE_OVER)
        await world.finished_once(await world.start())
        await observer.looked_again()
    assert observer.halves == []


async def test_killed_after_the_removal_and_before_the_answer(world: World) -> None:
    async with connected(world.url) as connection, connection.transaction():
        await connection.execute(LOCK_OF_THE_CHAIN)
        async with killed(world):
            await until_waited_for(connection)
    assert await rows_in_all(world.url, world.user) == (0, 0, 0, 0)
    await world.finished_once(await world.start())


async def test_killed_between_two_batches_of_very_many_rows_any_other_goes_on(world: World) -> None:
    await seed(world.url, "tasks", [world.user], rows=55_000)
    second = await world.start()
    async with row_held(world.url, "moods", world.user) as holder:
        first = await world.start()
        began = asyncio.get_running_loop().time()
        answer = await ask(await first.url(), bearer(world.token))
        assert (answer.status, answer.content["status"]) == (202, "pending")
        assert asyncio.get_running_loop().time() - began < 3
        await until_waited_for(holder)
        first.kill()
    assert (await count(world.url, "unfinished"), await count(world.url, "tombstones")) == (1, 1)
    await execute(world.url, LEASE_OVER)
    await world.finished_once(second)


async def test_any_replica_takes_over_what_a_killed_one_has_begun(world: World) -> None:
    number = world.clerk.switch_on(Fault(FaultName.UNANSWERED, endpoint=Endpoint.DELETE))
    second = await world.start()
    async with killed(world):
        await eventually(lambda: gone_from_clerk(world))
    world.clerk.faults.switch_off(number)
    await execute(world.url, LEASE_OVER)
    await world.finished_once(second)


async def asked(world: World, endpoint: Endpoint) -> bool:
    return world.clerk.requests.by_endpoint[endpoint] > 0


async def gone_from_clerk(world: World) -> bool:
    return world.user not in world.clerk.users
