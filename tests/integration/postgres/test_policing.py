"""Policies on a PostgreSQL as Supabase sets one up: who sees what, and what `policies apply` makes of it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from controller.core.policies import Command, Form, Mending, Replacing, Security, mend
from controller.core.securing import judge
from controller.core.targets import Role, Table, Target
from controller.errors import DatabaseRefused, DatabaseUnavailable
from controller.postgres import Database, mending_sql
from controller.settings import Access
from tests.support.databases import TABLES, execute, fetch_value
from tests.support.fakes.clock import FakeClock
from tests.support.supabase import ANNA, BERT

if TYPE_CHECKING:
    from tests.support.supabase import Supabase

SQL = Path(__file__).parents[3] / "deploy" / "sql"
ORIGINAL = (SQL / "original_policies.sql").read_text()
WORKING = (SQL / "policies.sql").read_text()


async def read(supabase: Supabase, target: Target | None = None, *, user: str = "hosted") -> Security:
    async with Database.open(supabase.url(user), target or Target(), FakeClock()) as database:
        return await database.read_security()


async def apply(supabase: Supabase, replacing: Replacing = Replacing(), target: Target | None = None) -> int:  # noqa: B008 - frozen
    """Mend every table; returns how many there was something to do to."""
    target = target or Target()
    async with Database.open(supabase.url(), target, FakeClock()) as database:
        mendings = [mend(table, replacing) for table in (await database.read_security()).tables]
        for mending in filter(None, mendings):
            await database.mend_security(mending)
    return sum(map(bool, mendings))


async def visible(supabase: Supabase, role: str, table: str = "tasks", **claims: str) -> set[str]:
    async with supabase.request(role, **claims) as request:
        return {row["user_id"] for row in await request.fetch(f"SELECT user_id FROM {table}")}


async def test_the_original_policies_break_every_request_of_a_signed_in_user(supabase: Supabase) -> None:
    await execute(supabase.url(), ORIGINAL)
    with pytest.raises(asyncpg.InvalidTextRepresentationError, match="invalid input syntax for type uuid"):
        await visible(supabase, "authenticated", sub=ANNA)


async def test_the_original_policies_are_recognised_under_any_name_and_explained(supabase: Supabase) -> None:
    await execute(supabase.url(), re.sub("Users can", "Somebody may", ORIGINAL))
    security = await read(supabase)
    assert [len(table.broken()) for table in security.tables] == [4, 4, 4, 4]
    verdict = judge(security)
    assert (verdict.holds, verdict.reason) == (False, "PoliciesBroken")
    assert "casts the subject of the token to uuid" in verdict.message


async def test_a_policy_on_an_auth_uid_that_returns_text_is_not_broken(supabase: Supabase) -> None:
    await execute(supabase.superuser_url, "DROP FUNCTION auth.uid()")
    await execute(
        supabase.superuser_url,
        "CREATE FUNCTION auth.uid() RETURNS text LANGUAGE sql STABLE AS $$ SELECT auth.jwt() ->> 'sub' $$",
    )
    await execute(supabase.url(), ORIGINAL)
    assert judge(await read(supabase)).reason == "PoliciesWork"
    assert await visible(supabase, "authenticated", sub=ANNA) == {ANNA}


async def test_nothing_is_done_to_tables_whose_broken_policies_nobody_gave_up(supabase: Supabase) -> None:
    await execute(supabase.url(), ORIGINAL)
    assert await apply(supabase) == 0
    assert all(len(table.policies) == 4 for table in (await read(supabase)).tables)


async def test_a_working_policy_beside_a_broken_one_helps_nobody(supabase: Supabase) -> None:
    await execute(supabase.url(), ORIGINAL, WORKING)
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await visible(supabase, "authenticated", sub=ANNA)


async def test_replacing_the_broken_policies_lets_each_user_at_his_own_rows(supabase: Supabase) -> None:
    await execute(supabase.url(), ORIGINAL)
    assert await apply(supabase, Replacing(broken=True)) == 4
    for table in TABLES:
        assert await visible(supabase, "authenticated", table, sub=ANNA) == {ANNA}
        assert await visible(supabase, "authenticated", table, sub=BERT) == {BERT}


async def test_applying_again_finds_nothing_to_do(supabase: Supabase) -> None:
    assert await apply(supabase) == 4
    assert await apply(supabase) == 0
    assert judge(await read(supabase)).reason == "PoliciesWork"


async def test_the_file_of_policies_is_what_apply_makes(supabase: Supabase) -> None:
    await execute(supabase.url(), WORKING)
    assert await apply(supabase) == 0
    made = [
        statement
        for table in TABLES
        for statement in mending_sql(Target(), Mending(table, create=tuple(Command), enable=True))
    ]
    assert [_flat(each) for each in made] == [_flat(each) for each in _statements(WORKING)]


def _statements(script: str) -> list[str]:
    lines = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    return [f"{part.strip()};" for part in lines.split(";") if part.strip() not in {"", "BEGIN", "COMMIT"}]


def _flat(statement: str) -> str:
    return " ".join(statement.split())


@pytest.fixture
async def guarded(supabase: Supabase) -> Supabase:
    await apply(supabase)
    return supabase


async def test_anon_sees_nothing_and_can_write_nothing(guarded: Supabase) -> None:
    assert await visible(guarded, "anon") == set()
    async with guarded.request("anon") as request:
        assert await request.execute("DELETE FROM tasks") == "DELETE 0"
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="violates row-level security"):
            await request.execute("INSERT INTO tasks (user_id) VALUES ($1)", ANNA)


async def test_a_token_without_a_subject_sees_nothing(guarded: Supabase) -> None:
    assert await visible(guarded, "authenticated") == set()


async def test_the_server_side_key_sees_everything(guarded: Supabase) -> None:
    assert await visible(guarded, "service_role") == {ANNA, BERT}


async def test_a_user_writes_changes_and_deletes_his_own_rows(guarded: Supabase) -> None:
    async with guarded.request("authenticated", sub=ANNA) as request:
        await request.execute("INSERT INTO tasks (user_id) VALUES ($1)", ANNA)
        assert await request.execute("UPDATE tasks SET note = 'mine'") == "UPDATE 3"
        assert await request.execute("DELETE FROM tasks") == "DELETE 3"


async def test_a_user_cannot_touch_rows_of_another(guarded: Supabase) -> None:
    async with guarded.request("authenticated", sub=ANNA) as request:
        assert await request.execute("UPDATE tasks SET note = 'taken' WHERE user_id = $1", BERT) == "UPDATE 0"
        assert await request.execute("DELETE FROM tasks WHERE user_id = $1", BERT) == "DELETE 0"


@pytest.mark.parametrize(
    "statement", ["INSERT INTO tasks (user_id) VALUES ($1)", "UPDATE tasks SET user_id = $1"], ids=["insert", "update"]
)
async def test_a_user_cannot_give_rows_to_another(guarded: Supabase, statement: str) -> None:
    async with guarded.request("authenticated", sub=ANNA) as request:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="violates row-level security"):
            await request.execute(statement, BERT)


async def test_policies_of_the_application_that_work_are_kept_and_none_is_added(supabase: Supabase) -> None:
    await execute(
        supabase.url(),
        "ALTER TABLE tasks ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY read_own ON tasks FOR SELECT TO authenticated USING (auth.jwt()->>'sub' = user_id)",
    )
    assert await apply(supabase) == 3
    tasks = next(table for table in (await read(supabase)).tables if table.name == "tasks")
    assert [(policy.name, policy.form(tasks.column)) for policy in tasks.policies] == [("read_own", Form.OWN)]
    async with supabase.request("authenticated", sub=ANNA) as request:
        assert await request.execute("DELETE FROM tasks") == "DELETE 0"


async def test_a_policy_that_is_open_to_everybody_is_found(supabase: Supabase) -> None:
    await apply(supabase)
    await execute(supabase.url(), "CREATE POLICY showcase ON moods FOR SELECT USING (true)")
    verdict = judge(await read(supabase))
    assert verdict.reason == "PoliciesOpen"
    assert 'moods ("showcase")' in verdict.message


async def test_tables_without_security_are_found_and_only_where_somebody_can_reach_them(supabase: Supabase) -> None:
    assert judge(await read(supabase)).reason == "RowLevelSecurityOff"
    assert await visible(supabase, "anon") == {ANNA, BERT}
    for table in TABLES:
        await execute(supabase.url(), f"REVOKE ALL ON {table} FROM anon, authenticated")
    assert judge(await read(supabase)).reason == "PoliciesWork"


async def test_names_that_must_be_quoted_are(supabase: Supabase) -> None:
    await execute(supabase.url(), 'CREATE TABLE "My ""Rows""" ("User Id" varchar(64), note text)')
    target = Target(tables=(Table('My "Rows"', Role.PROFILE, "User Id"),))
    assert await apply(supabase, target=target) == 1
    assert await apply(supabase, target=target) == 0
    await execute(supabase.url(), f'INSERT INTO "My ""Rows""" VALUES (\'{ANNA}\'), (\'{BERT}\')')
    async with supabase.request("authenticated", sub=ANNA) as request:
        assert await request.fetchval('SELECT string_agg("User Id", \' \') FROM "My ""Rows"""') == ANNA


async def test_a_role_that_does_not_own_the_tables_reads_and_may_not_change(supabase: Supabase) -> None:
    security = await read(supabase, user="authenticator")
    assert [table.alterable for table in security.tables] == [False] * 4
    async with Database.open(supabase.url("authenticator"), Target(), FakeClock()) as database:
        with pytest.raises(DatabaseRefused, match="must be owner"):
            await database.mend_security(mend(security.tables[0]))


async def test_the_admin_role_changes_what_ours_may_not(supabase: Supabase) -> None:
    access = Access(supabase.url("authenticator"), admin_url=supabase.url())
    async with Database.open(access, Target(), FakeClock()) as database:
        security = await database.read_security()
        assert all(table.alterable for table in security.tables)
        await database.mend_security(mend(security.tables[0]))
    assert await fetch_value(supabase.url(), "SELECT count(*) FROM pg_policies") == 4


async def test_a_table_that_the_application_holds_is_not_waited_for_long(supabase: Supabase) -> None:
    security = await read(supabase)
    holder = await asyncpg.connect(supabase.url())
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE user_progress IN ACCESS SHARE MODE")
            async with Database.open(supabase.url(), Target(), FakeClock()) as database:
                # With the patience of other statements it would be 25 s, in which requests of the application queue.
                async with asyncio.timeout(15):
                    with pytest.raises(DatabaseUnavailable, match="a lock was not to be had in time"):
                        await database.mend_security(mend(security.tables[0]))
    finally:
        await holder.close()


async def test_a_database_that_is_not_supabases_is_not_judged(database_url: str) -> None:
    async with Database.open(database_url, Target(), FakeClock()) as database:
        assert judge(await database.read_security()).reason == "NotApplicable"
