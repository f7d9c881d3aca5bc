"""Servers and databases that are set up oddly, or fail in the middle: a clear word, and nothing lost."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from controller.cli.demo.local_postgres import LocalPostgres
from controller.core.outcomes import Removal
from controller.errors import DatabaseUnavailable
from tests.support.databases import (
    connected,
    create_tables,
    execute,
    fetch,
    fetch_value,
    rows_of,
    seed,
    seed_users,
    until_waited_for,
    user_ids,
    users_with_rows,
)
from tests.support.stores import TERMS, ids, opened, proofs, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    import asyncpg

    from controller.postgres import Database

WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
TRACES = """
    SELECT (SELECT count(*) FROM usersync.archive) + (SELECT count(*) FROM usersync.tombstones)
"""


async def on_every_delete(url: str, body: str, *, each: str = "STATEMENT") -> None:
    """Let the application's own trigger do something before rows of `moods` go."""
    await execute(
        url,
        f"CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN OLD; END $$",
        f"CREATE TRIGGER guard BEFORE DELETE ON moods FOR EACH {each} EXECUTE FUNCTION guard()",
    )


async def sweep(database: Database, users: list[str], *, others: int = 0) -> None:
    """Remove all but the first of `users`, and list `others` who have no rows."""
    async with running(database, users[:1]) as run:
        await run.record_listed(ids(user_ids(others, start=1000)))
        await run.remove_users(proofs(users[1:]), TERMS)


async def next_run_removes(database: Database, gone: list[str], living: list[str]) -> None:
    for _ in range(10):
        # The pool meets the connections that an outage has cut, one by one.
        try:
            await database.pinned_instance()
        except DatabaseUnavailable:
            continue
        break
    async with running(database, living) as run:
        assert await run.remove_users(proofs(gone), TERMS) == Removal(users=len(gone), rows=7 * len(gone))


@dataclass
class Role:
    """A superuser to whom the limits that are set for it apply all the same."""

    server: LocalPostgres
    name: str
    database: str

    @property
    def url(self) -> str:
        return self.server.url(self.database, user=self.name)

    def set(self, setting: str) -> None:
        self.server.execute(f"ALTER ROLE {self.name} {setting}")


@pytest.fixture
def role(postgres_server: LocalPostgres, database_url: str) -> Iterator[Role]:
    database = database_url.rpartition("/")[2]
    role = Role(postgres_server, f"limited_in_{database}", database)
    postgres_server.execute(f"CREATE ROLE {role.name} LOGIN SUPERUSER")
    yield role
    postgres_server.drop_database(database)
    postgres_server.execute(f"DROP ROLE {role.name}")


@pytest.mark.parametrize("limit", ["statement_timeout = 100", "transaction_timeout = 200"])
async def test_time_limits_of_the_role_do_not_end_what_we_bound_ourselves(
    database_url: str, role: Role, limit: str
) -> None:
    users = user_ids(3)
    await seed_users(database_url, users)
    await on_every_delete(database_url, "PERFORM pg_sleep(0.3);")
    role.set(f"SET {limit}")
    async with opened(role.url) as database, running(database, users[:2]) as run:
        assert await run.remove_users(proofs(users[2:]), TERMS) == Removal(users=1, rows=7)


async def test_a_lock_timeout_of_the_role_does_not_shorten_ours(
    database_url: str, role: Role, postgres_server: LocalPostgres
) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    role.set("SET lock_timeout = 1")
    before = postgres_server.log.count("due to lock timeout")
    async with opened(role.url) as database, running(database, users[:1]) as run:
        async with connected(database_url) as application, application.transaction():
            await application.execute("SELECT 1 FROM moods WHERE user_id = $1 FOR UPDATE", users[1])
            removing = asyncio.create_task(run.remove_users(proofs(users[1:]), TERMS))
            await until_waited_for(application)
        assert await removing == Removal(users=1, rows=7)
    assert postgres_server.log.count("due to lock timeout") == before


@asynccontextmanager
async def removal_behind_a_lock(url: str, user: str, living: list[str]) -> AsyncIterator[asyncpg.Connection]:
    """A removal in the middle of its transaction, waiting for a row that the application holds."""
    async with opened(url) as database, running(database, living) as run, connected(url) as application:
        holding = application.transaction()
        await holding.start()
        await application.execute("SELECT 1 FROM moods WHERE user_id = $1 FOR UPDATE", user)
        removing = asyncio.create_task(run.remove_users(proofs([user]), TERMS))
        await until_waited_for(application)
        yield application
        await removing


async def test_a_removal_whose_statement_is_cancelled_has_done_nothing(database_url: str) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    with pytest.raises(DatabaseUnavailable, match="canceling statement due to user request"):
        async with removal_behind_a_lock(database_url, users[1], users[:1]) as application:
            await application.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            )
    assert await rows_of(database_url, users[1]) == WHOLE
    assert await fetch_value(database_url, TRACES) == 0
    async with opened(database_url) as database:
        await next_run_removes(database, users[1:], users[:1])


async def test_a_row_that_the_application_holds_for_long_is_waited_for_anew(
    database_url: str, postgres_server: LocalPostgres
) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    before = postgres_server.log.count("due to lock timeout")
    async with removal_behind_a_lock(database_url, users[1], users[:1]) as application:
        async with asyncio.timeout(20):
            while postgres_server.log.count("due to lock timeout") == before:  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.02)
        await application.execute("COMMIT")
    assert await users_with_rows(database_url) == {users[0]}


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_a_transaction_that_loses_once_is_done_again(database_url: str, state: str) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    # A sequence does not roll back, so it counts the attempts.
    await execute(database_url, "CREATE SEQUENCE attempts")
    await on_every_delete(database_url, f"IF nextval('attempts') = 1 THEN RAISE USING ERRCODE = '{state}'; END IF;")
    async with opened(database_url) as database, running(database, users[:1]) as run:
        assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users=1, rows=7)


async def test_a_user_whose_rows_are_always_held_by_others_is_left_and_the_others_go(database_url: str) -> None:
    users = user_ids(6)
    await seed_users(database_url, users)
    condition = f"IF OLD.user_id = '{users[3]}' THEN RAISE EXCEPTION '{users[3]}' USING ERRCODE = '40001'; END IF;"
    await on_every_delete(database_url, condition, each="ROW")
    async with opened(database_url) as database, running(database, users[:1]) as run:
        with capture_logs() as logs:
            assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users=4, rows=28, users_left=1)
    assert await users_with_rows(database_url) == {users[0], users[3]}
    (line,) = (line for line in logs if line["log_level"] == "warning")
    assert "a serialization failure" in line["reason"]
    assert users[3] not in str(line)


async def test_where_everybody_is_held_by_others_it_is_an_outage(database_url: str) -> None:
    users = user_ids(6)
    await seed_users(database_url, users)
    await on_every_delete(database_url, "RAISE USING ERRCODE = '40P01';")
    async with opened(database_url) as database, running(database, users[:1]) as run:
        with pytest.raises(DatabaseUnavailable, match="pg_stat_activity"):
            await run.remove_users(proofs(users[1:]), TERMS)
    assert await users_with_rows(database_url) == set(users)


async def test_a_deadlock_with_the_application_ends_in_favour_of_both(database_url: str) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    async with opened(database_url) as database, running(database, users[:1]) as run, connected(database_url) as held:
        # The one who looks first loses: not the application.
        await held.execute("SET deadlock_timeout = '1min'")
        async with held.transaction():
            await held.execute("SELECT 1 FROM user_progress WHERE user_id = $1 FOR UPDATE", users[1])
            removing = asyncio.create_task(run.remove_users(proofs(users[1:]), TERMS))
            await until_waited_for(held)
            await held.execute("UPDATE moods SET note = 'late' WHERE user_id = $1", users[1])
        assert await removing == Removal(users=1, rows=7)
    notes = await fetch(database_url, "SELECT content FROM usersync.archive WHERE table_name = 'moods'")
    assert all("late" in row["content"] for row in notes)


@pytest.mark.parametrize("whose", ["ROLE limited_in_{}", "DATABASE {}"])
async def test_a_database_that_was_set_to_read_only_is_an_outage_with_a_remedy(
    database_url: str, role: Role, postgres_server: LocalPostgres, whose: str
) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    async with opened(role.url) as database, running(database, users[:1]):
        pass
    postgres_server.execute(f"ALTER {whose.format(role.database)} SET default_transaction_read_only = on")
    async with opened(role.url, pin=False) as database:
        with pytest.raises(DatabaseUnavailable, match=r"read-only transaction\. .*URL of the primary, or make room"):
            await sweep(database, users)
    assert await rows_of(database_url, users[1]) == WHOLE


@pytest.fixture
def own_server() -> Iterator[LocalPostgres]:
    with LocalPostgres(settings={"wal_level": "replica"}) as server:
        yield server


@pytest.fixture
async def own_url(own_server: LocalPostgres) -> str:
    url = own_server.create_database("application")
    await create_tables(url)
    return url


async def test_a_standby_is_an_outage_and_once_it_is_promoted_the_next_run_goes_on(
    own_server: LocalPostgres, own_url: str
) -> None:
    """A fail-over in which our URL leads to the standby for a while."""
    users = user_ids(3)
    await seed_users(own_url, users)
    async with opened(own_url) as database:
        async with running(database, users[:1]) as run:
            (own_server.folder / "data" / "standby.signal").touch()
            own_server.restart()
            assert await fetch_value(own_url, "SELECT pg_is_in_recovery()")
            for _ in range(5):
                with pytest.raises(DatabaseUnavailable):
                    await run.remove_users(proofs(users[1:]), TERMS)
        with pytest.raises(DatabaseUnavailable, match=r"read-only transaction\. .*URL of the primary"):
            await sweep(database, users)
        assert await users_with_rows(own_url) == set(users)
        await fetch_value(own_url, "SELECT pg_promote()")
        await execute(own_url, "UPDATE usersync.locks SET heartbeat_at = heartbeat_at - interval '10 minutes'")
        await next_run_removes(database, users[1:], users[:1])
    assert await users_with_rows(own_url) == {users[0]}


def crash(server: LocalPostgres) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("outage", [LocalPostgres.restart, crash], ids=["restart", "crash"])
async def test_a_server_that_goes_in_the_middle_of_a_removal_has_done_none_of_it(
    own_server: LocalPostgres, own_url: str, outage: Callable[[LocalPostgres], None]
) -> None:
    users = user_ids(3)
    await seed_users(own_url, users)
    with pytest.raises(DatabaseUnavailable):
        async with removal_behind_a_lock(own_url, users[2], users[:2]):
            outage(own_server)
    assert await rows_of(own_url, users[2]) == WHOLE
    assert await fetch_value(own_url, TRACES) == 0
    await execute(own_url, "UPDATE usersync.locks SET heartbeat_at = heartbeat_at - interval '10 minutes'")
    async with opened(own_url) as database:
        await next_run_removes(database, users[2:], users[:2])
    states = await fetch(own_url, "SELECT state FROM usersync.runs ORDER BY started_at")
    assert [row["state"] for row in states] == ["failed", "failed"]


@pytest.fixture
def small_disk(own_server: LocalPostgres) -> Iterator[Path]:
    """A disk of 256 kB for a tablespace of the server."""
    folder = own_server.folder / "disk"
    folder.mkdir()
    owner = own_server.folder.stat()
    options = f"size=256k,uid={owner.st_uid},gid={owner.st_gid},mode=700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a full disk needs one to fill, and this account may not mount any: {mounted.stderr.strip()}")
    yield folder
    own_server.kill()
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("table", ["archive", "listed"])
async def test_a_full_disk_is_an_outage_with_a_remedy(
    own_server: LocalPostgres, own_url: str, small_disk: Path, table: str
) -> None:
    users = user_ids(20)
    await seed_users(own_url, users, rows=20)
    async with opened(own_url) as database:
        own_server.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
        (small_disk / "ballast").write_bytes(b"x" * 160_000)
        await execute(own_url, f"ALTER TABLE usersync.{table} SET TABLESPACE small")
        with pytest.raises(DatabaseUnavailable, match=r"No space left on device\. Make room on its disk"):
            await sweep(database, users, others=20_000)
        assert await users_with_rows(own_url) == set(users)
        assert await fetch_value(own_url, TRACES) == 0
        await execute(own_url, f"ALTER TABLE usersync.{table} SET TABLESPACE pg_default")
        async with running(database, users[:1]) as run:
            assert (await run.remove_users(proofs(users[1:]), TERMS)).users == 19


async def test_a_limit_for_temporary_files_is_an_outage_that_names_it(database_url: str, role: Role) -> None:
    users = user_ids(30_000)
    await seed(database_url, "moods", users)
    role.set("SET temp_file_limit = '64kB'")
    role.set("SET work_mem = '64kB'")
    async with opened(role.url) as database:
        with pytest.raises(DatabaseUnavailable, match=r"temp_file_limit.*Raise the limit that it names"):
            async with running(database, users[:1]):
                pass
        role.set("RESET temp_file_limit")
    async with opened(role.url) as database, running(database, users[:1]) as run:
        assert (await run.observe()).orphaned == len(users) - 1
