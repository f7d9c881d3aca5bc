"""Runs by hand: what each command mends, what it leaves alone, and what it says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.integration.cli.conftest import AT_ONCE
from tests.support.databases import TABLES, execute, fetch_value, rows_of, seed, seed_users, user_id, user_ids_in
from tests.support.usersyncs import clerk as clerk_section
from tests.support.usersyncs import usersync as user_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.emulator import ClerkEmulator
    from tests.integration.cli.conftest import Command

GONE = user_id(7)


@pytest.fixture
async def drifted(clerk: ClerkEmulator, database_url: str) -> list[str]:
    """Ten users of Clerk: the first without a profile, the second with two; and one user whom Clerk has forgotten."""
    users = clerk.add_users(10)
    await seed_users(database_url, [*users, GONE])
    await execute(database_url, f"DELETE FROM user_progress WHERE user_id = '{users[0]}'")
    await seed(database_url, "user_progress", [users[1]])
    await seed(database_url, "tasks", ["system"])
    return users


@pytest.fixture
def manifest(clerk: ClerkEmulator, tmp_path: Path) -> Callable[..., str]:
    """Writes manifests: one UserSync for each of the specs given."""

    def write(*specs: dict[str, Any]) -> str:
        path = tmp_path / "usersync.yaml"
        documents = [
            user_sync(f"number-{number}", **({"clerk": clerk_section(apiUrl=clerk.url)} | spec))
            for number, spec in enumerate(specs)
        ]
        path.write_text(yaml.safe_dump_all(documents))
        return str(path)

    return write


async def rows_by_table(url: str) -> dict[str, list[str | None]]:
    return {table: await user_ids_in(url, table) for table in TABLES}


async def test_analyze_counts_the_drift_and_ends_with_3(usersync: Command, drifted: list[str]) -> None:
    ended = await usersync("analyze", "-o", "json")
    assert ended.code == 3, ended.err
    drift = ended.document["drift"]
    assert (drift["clerkUsers"], drift["total"]) == (len(drifted), 3)
    assert (drift["missingProgress"], drift["orphaned"], drift["duplicates"], drift["foreign"]) == (1, 1, 1, 1)
    assert ended.err == ""


async def test_analyze_in_sync_ends_with_0(usersync: Command, clerk: ClerkEmulator, database_url: str) -> None:
    await seed_users(database_url, clerk.add_users(3))
    ended = await usersync("analyze", "-o", "json")
    assert (ended.code, ended.document["drift"]["total"]) == (0, 0)


@pytest.mark.usefixtures("drifted")
async def test_analyze_changes_nothing(usersync: Command, database_url: str) -> None:
    before = await rows_by_table(database_url)
    await usersync("analyze")
    assert await rows_by_table(database_url) == before


@pytest.mark.parametrize("command", ["fix-progress", "cleanup", "fix-duplicates", "full-sync"])
@pytest.mark.usefixtures("drifted")
async def test_a_dry_run_changes_nothing_and_ends_with_3(usersync: Command, database_url: str, command: str) -> None:
    before = await rows_by_table(database_url)
    ended = await usersync(command, "--dry-run", "-o", "json")
    assert (ended.code, ended.document["lastRun"]["dryRun"]) == (3, True), ended.err
    assert any(ended.document["changes"].values())
    assert await rows_by_table(database_url) == before


async def test_fix_progress_creates_the_missing_profile_alone(
    usersync: Command, drifted: list[str], database_url: str
) -> None:
    ended = await usersync("fix-progress", "-o", "json")
    assert (ended.code, ended.document["changes"]["profilesCreated"]) == (0, 1), ended.err
    assert (await rows_of(database_url, drifted[0]))["user_progress"] == 1
    assert (await rows_of(database_url, drifted[1]))["user_progress"] == 2
    assert (await rows_of(database_url, GONE))["user_progress"] == 1


async def test_cleanup_removes_the_forgotten_user_alone(
    usersync: Command, drifted: list[str], database_url: str
) -> None:
    before = {user: await rows_of(database_url, user) for user in drifted}
    ended = await usersync("cleanup", *AT_ONCE, "-o", "json")
    assert (ended.code, ended.document["changes"]["usersRemoved"]) == (0, 1), ended.err
    assert await rows_of(database_url, GONE) == dict.fromkeys(TABLES, 0)
    assert {user: await rows_of(database_url, user) for user in drifted} == before
    assert (await rows_of(database_url, "system"))["tasks"] == 1


async def test_fix_duplicates_keeps_one_profile_row(usersync: Command, drifted: list[str], database_url: str) -> None:
    ended = await usersync("fix-duplicates", "--yes", "-o", "json")
    assert (ended.code, ended.document["changes"]["duplicatesRemoved"]) == (0, 1), ended.err
    assert (await rows_of(database_url, drifted[1]))["user_progress"] == 1
    assert (await rows_of(database_url, GONE))["user_progress"] == 1


async def test_full_sync_mends_everything(usersync: Command, drifted: list[str], database_url: str) -> None:
    ended = await usersync("full-sync", *AT_ONCE, "-o", "json")
    assert (ended.code, ended.document["drift"]["total"]) == (0, 0), ended.err
    assert sorted(await user_ids_in(database_url, "user_progress"), key=str) == sorted(drifted)


@pytest.mark.parametrize("command", ["cleanup", "fix-duplicates", "full-sync"])
@pytest.mark.usefixtures("drifted")
async def test_without_yes_and_without_a_terminal_nothing_is_done_at_all(
    usersync: Command, clerk: ClerkEmulator, database_url: str, command: str
) -> None:
    before = await rows_by_table(database_url)
    ended = await usersync(command)
    assert ended.code == 2
    assert "--yes" in ended.err
    assert "--dry-run" in ended.err
    assert await rows_by_table(database_url) == before
    assert clerk.requests.total == 0


async def test_the_table_is_for_people(usersync: Command, drifted: list[str]) -> None:
    ended = await usersync("analyze")
    assert "Drift: 1 without a profile, 1 orphaned, 1 duplicate profile; 10 users in Clerk." in ended.out
    (row,) = (line.split() for line in ended.out.splitlines() if line.strip().startswith("daily_checkins "))
    assert (row[1], row[-1]) == ("22", "2"), "rows, and rows of users gone"
    assert not any(user in ended.out for user in (*drifted, GONE))


async def test_show_users_names_them(usersync: Command, drifted: list[str]) -> None:
    ended = await usersync("analyze", "--show-users", "-o", "json")
    assert ended.document["users"] == {
        "missing": [drifted[0]],
        "outdated": [],
        "orphaned": [GONE],
        "duplicated": [drifted[1]],
    }


@pytest.mark.usefixtures("drifted")
async def test_yaml_output_is_read_back(usersync: Command) -> None:
    ended = await usersync("analyze", "-o", "yaml")
    assert yaml.safe_load(ended.out)["drift"]["orphaned"] == 1


@pytest.mark.usefixtures("drifted")
async def test_the_command_decides_what_is_done_and_not_the_actions_of_the_manifest(
    usersync: Command, database_url: str, manifest: Callable[..., str]
) -> None:
    before = await rows_by_table(database_url)
    ended = await usersync("analyze", "-f", manifest({"actions": ["FullSync"]}), "-o", "json")
    assert ended.document["lastRun"]["actions"] == ["Analyze"], ended.err
    assert await rows_by_table(database_url) == before


@pytest.mark.usefixtures("drifted")
async def test_dry_run_of_the_manifest_holds_on_the_command_line_too(
    usersync: Command, database_url: str, manifest: Callable[..., str]
) -> None:
    before = await rows_by_table(database_url)
    ended = await usersync("full-sync", "--yes", "-f", manifest({"dryRun": True}), "-o", "json")
    assert (ended.code, ended.document["lastRun"]["dryRun"]) == (3, True), ended.err
    assert await rows_by_table(database_url) == before


@pytest.mark.usefixtures("drifted")
async def test_a_suspended_manifest_is_analysed_but_not_written_for(
    usersync: Command, manifest: Callable[..., str]
) -> None:
    path = manifest({"suspend": True})
    assert (await usersync("analyze", "-f", path)).code == 3
    ended = await usersync("full-sync", *AT_ONCE, "-f", path)
    assert ended.code == 2
    assert "spec.suspend" in ended.err


@pytest.mark.usefixtures("drifted")
async def test_a_manifest_can_come_from_standard_input(usersync: Command, manifest: Callable[..., str]) -> None:
    text = await asyncio.to_thread(Path(manifest({})).read_text)
    ended = await usersync("analyze", "-f", "-", "-o", "json", stdin=text)
    assert ended.document["resource"] == "default/number-0", ended.err


@pytest.mark.usefixtures("drifted")
async def test_several_resources_are_worked_on_one_after_the_other_and_the_worst_speaks(
    usersync: Command, database_url: str, manifest: Callable[..., str]
) -> None:
    await execute(database_url, "CREATE SCHEMA other", "CREATE TABLE other.profiles (user_id uuid, created_at date)")
    other = {"database": {"urlSecretRef": {"name": "supabase", "key": "DATABASE_URL"}, "schema": "other"}}
    other["tables"] = [{"name": "profiles", "role": "Profile"}]  # type: ignore[assignment]  # a manifest is untyped
    ended = await usersync("analyze", "-f", manifest(other, {}), "-o", "json")
    assert ended.code == 1
    first, second = json.loads(ended.out)["items"]
    assert first["error"]["reason"] == "TableUnsupported"
    assert second["drift"]["total"] == 3
    assert ended.err.startswith("Error: default/number-0: ")


async def test_an_unknown_field_in_a_manifest_ends_with_2_and_names_it(
    usersync: Command, manifest: Callable[..., str]
) -> None:
    ended = await usersync("analyze", "-f", manifest({"gracePeriod": "24h"}))
    assert ended.code == 2
    assert "spec.gracePeriod" in ended.err
    assert ended.out == ""


async def test_the_run_is_in_the_audit(usersync: Command, database_url: str, drifted: list[str]) -> None:
    ended = await usersync("full-sync", *AT_ONCE, "-o", "json")
    run = await fetch_value(
        database_url, "SELECT count(*) FROM usersync.runs WHERE id::text = $1", ended.document["lastRun"]["id"]
    )
    assert (run, len(drifted)) == (1, 10)


async def test_outdated_columns_are_found_by_analyze_and_mended_by_fix_progress(
    usersync: Command, clerk: ClerkEmulator, database_url: str, manifest: Callable[..., str]
) -> None:
    user, other = clerk.add_users(2)
    await seed_users(database_url, [user, other])
    await execute(database_url, "ALTER TABLE user_progress ADD plan text")
    clerk.edit(user, public_metadata={"plan": "pro"})
    values = {"plan": {"from": "publicMetadata.plan"}}
    written = manifest({"tables": [{"name": "user_progress", "role": "Profile", "values": values}]})
    environ = usersync.having(CLERK_SECRET_KEY=clerk.secret_key, DATABASE_URL=database_url)

    analysed = await environ("analyze", "-f", written, "-o", "json", "--show-users")
    assert (analysed.code, analysed.document["drift"]["outdated"]) == (3, 1), analysed.err
    assert analysed.document["users"]["outdated"] == [user]
    assert (await environ("fix-progress", "--dry-run", "-f", written)).code == 3
    mended = await environ("fix-progress", "-f", written, "-o", "json")
    assert (mended.code, mended.document["changes"]["profilesUpdated"]) == (0, 1), mended.err
    assert await fetch_value(database_url, "SELECT plan FROM user_progress WHERE user_id = $1", user) == "pro"
