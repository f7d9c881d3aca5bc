"""When Clerk, the database or the environment is not as it should be: nothing deleted, a reason, an exit code."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING

import pytest

from controller.emulator import Endpoint, Fault, FaultName
from tests.integration.cli.conftest import AT_ONCE
from tests.support.databases import fetch_value, seed_users, user_id, users_with_rows
from tests.support.emulators import until

if TYPE_CHECKING:
    from controller.emulator import ClerkEmulator
    from tests.integration.cli.conftest import Command

USERS = 1200
"""Three pages of Clerk's largest size."""


@pytest.fixture
async def users(clerk: ClerkEmulator, database_url: str) -> list[str]:
    """Living users with rows, and one user with rows whom Clerk has forgotten."""
    living = clerk.add_users(USERS)
    await seed_users(database_url, [*living, user_id(1)], rows=1)
    return living


FAILURES = {
    "an error on the third page": Fault(FaultName.SERVER_ERROR, endpoint=Endpoint.LIST, page=3),
    "a page of HTML": Fault(FaultName.HTML_PAGE, endpoint=Endpoint.LIST),
    "a user listed twice": Fault(FaultName.DUPLICATE_ID, endpoint=Endpoint.LIST),
    "a short page": Fault(FaultName.SHORT_PAGE, endpoint=Endpoint.LIST),
    "a refused key": Fault(FaultName.FORBIDDEN),
    "another instance": Fault(FaultName.OTHER_INSTANCE),
}


@pytest.mark.parametrize("fault", list(FAILURES.values()), ids=list(FAILURES))
async def test_a_clerk_that_cannot_be_believed_deletes_nobody(
    usersync: Command, clerk: ClerkEmulator, users: list[str], database_url: str, fault: Fault
) -> None:
    assert (await usersync("analyze")).code == 3
    clerk.switch_on(fault)
    ended = await usersync("full-sync", *AT_ONCE, "-o", "json")
    assert (ended.code, "error" in ended.document) == (1, True), ended.out
    assert ended.err.startswith("Error: ")
    assert ended.err.count("\n") == 1
    assert await users_with_rows(database_url) == {*users, user_id(1)}


async def test_an_empty_listing_blocks_the_deletion(
    usersync: Command, clerk: ClerkEmulator, users: list[str], database_url: str
) -> None:
    assert (await usersync("analyze")).code == 3
    for endpoint in (Endpoint.LIST, Endpoint.COUNT):
        clerk.switch_on(Fault(FaultName.HIDE_USERS, endpoint=endpoint, ids=frozenset(users)))
    ended = await usersync("full-sync", *AT_ONCE, "-o", "json")
    assert (ended.code, ended.document["pendingDeletion"]["reason"]) == (4, "EmptySource"), ended.err
    assert await users_with_rows(database_url) == {*users, user_id(1)}


async def test_a_listing_that_hides_living_users_blocks_the_deletion(
    usersync: Command, clerk: ClerkEmulator, users: list[str], database_url: str
) -> None:
    for endpoint in (Endpoint.LIST, Endpoint.COUNT):
        clerk.switch_on(Fault(FaultName.HIDE_USERS, endpoint=endpoint, ids=frozenset(users[:5])))
    ended = await usersync("cleanup", *AT_ONCE, "-o", "json")
    assert (ended.code, ended.document["pendingDeletion"]["reason"]) == (4, "PartialSource"), ended.err
    assert await users_with_rows(database_url) == {*users, user_id(1)}


async def test_more_deletions_than_the_limits_permit_are_held_back(
    usersync: Command, clerk: ClerkEmulator, users: list[str], database_url: str
) -> None:
    assert (await usersync("analyze")).code == 3
    clerk.delete_many(users[:600])
    ended = await usersync("cleanup", *AT_ONCE)
    assert ended.code == 4, ended.err
    assert "Held back: 601 users" in ended.out
    assert "limits: 500 users, 10 percent" in ended.out
    assert re.search(r"--approve [0-9a-f]{64}\b", ended.out)
    assert await users_with_rows(database_url) == {*users, user_id(1)}


async def test_users_hidden_even_from_the_second_look_are_spared_by_the_question_by_id(
    usersync: Command, clerk: ClerkEmulator, users: list[str], database_url: str
) -> None:
    for endpoint in (Endpoint.LIST, Endpoint.COUNT, Endpoint.FILTER):
        clerk.switch_on(Fault(FaultName.HIDE_USERS, endpoint=endpoint, ids=frozenset(users[:5])))
    ended = await usersync("cleanup", *AT_ONCE, "-o", "json")
    assert ended.document["changes"]["usersRemoved"] == 1, ended.err
    assert ended.code == 3
    assert "5 users left out of Clerk's listing spared" in ended.document["lastRun"]["message"]
    assert await users_with_rows(database_url) == set(users)


async def test_an_unreachable_database_is_one_readable_line(usersync: Command) -> None:
    ended = await usersync.having(DATABASE_URL="postgres://app:hunter2@127.0.0.1:1/app")("analyze")
    assert ended.code == 1
    assert ended.err.startswith("Error: ")
    assert "127.0.0.1" in ended.err
    assert "hunter2" not in ended.err
    assert "Traceback" not in ended.err


async def test_debug_shows_where(usersync: Command) -> None:
    ended = await usersync.having(DATABASE_URL="postgres://app@127.0.0.1:1/app")("analyze", "--debug")
    assert ended.code == 1
    assert "Traceback" in ended.err


async def test_a_clerk_url_that_is_not_https_needs_permission(usersync: Command, clerk: ClerkEmulator) -> None:
    ended = await usersync.without("USERSYNC_ALLOW_INSECURE_CLERK_URL")("analyze")
    assert ended.code == 1
    assert "--allow-insecure-clerk-url" in ended.err
    assert clerk.requests.total == 0
    assert (
        await usersync.without("USERSYNC_ALLOW_INSECURE_CLERK_URL")("analyze", "--allow-insecure-clerk-url")
    ).code == 0


async def test_clerks_key_goes_to_no_host_that_nobody_allowed(usersync: Command) -> None:
    ended = await usersync.having(CLERK_API_URL="https://clerk.example")("analyze")
    assert ended.code == 1
    assert "--clerk-url-allow" in ended.err


async def test_supabases_front_end_variables_are_answered_with_what_to_set(usersync: Command) -> None:
    command = usersync.without("DATABASE_URL").having(NEXT_PUBLIC_SUPABASE_URL="https://x.supabase.co")
    ended = await command("analyze")
    assert ended.code == 2
    assert "set DATABASE_URL" in ended.err
    assert "Project -> Connect" in ended.err


@pytest.mark.parametrize(
    ("signal_sent", "code", "said"), [(signal.SIGINT, 130, b"Interrupted."), (signal.SIGTERM, 143, b"Terminated.")]
)
@pytest.mark.usefixtures("users")
async def test_a_run_that_is_stopped_gives_its_lock_back(
    usersync: Command, clerk: ClerkEmulator, signal_sent: signal.Signals, code: int, said: bytes
) -> None:
    number = clerk.switch_on(Fault(FaultName.SLOW, endpoint=Endpoint.LIST, seconds=60.0))
    process = await usersync.start("full-sync", *AT_ONCE)
    try:
        await until(lambda: clerk.requests.by_endpoint[Endpoint.LIST], seconds=30)
        process.send_signal(signal_sent)
        async with asyncio.timeout(30):
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, err.strip()) == (code, said)
    clerk.faults.switch_off(number)
    ended = await usersync("analyze")
    assert ended.code == 3, ended.err


async def test_a_reader_who_goes_away_is_no_error(usersync: Command) -> None:
    process = await usersync.start("analyze")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout._transport.close()  # type: ignore[attr-defined]  # asyncio has no other way to close a reader
    err = await process.stderr.read()
    assert (await process.wait(), err) == (141, b"")


async def test_migrate_print_needs_no_database(usersync: Command) -> None:
    ended = await usersync.without("DATABASE_URL").without("CLERK_SECRET_KEY")("migrate", "--print")
    assert ended.code == 0, ended.err
    assert "CREATE SCHEMA" in ended.out


async def test_migrate_creates_the_schema_once(usersync: Command, database_url: str) -> None:
    command = usersync.without("CLERK_SECRET_KEY")
    first, second = await command("migrate"), await command("migrate")
    assert (first.code, second.code) == (0, 0), first.err
    assert first.out.startswith("Applied ")
    assert second.out == "Up to date: nothing to apply.\n"
    assert await fetch_value(database_url, "SELECT count(*) FROM pg_namespace WHERE nspname = 'usersync'") == 1


async def test_a_database_without_any_of_the_tables_is_an_error_and_not_in_sync(
    usersync: Command, clerk: ClerkEmulator, empty_database_url: str
) -> None:
    clerk.add_users(1)
    ended = await usersync.having(DATABASE_URL=empty_database_url)("analyze", "-o", "json")
    assert (ended.code, ended.document["error"]["reason"]) == (1, "TablesMissing"), ended.out
    assert "None of the listed tables is in schema public: user_progress, tasks, daily_checkins, moods" in ended.err
