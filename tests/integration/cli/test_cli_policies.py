"""`usersync policies` as a process: what it prints, and how it ends."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.integration.cli.conftest import Command
from tests.support.databases import TABLES, execute, fetch_value
from tests.support.supabase import ANNA
from tests.support.usersyncs import clerk as clerk_section
from tests.support.usersyncs import usersync as user_sync

if TYPE_CHECKING:
    from controller.emulator import ClerkEmulator
    from tests.support.supabase import Supabase

ORIGINAL = (Path(__file__).parents[3] / "deploy/sql/original_policies.sql").read_text()
COUNT = "SELECT count(*) FROM pg_policies"


@pytest.fixture
def policies(supabase: Supabase) -> Command:
    """The command for the owner of the tables; nothing of Clerk is set."""
    return Command({"PATH": os.environ["PATH"], "DATABASE_URL": supabase.url()})


async def test_apply_makes_the_policies_and_says_what_it_did(policies: Command, supabase: Supabase) -> None:
    ended = await policies("policies", "apply")
    assert (ended.code, ended.err) == (0, "")
    assert "tasks: created policies for SELECT, INSERT, UPDATE, DELETE; turned row-level security on." in ended.out
    assert await fetch_value(supabase.url(), COUNT) == 16
    again = await policies("policies", "apply")
    assert again.code == 0
    assert "tasks: nothing to do." in again.out


async def test_check_ends_with_3_until_the_policies_work(policies: Command, supabase: Supabase) -> None:
    await execute(supabase.url(), ORIGINAL)
    before = await policies("policies", "check")
    assert before.code == 3
    assert "broken: built on auth.uid()" in before.out
    assert "--replace-broken" in before.out
    await policies("policies", "apply", "--replace-broken")
    after = await policies("policies", "check")
    assert after.code == 0
    assert "own rows" in after.out


async def test_check_prints_a_document_for_programs(policies: Command) -> None:
    ended = await policies("policies", "check", "-o", "json")
    assert ended.code == 3
    assert (ended.document["status"], ended.document["reason"]) == ("False", "RowLevelSecurityOff")
    assert [table["name"] for table in ended.document["tables"]] == list(TABLES)


async def test_apply_leaves_tables_with_broken_policies_and_ends_with_3(policies: Command, supabase: Supabase) -> None:
    await execute(supabase.url(), ORIGINAL)
    ended = await policies("policies", "apply")
    assert ended.code == 3
    assert "tasks: left as it is." in ended.out
    assert await fetch_value(supabase.url(), COUNT) == 16


async def test_a_policy_of_the_application_goes_only_by_its_name(policies: Command, supabase: Supabase) -> None:
    await execute(
        supabase.url(),
        *(f'CREATE POLICY "Old rule" ON {table} USING (auth.uid()::text = user_id)' for table in TABLES[:2]),
    )
    ended = await policies("policies", "apply", "--replace", "Old rule")
    assert ended.code == 0
    assert 'user_progress: dropped "Old rule"; created' in ended.out
    async with supabase.request("authenticated", sub=ANNA) as request:
        assert await request.fetchval("SELECT count(DISTINCT user_id) FROM tasks") == 1


async def test_a_name_that_no_policy_has_is_refused(policies: Command) -> None:
    ended = await policies("policies", "apply", "--replace", "No such rule")
    assert ended.code == 2
    assert "'No such rule'" in ended.err


async def test_the_printed_sql_changes_nothing_by_itself_and_everything_in_an_editor(
    policies: Command, supabase: Supabase
) -> None:
    ended = await policies("policies", "apply", "--print")
    assert ended.code == 0
    assert await fetch_value(supabase.url(), COUNT) == 0
    await execute(supabase.url(), ended.out)
    assert (await policies("policies", "check")).code == 0


async def test_the_printed_sql_leaves_the_drop_to_a_person(policies: Command, supabase: Supabase) -> None:
    await execute(supabase.url(), ORIGINAL)
    ended = await policies("policies", "apply", "--print")
    assert '-- DROP POLICY "Users can view own tasks" ON "public"."tasks";' in ended.out
    assert not re.search("^DROP", ended.out, re.MULTILINE)
    replaced = await policies("policies", "apply", "--print", "--replace-broken")
    await execute(supabase.url(), replaced.out)
    assert (await policies("policies", "check")).code == 0


async def test_a_role_that_may_not_is_told_by_which_it_can_be_done(policies: Command, supabase: Supabase) -> None:
    poor = policies.having(DATABASE_URL=supabase.url("authenticator"))
    ended = await poor("policies", "apply")
    assert ended.code == 1
    assert "DATABASE_ADMIN_URL" in ended.err
    assert await fetch_value(supabase.url(), COUNT) == 0
    assert (await poor.having(DATABASE_ADMIN_URL=supabase.url())("policies", "apply")).code == 0


async def test_a_database_that_is_not_supabases_is_said_to_be_none(usersync: Command) -> None:
    assert (await usersync("policies", "check")).code == 0
    ended = await usersync("policies", "apply")
    assert ended.code == 1
    assert "no role authenticated" in ended.err


async def test_a_command_that_does_a_run_leaves_policies_alone_whatever_the_manifest_says(
    usersync: Command, clerk: ClerkEmulator, supabase: Supabase, tmp_path: Path
) -> None:
    await execute(supabase.url(), *(f"TRUNCATE {table}" for table in TABLES))
    clerk.add_users(2)
    manifest = tmp_path / "usersync.yaml"
    resource = user_sync(clerk=clerk_section(apiUrl=clerk.url), rowLevelSecurity="Enforce")
    manifest.write_text(yaml.safe_dump(resource))
    ended = await usersync.having(DATABASE_URL=supabase.url())("full-sync", "--yes", "-f", str(manifest))
    assert (ended.code, ended.err) == (0, "")
    assert await fetch_value(supabase.url(), COUNT) == 0
