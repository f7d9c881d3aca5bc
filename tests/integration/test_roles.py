"""The roles of deploy/sql on a PostgreSQL as Supabase sets one up: all that usersync does, and nothing more."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from controller.core.requests import RestoreTerms, erase
from controller.core.targets import AccountDeletion, Action, ClerkSource, Deletion, RowLevelSecurity, Spec
from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings, Endpoint, Fault, FaultName
from controller.postgres import migrate, migration_sql
from controller.runtime import open_archive, open_sweeper
from controller.settings import Access, ClerkURLs, Credentials
from tests.support.databases import execute, fetch, fetch_value, rows_of, seed, seed_users, users_with_rows
from tests.support.serving import OWED, count, eventually, real_service
from tests.support.sessions import ORIGIN, ask, bearer
from tests.support.stores import ids
from tests.support.webhooks import SPEC

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controller.core.outcomes import Outcome
    from tests.support.supabase import Supabase

SQL = Path(__file__).parents[2] / "deploy" / "sql"
CONTROLLER, WEBHOOK = "usersync_controller", "usersync_webhook"
ROLES = (CONTROLLER, WEBHOOK)
URLS = ClerkURLs(allow_insecure=True)
WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    settings = EmulatorSettings(environment=Environment.PRODUCTION, rate_limit=None)
    async with ClerkEmulator(settings, users=60) as emulator:
        yield emulator


@dataclass(frozen=True)
class Project:
    """A project whose schema and roles were made by hand, as the page says, by somebody who is not superuser."""

    supabase: Supabase
    clerk: ClerkEmulator

    @property
    def url(self) -> str:
        return self.supabase.url()

    async def run(self, role: str = CONTROLLER, *, admin_url: str | None = None, **more: Any) -> Outcome:
        spec = Spec("app/production", clerk=ClerkSource(self.clerk.url), actions=(Action.FULL_SYNC,))
        spec = replace(spec, deletion=Deletion(grace_period=Deletion().grace_period * 0), **more)
        credentials = Credentials(self.clerk.secret_key, self.supabase.url(role), admin_url=admin_url)
        async with open_sweeper(spec, credentials, URLS) as sweeper:
            return await sweeper.sweep(spec, holder="test")


@pytest.fixture
async def project(supabase: Supabase, clerk: ClerkEmulator) -> Project:
    await execute(supabase.url(), "TRUNCATE user_progress, tasks, daily_checkins, moods")
    await execute(supabase.url(), *((SQL / name).read_text() for name in ("policies.sql",)))
    await execute(supabase.url(), migration_sql(), (SQL / "roles.sql").read_text())
    await seed_users(supabase.url(), clerk.users)
    return Project(supabase, clerk)


async def test_the_files_can_be_run_again(project: Project) -> None:
    await execute(project.url, migration_sql(), (SQL / "roles.sql").read_text())
    assert (await project.run()).found.total == 0


async def test_a_full_run_as_the_controllers_role_mends_everything(project: Project) -> None:
    gone, doubled, missing, *others = list(project.clerk.users)
    project.clerk.delete(gone, webhook=False)
    await seed(project.url, "user_progress", [doubled])
    await execute(project.url, f"DELETE FROM user_progress WHERE user_id = '{missing}'")
    outcome = await project.run(row_level_security=RowLevelSecurity.ENFORCE)
    changes = outcome.changes
    assert (changes.profiles_created, changes.users_removed, changes.duplicates_removed) == (1, 1, 1)
    assert outcome.remaining.total == 0
    assert outcome.security is not None
    assert outcome.security.reason == "PoliciesWork"
    assert await users_with_rows(project.url) == {doubled, missing, *others}


async def test_enforce_makes_the_policies_as_the_admin_and_says_so_where_there_is_none(project: Project) -> None:
    await execute(
        project.url, *(f"DROP POLICY usersync_{each} ON tasks" for each in ("select", "insert", "update", "delete"))
    )
    refused = (await project.run(row_level_security=RowLevelSecurity.ENFORCE)).security
    assert refused is not None
    assert refused.reason == "NotEnforced"
    assert "spec.database.adminUrlSecretRef" in refused.message
    mended = (await project.run(admin_url=project.url, row_level_security=RowLevelSecurity.ENFORCE)).security
    assert mended is not None
    assert mended.reason == "PoliciesWork"
    assert await fetch_value(project.url, "SELECT count(*) FROM pg_policies WHERE tablename = 'tasks'") == 4


async def test_the_controllers_role_restores_and_erases(project: Project) -> None:
    gone = next(iter(project.clerk.users))
    project.clerk.delete(gone, webhook=False)
    await project.run()
    spec = Spec("app/production", clerk=ClerkSource(project.clerk.url))
    credentials = Credentials(project.clerk.secret_key, project.supabase.url(CONTROLLER))
    async with open_archive(spec, credentials, URLS) as opened:
        await opened.archive.restore(ids([gone])[0], RestoreTerms("a person"))
        assert await rows_of(project.url, gone) == WHOLE
        await erase(ids([gone])[0], "a person", opened.directory, opened.archive, opened.clock)
    assert sum((await rows_of(project.url, gone)).values()) == await count(project.url, "archive") == 0


async def test_with_the_rights_that_the_page_names_what_referred_to_a_restored_user_refers_again(
    project: Project,
) -> None:
    gone = next(iter(project.clerk.users))
    await execute(
        project.url,
        "CREATE TABLE likes (id serial PRIMARY KEY, task uuid REFERENCES tasks ON DELETE SET NULL)",
        f"INSERT INTO likes (task) SELECT id FROM tasks WHERE user_id = '{gone}'",
        # As deploy/sql/README.md has it.
        "GRANT SELECT, UPDATE (task) ON public.likes TO usersync_controller",
        "GRANT SELECT ON public.likes TO usersync_webhook",
    )
    project.clerk.delete(gone, webhook=False)
    await project.run()
    assert await fetch_value(project.url, "SELECT count(task) FROM likes") == 0
    spec = Spec("app/production", clerk=ClerkSource(project.clerk.url))
    credentials = Credentials(project.clerk.secret_key, project.supabase.url(CONTROLLER))
    async with open_archive(spec, credentials, URLS) as opened:
        restored = await opened.archive.restore(ids([gone])[0], RestoreTerms("a person"))
    assert restored.links.restored == {"likes": 2}
    assert await fetch_value(project.url, "SELECT count(task) FROM likes") == 2


@pytest.mark.parametrize("role", ROLES)
async def test_the_webhook_service_creates_and_deletes_as_either_role(project: Project, role: str) -> None:
    gone = next(iter(project.clerk.users))
    async with real_service(project.clerk, project.supabase.url(role)):
        new = project.clerk.sign_up()
        project.clerk.delete(gone)
        await project.clerk.webhooks.settle()

        async def settled() -> bool:
            return await count(project.url, OWED) == 0

        await eventually(settled)
    assert [delivery.status for delivery in project.clerk.webhooks.deliveries] == [200, 200]
    assert (await rows_of(project.url, new))["user_progress"] == 1
    assert sum((await rows_of(project.url, gone)).values()) == 0
    assert await fetch_value(project.url, "SELECT count(*) FROM usersync.receipts") == 1


@pytest.mark.parametrize("role", ROLES)
async def test_users_delete_their_own_accounts_as_either_role(project: Project, role: str) -> None:
    user_id, other, *_ = list(project.clerk.users)
    await project.run()
    spec = replace(SPEC, account_deletion=AccountDeletion(enabled=True, authorized_parties=(ORIGIN,)))
    async with real_service(project.clerk, project.supabase.url(role), spec) as replica:

        async def served() -> bool:
            return any(endpoint.instance_id for endpoint in replica.resources.ending_accounts())

        await eventually(served)
        answer = await ask(replica.url, bearer(project.clerk.sessions.token(user_id, ORIGIN)))
        again = await ask(replica.url, bearer(project.clerk.sessions.token(user_id, ORIGIN)))
        project.clerk.switch_on(Fault(FaultName.FORBIDDEN, endpoint=Endpoint.DELETE))
        refused = await ask(replica.url, bearer(project.clerk.sessions.token(other, ORIGIN)))
    assert (answer.status, answer.content["rows"], again.content) == (200, WHOLE, answer.content)
    assert sum((await rows_of(project.url, user_id)).values()) == 0
    assert user_id not in project.clerk.users
    assert (refused.status, await rows_of(project.url, other), await count(project.url, OWED)) == (502, WHOLE, 0)


def promised() -> dict[str, tuple[str, str]]:
    """The table of the page: by table what each role may do."""
    rows = re.findall(
        r"^\| `((?:public|usersync)\.[a-z_*]+)` \|([^|]*)\|([^|]*)\|$", (SQL / "README.md").read_text(), re.MULTILINE
    )
    return {table: (controller.strip(), webhook.strip()) for table, controller, webhook in rows}


async def granted(url: str, role: str) -> dict[str, str]:
    """By table what the catalogue lets a role do, in the words of the page."""
    rows = await fetch(
        url,
        """
        SELECT n.nspname || '.' || c.relname AS name, concat_ws(' ',
            CASE WHEN has_table_privilege($1, c.oid, 'SELECT') THEN 'SELECT' END,
            CASE WHEN has_table_privilege($1, c.oid, 'INSERT') THEN 'INSERT' END,
            CASE WHEN has_table_privilege($1, c.oid, 'UPDATE') THEN 'UPDATE' ELSE (
                SELECT 'UPDATE(' || string_agg(a.attname, ',') || ')' FROM pg_attribute AS a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND has_column_privilege($1, c.oid, a.attnum, 'UPDATE')
            ) END,
            CASE WHEN has_table_privilege($1, c.oid, 'DELETE') THEN 'DELETE' END,
            CASE WHEN has_table_privilege($1, c.oid, 'TRUNCATE, REFERENCES, TRIGGER') THEN 'MORE' END
        ) AS rights
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('public', 'usersync') AND c.relkind IN ('r', 'v', 'm', 'p')
        """,
        role,
    )
    return {row["name"]: row["rights"] for row in rows}


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_may_do_what_the_page_says_and_nothing_more(project: Project, role: str) -> None:
    await execute(project.url, "CREATE TABLE secrets_of_the_application (user_id text)")
    page = promised()
    found = await granted(project.url, role)
    assert len(found) > 20
    assert found == {table: page.get(table, page[f"{table.partition('.')[0]}.*"])[ROLES.index(role)] for table in found}


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_is_nothing_but_a_login_that_bypasses_row_level_security(project: Project, role: str) -> None:
    (row,) = await fetch(project.url, "SELECT * FROM pg_roles WHERE rolname = $1", role)
    assert (row["rolcanlogin"], row["rolbypassrls"]) == (True, True)
    assert not any(row[f"rol{right}"] for right in ("super", "createrole", "createdb", "replication", "inherit"))
    members = "SELECT count(*) FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.member WHERE r.rolname = $1"
    assert await fetch_value(project.url, members, role) == 0
    owned = "SELECT count(*) FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner WHERE r.rolname = $1"
    assert await fetch_value(project.url, owned, role) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM usersync.receipts",
        "UPDATE usersync.tombstones SET reason = ''",
        "CREATE TABLE public.mine ()",
        "CREATE SCHEMA mine",
        "DROP TABLE tasks",
        "UPDATE tasks SET note = ''",
        "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY",
        "DROP POLICY usersync_select ON tasks",
        "SET ROLE hosted",
        "SET ROLE authenticated",
        "CREATE ROLE mine",
    ],
)
@pytest.mark.parametrize("role", ROLES)
async def test_what_neither_role_needs_is_refused(project: Project, role: str, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(project.supabase.url(role), statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO tasks (user_id) VALUES ('user_made')",
        "INSERT INTO usersync.lifted_tombstones VALUES (1, 'me')",
        "UPDATE usersync.approvals SET approved_by = 'me'",
    ],
)
async def test_the_webhook_service_can_neither_add_data_nor_lift_a_tombstone_nor_approve(
    project: Project, statement: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(project.supabase.url(WEBHOOK), statement)


async def test_a_table_of_a_later_migration_is_granted_as_it_is_made(project: Project) -> None:
    await execute(project.url, "CREATE TABLE usersync.of_a_later_version (user_id text)")
    for role in ROLES:
        found = await granted(project.url, role)
        assert found["usersync.of_a_later_version"] == "SELECT INSERT UPDATE DELETE"


async def test_migrating_as_the_admin_gives_our_role_no_more_than_the_page_says(project: Project) -> None:
    before = await granted(project.url, CONTROLLER)
    await execute(project.url, "DROP SCHEMA usersync CASCADE")
    await migrate(Access(project.supabase.url(CONTROLLER), admin_url=project.url))
    assert await granted(project.url, CONTROLLER) == before
