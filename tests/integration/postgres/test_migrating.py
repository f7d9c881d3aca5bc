from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from controller.core.targets import Target
from controller.errors import SchemaMissing
from controller.postgres import Database, migrate, migration_sql, schema_version
from controller.postgres.migrating import migrations
from controller.settings import Access
from tests.support.databases import connected, create_tables, execute, fetch, fetch_value
from tests.support.fakes.clock import FakeClock
from tests.support.stores import INSTANCE, TERMS, ids, opened, proofs, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.cli.demo.local_postgres import LocalPostgres

OUTSIDERS = ("anon", "authenticated")


@pytest.fixture
def outsiders(postgres_server: LocalPostgres) -> Iterator[None]:
    """The roles of Supabase's clients."""
    for role in OUTSIDERS:
        postgres_server.execute(f"CREATE ROLE {role}")
    yield
    for role in OUTSIDERS:
        postgres_server.execute(f"DROP ROLE {role}")


@pytest.fixture
def plain_role(postgres_server: LocalPostgres, empty_database_url: str) -> Iterator[str]:
    """The URL of a role that may connect, and nothing else."""
    database = empty_database_url.rpartition("/")[2]
    postgres_server.execute("CREATE ROLE plain LOGIN")
    yield postgres_server.url(database, user="plain")
    postgres_server.execute("DROP OWNED BY plain", database=database)
    postgres_server.execute("DROP ROLE plain")


async def structure(url: str) -> list[tuple[object, ...]]:
    """Tables, columns, indexes and checks of our schema."""
    rows = await fetch(
        url,
        """
        SELECT table_name::text, column_name::text, data_type || is_nullable || coalesce(column_default, '')
        FROM information_schema.columns WHERE table_schema = 'usersync'
        UNION ALL
        SELECT tablename::text, indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'usersync'
        UNION ALL
        SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'usersync'::regnamespace
        ORDER BY 1, 2, 3
        """,
    )
    return [tuple(row) for row in rows]


def test_no_file_of_the_migrations_is_passed_over_for_its_name() -> None:
    scripts = (files("controller.postgres") / "migrations").iterdir()
    assert {f"{migration}.sql" for migration in migrations()} == {file.name for file in scripts}


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, schema_version() + 1))


async def test_migrating_applies_every_step_once(empty_database_url: str) -> None:
    assert await migrate(empty_database_url) == tuple(map(str, migrations()))
    assert await migrate(empty_database_url) == ()


async def test_two_who_migrate_at_once_apply_every_step_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))
    assert sorted(step for steps in applied for step in steps) == sorted(map(str, migrations()))


async def test_the_printed_sql_makes_the_same_schema_and_may_be_run_again(
    empty_database_url: str, postgres_server: LocalPostgres
) -> None:
    await migrate(empty_database_url)
    by_hand = postgres_server.create_database("by_hand")
    try:
        async with connected(by_hand) as connection:
            await connection.execute(migration_sql())
            await connection.execute(migration_sql())
        assert await migrate(by_hand) == ()
        assert await structure(by_hand) == await structure(empty_database_url)
    finally:
        postgres_server.drop_database("by_hand")


async def test_a_role_that_was_granted_the_printed_schema_can_do_a_run(
    empty_database_url: str, plain_role: str
) -> None:
    await execute(
        empty_database_url,
        "CREATE TABLE user_progress (user_id text)",
        "GRANT SELECT, INSERT, DELETE, UPDATE ON user_progress TO plain",
        "INSERT INTO user_progress VALUES ('user_a'), ('user_b')",
        migration_sql(role="plain"),
    )
    async with opened(plain_role) as database, running(database, ["user_a", "user_c"]) as run:
        assert await run.create_profiles(ids(["user_c"])) == 1
        assert (await run.remove_users(proofs(["user_b"]), TERMS)).users == 1


async def test_the_admin_role_migrates_and_lets_ours_work_with_the_schema(
    empty_database_url: str, plain_role: str
) -> None:
    await create_tables(empty_database_url)
    await execute(empty_database_url, "GRANT SELECT, INSERT, DELETE, UPDATE ON ALL TABLES IN SCHEMA public TO plain")
    await execute(empty_database_url, "INSERT INTO user_progress (user_id) VALUES ('user_a'), ('user_b')")
    access = Access(plain_role, admin_url=empty_database_url)
    async with Database.open(access, Target(), FakeClock()) as database:
        await database.inspect()
        await database.pin_instance(INSTANCE)
        async with running(database, ["user_a", "user_c"]) as run:
            assert await run.create_profiles(ids(["user_c"])) == 1
            assert (await run.remove_users(proofs(["user_b"]), TERMS)).users == 1
    owners = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'usersync'"
    assert await fetch_value(empty_database_url, owners) == "postgres"


async def test_a_role_that_may_not_create_is_told_what_to_run(plain_role: str) -> None:
    with pytest.raises(SchemaMissing, match="usersync migrate --print"):
        await migrate(plain_role)


async def test_first_contact_migrates(database_url: str) -> None:
    async with Database.open(database_url, Target(), FakeClock()) as database:
        await database.inspect()
        await database.check_schema()


async def test_a_process_that_may_not_migrate_finds_the_schema_missing(empty_database_url: str) -> None:
    async with Database.open(empty_database_url, Target(), FakeClock(), may_migrate=False) as database:
        with pytest.raises(SchemaMissing, match="is missing"):
            await database.inspect()
    assert await fetch_value(empty_database_url, "SELECT to_regnamespace('usersync')") is None


async def test_an_older_schema_is_missing_to_a_newer_program(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    await execute(empty_database_url, "UPDATE usersync.schema_migrations SET version = version - 1")
    async with Database.open(empty_database_url, Target(), FakeClock()) as database:
        with pytest.raises(SchemaMissing, match="usersync migrate"):
            await database.check_schema()


async def test_a_newer_schema_serves_an_older_program(database_url: str) -> None:
    await migrate(database_url)
    await execute(database_url, "INSERT INTO usersync.schema_migrations (version, name) VALUES (99, 'later')")
    async with Database.open(database_url, Target(), FakeClock()) as database:
        await database.inspect()
    assert await migrate(database_url) == ()


async def test_a_schema_that_was_dropped_is_named(database_url: str) -> None:
    async with opened(database_url) as database:
        await execute(database_url, "DROP SCHEMA usersync CASCADE")
        with pytest.raises(SchemaMissing, match="usersync migrate"):
            await database.pinned_instance()


@pytest.mark.usefixtures("outsiders")
async def test_clients_of_supabase_have_no_right_in_the_schema(empty_database_url: str) -> None:
    await execute(
        empty_database_url,
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, authenticated",
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO anon, authenticated",
    )
    try:
        await migrate(empty_database_url)
        rights = await fetch(
            empty_database_url,
            """
            SELECT c.relname, r.role FROM pg_class AS c CROSS JOIN unnest($1::text[]) AS r (role)
            WHERE c.relnamespace = 'usersync'::regnamespace AND c.relkind = 'r'
                AND has_table_privilege(r.role, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
            UNION ALL
            SELECT 'usersync', role FROM unnest($1::text[]) AS r (role)
            WHERE has_schema_privilege(role, 'usersync', 'USAGE, CREATE')
            """,
            list(OUTSIDERS),
        )
        assert rights == []
    finally:
        await execute(empty_database_url, "DROP OWNED BY anon, authenticated")
