"""What the operator does when something around it fails: nothing is deleted, and the status says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controller.cli.demo.local_postgres import LocalPostgres
from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings, Endpoint, Fault, FaultName
from tests.e2e.conftest import ROOT
from tests.support.controlplane import ControlPlane, Programs
from tests.support.databases import (
    create_tables,
    execute,
    seed_users,
    until_waited_for,
    user_ids,
    user_ids_in,
    users_with_rows,
)
from tests.support.observing import STALE_LOCK, observing, row_held
from tests.support.stage import Stage, until
from tests.support.usersyncs import clerk as clerk_part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

GONE = user_ids(3)
USERS = 1600
"""Enough for more than three pages of the listing."""


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    async with ClerkEmulator(EmulatorSettings(environment=Environment.PRODUCTION), users=USERS) as emulator:
        yield emulator


@pytest.fixture
async def stage(
    control_plane: ControlPlane, namespace: str, clerk: ClerkEmulator, database_url: str, tmp_path: Path
) -> AsyncIterator[Stage]:
    """All users in step but three who are gone."""
    await seed_users(database_url, [*clerk.users, *GONE], rows=1)
    stage = Stage(control_plane, namespace, clerk, database_url, tmp_path)
    yield stage
    stage.close()


def hiding(emulator: ClerkEmulator) -> list[Fault]:
    five = frozenset(list(emulator.users)[100:105])
    return [Fault(FaultName.HIDE_USERS, endpoint=endpoint, ids=five) for endpoint in (Endpoint.LIST, Endpoint.COUNT)]


def one(name: FaultName, endpoint: Endpoint = Endpoint.LIST, page: int = 1) -> list[Fault]:
    return [Fault(name, endpoint=endpoint, page=page)]


@pytest.mark.parametrize(
    ("faults", "reasons"),
    [
        (one(FaultName.SERVER_ERROR, page=3), {"ClerkUnavailable"}),
        (one(FaultName.HTML_PAGE), {"ListingIncomplete"}),
        (one(FaultName.DUPLICATE_ID, page=2), {"ListingIncomplete"}),
        (one(FaultName.EMPTY_LIST), {"ListingIncomplete", "EmptySource"}),
        (one(FaultName.OTHER_INSTANCE, Endpoint.INSTANCE), {"WrongInstance"}),
        ("hide", {"PartialSource", "ListingIncomplete"}),
    ],
    ids=[
        "500 on page 3",
        "an HTML page",
        "duplicates",
        "an empty list",
        "another instance",
        "five living users hidden",
    ],
)
async def test_when_clerk_lies_nothing_is_deleted_and_the_status_says_why(
    stage: Stage, faults: list[Fault] | str, reasons: set[str]
) -> None:
    stage.prepare()
    stage.start()
    stage.apply(actions=["Analyze"])
    await stage.until_run()
    for fault in hiding(stage.clerk) if isinstance(faults, str) else faults:
        stage.clerk.switch_on(fault)
    before = await user_ids_in(stage.database_url)
    stage.apply(actions=["FullSync"])
    await until(lambda: stage.status()["observedGeneration"] == 2, seconds=120, what="the run", details=stage.describe)
    said = {stage.condition("Ready")["reason"], stage.condition("DeletionBlocked").get("reason")}
    assert said & reasons, stage.describe()
    assert await user_ids_in(stage.database_url) == before
    stage.clerk.faults.clear()
    stage.request_run("good again")
    await stage.until_handled("good again")
    assert await users_with_rows(stage.database_url) == set(stage.clerk.users)
    assert stage.condition("Stalled")["status"] == "False"


async def test_a_missing_secret_is_named_and_once_it_is_there_the_run_goes_on(stage: Stage) -> None:
    stage.prepare(secrets=False)
    stage.start()
    stage.apply()
    stalled = await stage.until_condition("Stalled", "True", "SecretNotFound")
    assert f"Secret {stage.namespace}/clerk does not exist" in stalled["message"]
    assert f"Secret {stage.namespace}/supabase does not exist" in stalled["message"]
    stage.prepare()
    await stage.until_run(seconds=90)
    assert stage.condition("Stalled")["status"] == "False"


async def test_a_secret_that_was_changed_is_used_by_the_next_run(stage: Stage) -> None:
    stage.prepare()
    stage.write_secret("clerk", CLERK_SECRET_KEY="sk_live_revoked")
    stage.start()
    stage.apply()
    await stage.until_condition("Stalled", "True", "ClerkRefused")
    stage.write_secret("clerk", CLERK_SECRET_KEY=stage.clerk.secret_key)
    stage.request_run("the key is right now")
    await stage.until_handled("the key is right now")
    assert stage.condition("Ready")["status"] == "True"


async def test_a_key_that_is_no_secret_key_is_never_sent(stage: Stage) -> None:
    stage.prepare()
    stage.write_secret("clerk", CLERK_SECRET_KEY="pk_live_1")
    stage.start()
    stage.apply()
    await stage.until_condition("Stalled", "True", "InvalidSpec")
    assert stage.clerk.requests.total == 0


@pytest.fixture
def own_server() -> Iterator[LocalPostgres]:
    with LocalPostgres() as server:
        yield server


async def test_a_database_that_is_down_is_reported_and_once_it_is_up_the_run_goes_on(
    stage: Stage, own_server: LocalPostgres
) -> None:
    stage.database_url = own_server.create_database("application")
    await create_tables(stage.database_url)
    await seed_users(stage.database_url, [*stage.clerk.users, *GONE], rows=1)
    stage.prepare()
    own_server.kill()
    stage.start()
    stage.apply()
    await stage.until_condition("Ready", "False", "DatabaseUnavailable")
    assert stage.condition("Reconciling")["status"] == "True"
    own_server.start()
    await stage.until_run(seconds=90)
    assert await users_with_rows(stage.database_url) == set(stage.clerk.users)


async def test_a_database_without_any_of_the_tables_stalls_and_once_they_are_there_the_run_goes_on(
    stage: Stage,
) -> None:
    await execute(stage.database_url, "ALTER SCHEMA public RENAME TO elsewhere", "CREATE SCHEMA public")
    stage.prepare()
    stage.start()
    stage.apply()
    stalled = await stage.until_condition("Stalled", "True", "TablesMissing")
    assert "in schema public: user_progress, tasks, daily_checkins, moods" in stalled["message"]
    assert stage.condition("InSync")["status"] != "True"
    await execute(stage.database_url, "DROP SCHEMA public", "ALTER SCHEMA elsewhere RENAME TO public")
    stage.request_run("they are there")
    await stage.until_handled("they are there")
    assert stage.condition("Stalled")["status"] == "False"


async def test_an_api_server_that_was_away_is_found_again(stage: Stage) -> None:
    stage.prepare()
    operator = stage.start()
    stage.apply()
    await stage.until_run()
    stage.plane.stop_api_server(at_once=True)
    try:
        await until(lambda: "will retry" in operator.log.read_text(), seconds=30, what="notice of the outage")
    finally:
        stage.plane.start_api_server()
    stage.clerk.delete_many(list(stage.clerk.users)[:2], webhook=False)
    stage.request_run("after the outage")
    await stage.until_handled("after the outage", seconds=90)
    assert await users_with_rows(stage.database_url) == set(stage.clerk.users)


async def test_a_run_that_ends_while_the_api_server_is_away_is_reported_later(stage: Stage) -> None:
    stage.prepare()
    operator = stage.start()
    stage.clerk.switch_on(Fault(FaultName.SLOW, endpoint=Endpoint.LIST, times=1, seconds=4))
    stage.apply()
    # From the listing on a run needs nothing more of the API server; before, it reads the Secrets there.
    await until(lambda: stage.clerk.requests.by_endpoint[Endpoint.LIST], seconds=60, what="the listing")
    stage.plane.stop_api_server(at_once=True)
    try:
        await operator.until_logged("run_succeeded", seconds=60)
    finally:
        stage.plane.start_api_server()
    status = await stage.until_run()
    assert status["changes"]["usersRemoved"] == 3
    assert len(operator.lines("run_succeeded")) == 1


async def test_a_missing_crd_is_waited_for_and_readiness_says_so(
    programs: Programs, clerk: ClerkEmulator, database_url: str, tmp_path: Path
) -> None:
    await seed_users(database_url, list(clerk.users)[:100], rows=1)
    with ControlPlane(programs, tmp_path / "plane") as plane:
        stage = Stage(plane, "default", clerk, database_url, tmp_path)
        stage.prepare()
        operator = stage.start()
        try:
            await operator.until_logged("informer_waits")
            status, reason = await operator.probe("/readyz")
            assert (status, "crds/usersync.yaml" in reason) == (503, True)
            assert (await operator.probe("/livez"))[0] == 200
            plane.kubectl("apply", "--server-side", "-k", str(ROOT / "crds"))
            plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/usersyncs.usersync.dev")
            stage.apply()
            await stage.until_run(seconds=90)
            assert (await operator.probe("/readyz"))[0] == 200
        finally:
            stage.close()


async def test_killed_in_the_middle_of_a_run_the_next_start_ends_right(stage: Stage) -> None:
    stage.prepare()
    operator = stage.start()
    stage.clerk.switch_on(Fault(FaultName.SLOW, endpoint=Endpoint.LOOKUP, times=2, seconds=20))
    stage.apply()
    await until(
        lambda: stage.clerk.requests.by_endpoint[Endpoint.LOOKUP] > 0,
        seconds=60,
        what="a look-up",
        details=stage.describe,
    )
    operator.kill()
    stage.clerk.faults.clear()
    stage.start()
    status = await stage.until_run(seconds=150)
    assert status["drift"]["total"] == 0
    assert await users_with_rows(stage.database_url) == set(stage.clerk.users)


async def test_killed_within_and_between_batches_nobody_sees_half_a_user(stage: Stage) -> None:
    url = stage.database_url
    stage.prepare()
    operator = stage.start()
    stage.apply(actions=["Analyze"])
    await stage.until_run()
    gone = [*GONE, *stage.clerk.delete_many(list(stage.clerk.users)[:600], webhook=False)]  # more than one batch
    fast = clerk_part(apiUrl=stage.clerk.url, rateLimitShare=100)
    async with observing(url) as observer:
        async with row_held(url, "daily_checkins", min(gone)) as holder:  # of the first batch
            stage.apply(actions=["FullSync"], clerk=fast, deletion={"limits": {"users": 10_000, "percent": 100}})
            await until_waited_for(holder, seconds=60)
            operator.kill()
            await observer.looked_again()
        all_there = observer.users
        await execute(url, STALE_LOCK)
        async with row_held(url, "daily_checkins", max(gone)) as holder:  # of the last one
            operator = stage.start()
            await until_waited_for(holder, seconds=60)
            operator.kill()
            await observer.looked_again()
        between = observer.users
        await execute(url, STALE_LOCK)
        stage.start()
        await until(
            lambda: observer.users == len(stage.clerk.users), seconds=60, what="the end", details=stage.describe
        )
    assert all_there == USERS + len(GONE)
    assert len(stage.clerk.users) < between < all_there, stage.describe()
    assert observer.halves == []
    assert await users_with_rows(url) == set(stage.clerk.users)
