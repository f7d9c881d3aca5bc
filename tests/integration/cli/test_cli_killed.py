"""`kill -9` in the middle of a run by hand: nobody sees half a user, and the next run ends what was begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from controller.emulator import Endpoint
from tests.support.databases import execute, fetch_value, seed_users, users_with_rows
from tests.support.emulators import until
from tests.support.observing import STALE_LOCK, observing
from tests.support.usersyncs import clerk as clerk_section
from tests.support.usersyncs import usersync as user_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from controller.emulator import ClerkEmulator
    from tests.integration.cli.conftest import Command

LIVING, DELETED = 200, 700
"""More than one batch of removals, so that a run can be killed between two."""


@pytest.fixture
def manifest(clerk: ClerkEmulator, tmp_path: Path) -> str:
    """A UserSync that may remove everybody, at Clerk's full rate."""
    path = tmp_path / "usersync.yaml"
    spec: dict[str, Any] = {
        "clerk": clerk_section(apiUrl=clerk.url, rateLimitShare=100),
        "deletion": {"gracePeriod": "0s", "limits": {"users": 10_000, "percent": 100}},
    }
    path.write_text(yaml.safe_dump(user_sync(**spec)))
    return str(path)


async def kill_when(usersync: Command, manifest: str, condition: Callable[[], object]) -> None:
    process = await usersync.start("full-sync", "--yes", "-f", manifest)
    try:
        await until(condition, seconds=60)
        assert process.returncode is None
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.timeout(180)
async def test_killed_at_any_point_the_next_run_ends_it_and_nobody_sees_half_a_user(
    usersync: Command, clerk: ClerkEmulator, database_url: str, manifest: str
) -> None:
    users = clerk.add_users(LIVING + DELETED)
    await seed_users(database_url, users, rows=1)
    assert (await usersync("analyze")).code == 0
    gone = set(clerk.delete_many(users[:DELETED]))
    living = set(users) - gone
    async with observing(database_url) as observer:
        clerk.requests.reset()
        await kill_when(usersync, manifest, lambda: clerk.requests.by_endpoint[Endpoint.LIST])
        await execute(database_url, STALE_LOCK)
        await kill_when(usersync, manifest, lambda: clerk.requests.by_endpoint[Endpoint.LOOKUP] > 50)
        await execute(database_url, STALE_LOCK)
        await kill_when(usersync, manifest, lambda: observer.users < len(users))
        between = observer.users
        await execute(database_url, STALE_LOCK)
        ended = await usersync("full-sync", "--yes", "-f", manifest)
        assert ended.code == 0, ended.err
    assert LIVING < between < LIVING + DELETED
    assert observer.halves == []
    assert observer.looks > 10
    assert await users_with_rows(database_url) == living
    assert await fetch_value(database_url, "SELECT count(*) FROM usersync.runs WHERE state = 'running'") == 0


async def test_a_run_beside_a_living_one_is_refused_and_says_whose_it_is(
    usersync: Command, clerk: ClerkEmulator, database_url: str, manifest: str
) -> None:
    await seed_users(database_url, clerk.add_users(3))
    assert (await usersync("analyze")).code == 0
    await execute(
        database_url,
        "UPDATE usersync.locks SET run_id = gen_random_uuid(), holder = 'elsewhere/1', taken_at = now(), "
        "heartbeat_at = now()",
    )
    ended = await usersync("full-sync", "--yes", "-f", manifest)
    assert ended.code == 1
    assert "elsewhere/1" in ended.err
