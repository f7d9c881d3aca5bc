"""A run whose process stands still (a laptop's lid, a frozen node, a debugger) while another one takes over."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from controller.emulator import Endpoint, Fault, FaultName
from tests.support.databases import TABLES, connected, execute, fetch, fetch_value, seed_users, until, users_with_rows
from tests.support.emulators import until as until_here
from tests.support.usersyncs import clerk as clerk_section
from tests.support.usersyncs import usersync as user_sync

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from pathlib import Path

    from controller.emulator import ClerkEmulator
    from tests.integration.cli.conftest import Command

USERS, GONE = 20, 4
OURS = ("archive", "tombstones", "receipts", "suspects", "deliveries", "claims", "runs", "locks")
AGED = "UPDATE usersync.locks SET heartbeat_at = heartbeat_at - interval '10 minutes'"
CLOSED = "SELECT bool_and(state = 'failed') FROM usersync.runs WHERE reason = 'Interrupted'"


@pytest.fixture
def manifest(clerk: ClerkEmulator, tmp_path: Path) -> str:
    """A UserSync that may remove everybody, at once."""
    path = tmp_path / "usersync.yaml"
    spec: dict[str, Any] = {
        "clerk": clerk_section(apiUrl=clerk.url, rateLimitShare=100),
        "deletion": {"gracePeriod": "0s", "limits": {"users": 10_000, "percent": 100}},
    }
    path.write_text(yaml.safe_dump(user_sync(**spec)))
    return str(path)


@pytest.fixture
async def gone(usersync: Command, clerk: ClerkEmulator, database_url: str) -> list[str]:
    """Some of the users, with rows, deleted in Clerk; the target is pinned."""
    users = clerk.add_users(USERS)
    await seed_users(database_url, users)
    assert (await usersync("analyze")).code == 0
    return clerk.delete_many(users[:GONE])


@asynccontextmanager
async def started(usersync: Command, *arguments: str) -> AsyncIterator[Process]:
    process = await usersync.start(*arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def pause(process: Process) -> None:
    process.send_signal(signal.SIGSTOP)
    await until_here(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)


async def wake(process: Process) -> tuple[int, str]:
    """Let it go on to its end; the exit code and what it said."""
    process.send_signal(signal.SIGCONT)
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


async def everything(url: str) -> dict[str, list[str]]:
    """Every row of the application and of ours, whichever of our tables there are."""
    async with connected(url) as connection:
        ours = [
            f"usersync.{name}" for name in OURS if await connection.fetchval(f"SELECT to_regclass('usersync.{name}')")
        ]
        return {
            table: sorted(row["row"] for row in await connection.fetch(f"SELECT t::text AS row FROM {table} AS t"))
            for table in (*TABLES, *ours)
        }


async def test_a_run_that_slept_through_its_take_over_writes_nothing_and_says_so(
    usersync: Command, clerk: ClerkEmulator, database_url: str, manifest: str, gone: list[str]
) -> None:
    living = set(clerk.users)
    number = clerk.switch_on(Fault(FaultName.SLOW, endpoint=Endpoint.LOOKUP, seconds=1.0))
    async with started(usersync, "full-sync", "--yes", "-f", manifest) as sleeper:
        # It has listed and observed, and asks for the proofs of what it is going to remove.
        await until_here(lambda: clerk.requests.by_endpoint[Endpoint.LOOKUP], seconds=30)
        await pause(sleeper)
        clerk.faults.switch_off(number)
        await execute(database_url, AGED)
        ended = await usersync("full-sync", "--yes", "-f", manifest)
        assert ended.code == 0, ended.err
        assert await users_with_rows(database_url) == living
        # What the sleeper still believes to be in front of it.
        await seed_users(database_url, gone)
        before = await everything(database_url)
        code, said = await wake(sleeper)
    assert (code, said.count("\n")) == (1, 1), said
    assert "taken over by another one" in said
    assert await everything(database_url) == before
    states = [row["state"] for row in await fetch(database_url, "SELECT state FROM usersync.runs ORDER BY started_at")]
    assert states == ["succeeded", "failed", "succeeded"]


async def test_a_run_that_slept_in_the_middle_of_a_removal_has_done_none_of_it_when_its_session_is_ended(
    usersync: Command, clerk: ClerkEmulator, database_url: str, manifest: str, gone: list[str]
) -> None:
    living = set(clerk.users)
    waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'"
    idle = "application_name LIKE 'usersync%' AND state = 'idle in transaction'"
    async with started(usersync, "full-sync", "--yes", "-f", manifest) as sleeper:
        async with connected(database_url) as application, application.transaction():
            await application.execute("SELECT 1 FROM moods WHERE user_id = $1 FOR UPDATE", gone[0])
            await until(database_url, waiting.format('"moods"'))
            await pause(sleeper)
        await until(database_url, f"SELECT count(*) > 0 FROM pg_stat_activity WHERE {idle}")
        await execute(database_url, AGED)
        async with started(usersync, "full-sync", "--yes", "-f", manifest) as other:
            await until(database_url, waiting.format("usersync.locks"))
            assert await users_with_rows(database_url) == {*living, *gone}
            # What idle_in_transaction_session_timeout, which every transaction of ours sets, does after a minute.
            await execute(database_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {idle}")
            async with asyncio.timeout(60):
                _, err = await other.communicate()
            assert other.returncode == 0, err.decode()
        before = await everything(database_url)
        code, said = await wake(sleeper)
    assert (code, said.count("\n")) == (1, 1), said
    assert await users_with_rows(database_url) == living
    assert await everything(database_url) == before
    assert await fetch_value(database_url, "SELECT count(*) FROM usersync.archive") == 7 * len(gone)


async def test_a_run_that_slept_and_was_not_missed_goes_on(
    usersync: Command, clerk: ClerkEmulator, database_url: str, manifest: str, gone: list[str]
) -> None:
    del gone
    clerk.switch_on(Fault(FaultName.SLOW, endpoint=Endpoint.LOOKUP, times=1, seconds=1.0))
    async with started(usersync, "full-sync", "--yes", "-f", manifest) as sleeper:
        await until_here(lambda: clerk.requests.by_endpoint[Endpoint.LOOKUP], seconds=30)
        await pause(sleeper)
        ended = await usersync("full-sync", "--yes", "-f", manifest)
        assert ended.code == 1
        assert "Another run works on schema public" in ended.err
        code, said = await wake(sleeper)
    assert code == 0, said
    assert await users_with_rows(database_url) == set(clerk.users)


async def test_of_two_commands_at_once_one_is_told_that_the_target_is_busy_and_with_whom(
    usersync: Command, clerk: ClerkEmulator, database_url: str, manifest: str, gone: list[str]
) -> None:
    number = clerk.switch_on(Fault(FaultName.SLOW, endpoint=Endpoint.LIST, seconds=60.0))
    async with started(usersync, "full-sync", "--yes", "-f", manifest) as first:
        await until(database_url, "SELECT count(*) = 1 FROM usersync.locks WHERE run_id IS NOT NULL")
        other_way = usersync.having(DATABASE_URL=database_url.replace("127.0.0.1", "localhost"))
        for command in (usersync, other_way):
            ended = await command("cleanup", "--yes", "-f", manifest, "-o", "json")
            assert (ended.code, ended.err.count("\n")) == (1, 1), ended.err
            assert f"/{first.pid}, since" in ended.err
            assert "TargetBusy" in ended.out
        assert await users_with_rows(database_url) == {*clerk.users, *gone}
        clerk.faults.switch_off(number)
