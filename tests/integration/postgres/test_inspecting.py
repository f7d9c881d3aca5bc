from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controller.core.targets import Role, Table, Target
from controller.errors import DatabaseRefused, RoleSeesNotAll, TablesMissing, TableUnsupported
from tests.support.databases import create_tables, execute, seed, user_ids
from tests.support.stores import ids, opened, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from controller.cli.demo.local_postgres import LocalPostgres
    from controller.core.ports import Inspection

NOTHING_LISTED = Target(tables=(Table("user_progress", Role.PROFILE),))


async def inspect(url: str, target: Target | None = None) -> Inspection:
    async with opened(url, target=target) as database:
        return await database.inspect()


@pytest.fixture
def role(postgres_server: LocalPostgres, database_url: str) -> Iterator[str]:
    """The URL of a role `app`, who may read and write the application's tables and migrate."""
    database = database_url.rpartition("/")[2]
    postgres_server.execute("CREATE ROLE app LOGIN")
    postgres_server.execute(f"GRANT CREATE ON DATABASE {database} TO app")
    postgres_server.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app", database=database)
    yield postgres_server.url(database, user="app")
    postgres_server.execute("DROP OWNED BY app CASCADE", database=database)
    postgres_server.execute("DROP ROLE app")


async def test_well_made_tables_give_no_warning(empty_database_url: str) -> None:
    await create_tables(empty_database_url, index=True, unique=True)
    inspection = await inspect(empty_database_url)
    assert inspection.warnings == ()
    assert inspection.missing_tables == ()


async def test_a_table_without_an_index_is_named_with_the_remedy(database_url: str) -> None:
    warnings = (await inspect(database_url)).warnings
    assert any('CREATE INDEX CONCURRENTLY ON "public"."tasks" ("user_id")' in warning for warning in warnings)
    assert len(warnings) == 4


@pytest.mark.parametrize(
    "index",
    [
        "CREATE INDEX ON tasks (created_at, user_id)",
        "CREATE INDEX ON tasks (user_id) WHERE note IS NOT NULL",
        "CREATE INDEX ON tasks (lower(user_id))",
    ],
)
async def test_an_index_that_cannot_find_a_user_does_not_count(database_url: str, index: str) -> None:
    await execute(database_url, index)
    assert any("public.tasks has no index" in warning for warning in (await inspect(database_url)).warnings)


async def test_an_index_that_begins_with_the_user_counts(database_url: str) -> None:
    await execute(database_url, "CREATE INDEX ON tasks (user_id, created_at)")
    assert not any("public.tasks has no index" in warning for warning in (await inspect(database_url)).warnings)


async def test_a_missing_data_table_is_skipped_and_reported(empty_database_url: str) -> None:
    await create_tables(empty_database_url, tables=("user_progress", "tasks"))
    inspection = await inspect(empty_database_url)
    assert inspection.missing_tables == ("daily_checkins", "moods")
    assert any("public.moods does not exist; it is skipped" in warning for warning in inspection.warnings)


async def test_a_schema_without_any_of_the_tables_is_refused_and_not_in_sync(database_url: str) -> None:
    said = r"in schema app: user_progress, tasks, daily_checkins, moods\. Is it the right database\?"
    with pytest.raises(TablesMissing, match=said):
        await inspect(database_url, Target(schema="app"))


async def test_a_run_does_not_begin_without_any_of_the_tables(database_url: str) -> None:
    async with opened(database_url) as database:
        await execute(database_url, "ALTER SCHEMA public RENAME TO elsewhere", "CREATE SCHEMA public")
        with pytest.raises(TablesMissing):
            async with running(database):
                pass


async def test_without_the_profile_table_the_run_goes_on_for_the_others(empty_database_url: str) -> None:
    users = user_ids(3)
    await create_tables(empty_database_url, tables=("tasks",))
    await seed(empty_database_url, "tasks", users[:2])
    async with opened(empty_database_url) as database:
        inspection = await database.inspect()
        assert any("profile table public.user_progress does not exist" in warning for warning in inspection.warnings)
        async with running(database, users[1:]) as run:
            drift = await run.observe()
            assert (drift.missing, drift.synced, drift.orphaned) == (0, 0, 1)
            assert await run.create_profiles(ids(users)) == 0
            assert (await run.reduce_duplicates(ids(users))).rows == 0


async def test_an_unlisted_table_with_users_is_named(database_url: str) -> None:
    await execute(database_url, "CREATE TABLE journal (user_id text)", "CREATE TABLE colours (name text)")
    (warning,) = [text for text in (await inspect(database_url)).warnings if "Not in spec.tables" in text]
    assert "journal.user_id" in warning
    assert "colours" not in warning


async def test_rows_of_unlisted_tables_that_would_go_along_are_named(database_url: str) -> None:
    await execute(
        database_url,
        "CREATE TABLE comments (task uuid REFERENCES tasks ON DELETE CASCADE, CONSTRAINT told CHECK (true))",
    )
    (warning,) = [text for text in (await inspect(database_url)).warnings if "CASCADE" in text]
    assert "comments" in warning
    assert "tasks" in warning


async def test_a_uuid_column_is_refused_with_the_reason(empty_database_url: str) -> None:
    await execute(empty_database_url, "CREATE TABLE user_progress (user_id uuid)")
    with pytest.raises(TableUnsupported, match=r"user_progress\.user_id is of type uuid.*Clerk's ids"):
        await inspect(empty_database_url)


@pytest.mark.parametrize("of_type", ["bigint", "char(40)", "jsonb", "citext", "text[]"])
async def test_a_column_that_cannot_hold_ids_is_refused(empty_database_url: str, of_type: str) -> None:
    await execute(empty_database_url, "CREATE EXTENSION citext", f"CREATE TABLE user_progress (user_id {of_type})")
    with pytest.raises(TableUnsupported, match="text or varchar"):
        await inspect(empty_database_url)


@pytest.mark.parametrize("of_type", ["text", "varchar", "varchar(64)", "clerk_id", 'text COLLATE "C"'])
async def test_a_column_of_text_is_served(empty_database_url: str, of_type: str) -> None:
    await execute(
        empty_database_url, "CREATE DOMAIN clerk_id AS text", f"CREATE TABLE user_progress (user_id {of_type})"
    )
    await seed(empty_database_url, "user_progress", user_ids(3))
    async with opened(empty_database_url, target=NOTHING_LISTED) as database:
        assert len(await database.sample_user_ids(10)) == 3
        async with running(database, user_ids(2)) as run:
            assert (await run.observe()).orphaned == 1


async def test_a_collation_that_ignores_case_is_refused(empty_database_url: str) -> None:
    await execute(
        empty_database_url,
        # Real ones need ICU, which not every build of the server has.
        'CREATE COLLATION no_case FROM "C"',
        "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'no_case'",
        "CREATE TABLE user_progress (user_id text COLLATE no_case)",
    )
    with pytest.raises(TableUnsupported, match="nondeterministic"):
        await inspect(empty_database_url)


async def test_a_missing_column_is_named(empty_database_url: str) -> None:
    await execute(empty_database_url, "CREATE TABLE user_progress (owner text)")
    with pytest.raises(TableUnsupported, match=r"public\.user_progress has no column user_id; set userIdColumn"):
        await inspect(empty_database_url)


ELSEWHERE = ("CREATE FOREIGN DATA WRAPPER nothing", "CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing")


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("CREATE VIEW user_progress AS SELECT 'user_a' AS user_id", "a view"),
        ("CREATE MATERIALIZED VIEW user_progress AS SELECT 'user_a' AS user_id", "a materialized view"),
        ("CREATE SEQUENCE user_progress", "a sequence"),
        ("CREATE FOREIGN TABLE user_progress (user_id text) SERVER elsewhere", "a foreign table"),
    ],
)
async def test_something_else_in_place_of_a_table_is_refused(
    empty_database_url: str, statement: str, kind: str
) -> None:
    await execute(empty_database_url, *ELSEWHERE, statement)
    with pytest.raises(TableUnsupported, match=rf"public\.user_progress is {kind}; name the table in spec\.tables"):
        await inspect(empty_database_url)


@pytest.mark.parametrize(
    "statements",
    [
        (
            "CREATE TABLE tasks (user_id text) PARTITION BY HASH (user_id)",
            "CREATE TABLE near PARTITION OF tasks FOR VALUES WITH (modulus 2, remainder 0) PARTITION BY LIST (user_id)",
            "CREATE FOREIGN TABLE far PARTITION OF near FOR VALUES IN ('user_a') SERVER elsewhere",
        ),
        (
            "CREATE TABLE tasks (user_id text)",
            "CREATE FOREIGN TABLE far () INHERITS (tasks) SERVER elsewhere",
        ),
    ],
    ids=["partition", "heir"],
)
async def test_a_table_of_which_a_part_is_on_another_server_is_refused(
    empty_database_url: str, statements: Sequence[str]
) -> None:
    await execute(empty_database_url, *ELSEWHERE, *statements)
    with pytest.raises(TableUnsupported, match=r"public\.tasks has a part on another server, the foreign table far"):
        await inspect(empty_database_url)


async def test_a_column_that_profiles_need_and_we_cannot_know_is_named(database_url: str) -> None:
    await execute(database_url, "ALTER TABLE user_progress ADD COLUMN email text NOT NULL")
    async with opened(database_url) as database:
        assert any("email" in warning for warning in (await database.inspect()).warnings)
        async with running(database, user_ids(1)) as run:
            with pytest.raises(TableUnsupported, match="email may not be NULL"):
                await run.create_profiles(ids(user_ids(1)))


async def test_a_profile_table_without_a_creation_time_is_warned_about(empty_database_url: str) -> None:
    await execute(empty_database_url, "CREATE TABLE user_progress (user_id text UNIQUE)")
    (warning,) = (await inspect(empty_database_url, NOTHING_LISTED)).warnings
    assert "has no column created_at" in warning


async def test_a_role_from_which_rows_are_hidden_is_refused(database_url: str, role: str) -> None:
    await execute(
        database_url, "ALTER TABLE moods ENABLE ROW LEVEL SECURITY", "CREATE POLICY all_rows ON moods USING (true)"
    )
    with pytest.raises(RoleSeesNotAll, match=r"public\.moods.*BYPASSRLS"):
        await inspect(role)


async def test_an_owner_under_forced_row_level_security_is_refused(database_url: str, role: str) -> None:
    await execute(
        database_url,
        "ALTER TABLE moods OWNER TO app",
        "ALTER TABLE moods ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE moods FORCE ROW LEVEL SECURITY",
    )
    with pytest.raises(RoleSeesNotAll):
        await inspect(role)


async def test_an_owner_sees_all_rows(database_url: str, role: str) -> None:
    await execute(database_url, "ALTER TABLE moods OWNER TO app", "ALTER TABLE moods ENABLE ROW LEVEL SECURITY")
    await seed(database_url, "moods", user_ids(3))
    async with opened(role) as database, running(database) as run:
        assert (await run.observe()).orphaned == 3


async def test_a_role_with_bypassrls_sees_all_rows(
    database_url: str, role: str, postgres_server: LocalPostgres
) -> None:
    postgres_server.execute("ALTER ROLE app BYPASSRLS")
    await execute(
        database_url, "ALTER TABLE moods ENABLE ROW LEVEL SECURITY", "ALTER TABLE moods FORCE ROW LEVEL SECURITY"
    )
    await seed(database_url, "moods", user_ids(3))
    async with opened(role) as database, running(database) as run:
        assert (await run.observe()).orphaned == 3


async def test_row_level_security_that_is_switched_on_in_the_middle_of_a_run_stops_it(
    database_url: str, role: str
) -> None:
    await seed(database_url, "moods", user_ids(3))
    async with opened(role) as database, running(database) as run:
        await execute(database_url, "ALTER TABLE moods ENABLE ROW LEVEL SECURITY")
        with pytest.raises(RoleSeesNotAll):
            await run.observe()


async def test_a_role_that_may_not_read_a_table_is_told_the_grant(database_url: str, role: str) -> None:
    await execute(database_url, "REVOKE ALL ON moods FROM app")
    with pytest.raises(DatabaseRefused, match="GRANT SELECT"):
        await inspect(role)


async def test_a_partitioned_table_is_served(database_url: str) -> None:
    await execute(
        database_url,
        "DROP TABLE moods",
        "CREATE TABLE moods (user_id text, created_at timestamptz DEFAULT now()) PARTITION BY HASH (user_id)",
        "CREATE TABLE moods_0 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE moods_1 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    )
    await seed(database_url, "moods", user_ids(4))
    async with opened(database_url) as database:
        assert not any("moods_0" in warning for warning in (await database.inspect()).warnings)
        async with running(database, user_ids(1)) as run:
            assert (await run.observe()).orphaned == 3


async def test_a_table_with_an_heir_that_has_columns_of_its_own_is_refused(database_url: str) -> None:
    """A row of the heir would go without what only the heir knows of it."""
    await execute(
        database_url,
        "CREATE TABLE alike () INHERITS (tasks)",
        'CREATE TABLE "Apart" (extra text) INHERITS (alike)',
    )
    with pytest.raises(TableUnsupported, match=r'public\.tasks has an heir with columns of its own, "Apart"'):
        async with opened(database_url):
            pass
    await execute(database_url, "ALTER TABLE tasks ADD COLUMN extra text")
    async with opened(database_url):
        pass
