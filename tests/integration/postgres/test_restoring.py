"""Users put back: what comes back, what stays, what is refused, and what no longer takes them away."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.claims import ClaimKind
from controller.core.removals import RemovalTerms
from controller.core.requests import Restored, RestoreTerms
from controller.core.suspects import Terms
from controller.core.targets import Deletion, DeletionPolicy, Role, Table, Target
from controller.errors import RequestRefused, TargetBusy
from tests.support.databases import (
    TABLES,
    connected,
    create_tables,
    execute,
    fetch,
    fetch_value,
    rows_of,
    seed,
    seed_users,
    user_id,
)
from tests.support.fakes.clock import FakeClock
from tests.support.stores import delivery, ids, opened, proofs, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controller.postgres import Database

(USER,) = ids([user_id(7)])
(OTHER,) = ids([user_id(8)])
WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
NOTHING = dict.fromkeys(TABLES, 0)
TERMS = RestoreTerms("somebody")
UNLIMITED = RemovalTerms.of(Deletion(), None)
ALONE = Target("public", (Table("things", Role.PROFILE),))


@dataclass
class Archived:
    """A database whose user was removed; `before` are his rows as texts, by table."""

    url: str
    database: Database
    before: dict[str, list[str]]

    async def now(self) -> dict[str, list[str]]:
        return await texts(self.url, self.before)

    async def restore(self, terms: RestoreTerms = TERMS) -> Restored:
        return await self.database.restore(USER, terms)


async def texts(url: str, tables: object) -> dict[str, list[str]]:
    """The user's rows as PostgreSQL writes them, by table."""
    assert isinstance(tables, (dict, tuple, list))
    return {
        table: [
            row["text"]
            for row in await fetch(url, f"SELECT t::text AS text FROM {table} AS t WHERE user_id = $1 ORDER BY 1", USER)
        ]
        for table in tables
    }


async def remove(database: Database, user: str = USER) -> None:
    """Remove him as a run does, by a proof."""
    async with running(database, [OTHER]) as run:
        removal = await run.remove_users(proofs([user]), UNLIMITED)
    assert removal.users == 1


@asynccontextmanager
async def archived(url: str, target: Target | None = None) -> AsyncIterator[Archived]:
    """His rows are in the tables; here they are removed, and the database stays open."""
    target = target or Target()
    async with opened(url, target=target) as database:
        before = await texts(url, [table.name for table in target.tables])
        await remove(database)
        yield Archived(url, database, before)


@asynccontextmanager
async def things(url: str, columns: str, *values: str) -> AsyncIterator[Archived]:
    """One table `things` with these columns; a row of his for each list of values is removed."""
    await execute(url, f"CREATE TABLE things (user_id text, {columns})")
    for row in values:
        await execute(url, f"INSERT INTO things OVERRIDING SYSTEM VALUE VALUES ('{USER}', {row})")
    async with archived(url, ALONE) as removed:
        assert await fetch_value(url, "SELECT count(*) FROM things") == 0
        yield removed


@pytest.fixture
async def whole(database_url: str) -> str:
    """The four tables with rows of two users."""
    await seed_users(database_url, [USER, OTHER])
    return database_url


async def test_a_removed_user_is_put_back_as_he_was(whole: str) -> None:
    others = await rows_of(whole, OTHER)
    async with archived(whole) as removed:
        assert await rows_of(whole, USER) == NOTHING
        restored = await removed.restore()
        assert dict(restored.rows) == WHOLE
        assert restored.tombstone_lifted
        assert await removed.now() == removed.before
    assert await rows_of(whole, OTHER) == others


async def test_what_was_put_back_stays_in_the_archive_and_is_not_put_back_twice(whole: str) -> None:
    async with archived(whole) as removed:
        await removed.restore()
        with pytest.raises(RequestRefused, match="7 were put back before"):
            await removed.restore()
    assert await rows_of(whole, USER) == WHOLE
    assert await fetch_value(whole, "SELECT count(restored_at) FROM usersync.archive") == 7


async def test_what_is_past_its_retention_is_not_put_back_in_part(whole: str) -> None:
    async with archived(whole) as removed:
        await execute(
            whole,
            "UPDATE usersync.archive SET expires_at = now() - interval '1 second'",
            "DELETE FROM usersync.archive WHERE id = (SELECT min(id) FROM usersync.archive WHERE table_name = 'tasks')",
        )
        with pytest.raises(RequestRefused, match="6 are past their retention"):
            await removed.restore()
    assert await rows_of(whole, USER) == NOTHING


async def test_a_user_of_whom_nothing_was_removed_is_refused(whole: str) -> None:
    async with archived(whole) as removed:
        with pytest.raises(RequestRefused, match="archive has no rows"):
            await removed.database.restore(OTHER, TERMS)


async def test_a_dry_run_says_what_it_would_do_and_changes_nothing(whole: str) -> None:
    async with archived(whole) as removed:
        restored = await removed.restore(replace(TERMS, dry_run=True))
        assert (dict(restored.rows), restored.tombstone_lifted) == (WHOLE, True)
        assert await rows_of(whole, USER) == NOTHING
        assert await fetch_value(whole, "SELECT count(*) FROM usersync.lifted_tombstones") == 0
        assert dict((await removed.restore()).rows) == WHOLE


async def test_the_receipt_says_who_asked_and_how_many_rows_came_back(whole: str) -> None:
    async with archived(whole) as removed:
        await removed.restore()
    (receipt,) = await fetch(whole, "SELECT * FROM usersync.receipts WHERE act = 'restored'")
    assert (receipt["requested_by"], receipt["reason"], receipt["counted"]) == ("somebody", "requested", False)
    assert json.loads(receipt["rows"]) == WHOLE
    assert await fetch_value(whole, "SELECT count(*) FROM usersync.receipt_chain") == 2


async def test_a_restored_user_gets_profiles_again_as_his_tombstone_is_lifted(whole: str) -> None:
    async with archived(whole) as removed:
        await removed.restore()
        await execute(whole, "DELETE FROM user_progress")
        await removed.database.create_profile(delivery("msg_1"), USER)
    assert (await rows_of(whole, USER))["user_progress"] == 1


async def test_a_restored_user_who_is_missing_waits_for_the_whole_grace_period_anew(whole: str) -> None:
    day = timedelta(days=1)
    async with archived(whole) as removed:
        await execute(
            whole,
            "INSERT INTO usersync.suspects SELECT 'public', '" + USER + "', 'ins_test', 'epoch', now() - interval "
            "'9 days', now()",
            f"INSERT INTO usersync.held_users VALUES ('public', '{USER}', 1)",
        )
        await removed.restore()
        assert await fetch_value(whole, "SELECT count(*) FROM usersync.suspects") == 0
        assert await fetch_value(whole, "SELECT count(*) FROM usersync.held_users") == 0
        async with running(removed.database, [OTHER]) as run:
            suspects, _ = await run.weigh(Terms(day, 3 * day, day), None, "header")
        assert (suspects.due, suspects.waiting) == (0, 1)


async def test_no_claim_of_before_takes_a_restored_user_away_again(whole: str) -> None:
    async with archived(whole) as removed:
        await execute(
            whole,
            *(
                f"INSERT INTO usersync.claims (schema_name, user_id, kind) VALUES ('public', '{USER}', '{kind}')"
                for kind in ("deletion", "second_sweep", "catch_up")
            ),
        )
        await removed.restore()
    assert [row["kind"] for row in await fetch(whole, "SELECT kind FROM usersync.claims")] == ["catch_up"]


async def test_a_deletion_announced_while_a_living_user_is_put_back_is_still_to_be_looked_into(whole: str) -> None:
    """Clerk was asked before, so he may have gone since; if he lives, Clerk's answer ends the claim."""
    async with archived(whole) as removed:
        await removed.database.record_claim(delivery("m1", "user.deleted"), USER, ClaimKind.DELETION)
        await removed.restore(replace(TERMS, lives=True))
    assert [row["kind"] for row in await fetch(whole, "SELECT kind FROM usersync.claims")] == ["deletion"]


async def test_a_second_sweep_that_was_under_way_does_not_take_a_restored_user_away(whole: str) -> None:
    clock = FakeClock()
    async with opened(whole, clock=clock) as database:
        await database.record_claim(delivery("msg_1", "user.deleted"), USER, ClaimKind.DELETION)
        (claim,) = await database.take_claims(1, timedelta(seconds=60))
        await database.settle_by_removal(claim, proofs([USER], clock)[0], Deletion())
        await execute(whole, "UPDATE usersync.claims SET due_at = now()")
        (sweep,) = await database.take_claims(1, timedelta(seconds=60))
        assert sweep.kind is ClaimKind.SECOND_SWEEP
        await database.restore(USER, TERMS)
        removal = await database.settle_by_removal(sweep, proofs([USER], clock)[0], Deletion())
        assert removal.users == 0
    assert await rows_of(whole, USER) == WHOLE


async def test_nobody_is_put_back_while_a_run_is_under_way(whole: str) -> None:
    async with archived(whole) as removed:
        async with running(removed.database, [OTHER]):
            with pytest.raises(TargetBusy):
                await removed.restore()
        await removed.restore()


async def test_only_the_named_tables_are_put_back_and_the_others_later(whole: str) -> None:
    async with archived(whole) as removed:
        restored = await removed.restore(replace(TERMS, tables=("tasks", "moods")))
        assert dict(restored.rows) == {"tasks": 2, "moods": 2}
        assert await rows_of(whole, USER) == NOTHING | {"tasks": 2, "moods": 2}
        assert dict((await removed.restore()).rows) == {"user_progress": 1, "daily_checkins": 2}


async def test_a_table_of_which_nothing_is_archived_is_named(whole: str) -> None:
    async with archived(whole) as removed:
        with pytest.raises(RequestRefused, match="no rows of the user from notes, only from daily_checkins, moods"):
            await removed.restore(replace(TERMS, tables=("notes",)))


async def test_a_table_that_is_gone_is_refused_naming_map_and_nothing_is_put_back(whole: str) -> None:
    async with archived(whole) as removed:
        await execute(whole, "DROP TABLE moods")
        with pytest.raises(RequestRefused, match=r"public\.moods does not exist.*--map moods=NEW"):
            await removed.restore()
    assert await rows_of(whole, USER, tables=("user_progress", "tasks")) == {"user_progress": 0, "tasks": 0}


async def test_a_table_that_is_not_listed_any_more_is_refused(whole: str) -> None:
    async with archived(whole):
        pass
    async with opened(whole, target=Target("public", Target().tables[:3])) as database:
        with pytest.raises(RequestRefused, match=r"public\.moods is not in spec\.tables"):
            await database.restore(USER, TERMS)


async def test_a_renamed_table_gets_its_rows_by_map(whole: str) -> None:
    async with archived(whole):
        await execute(whole, "ALTER TABLE moods RENAME TO feelings")
    target = Target("public", (*Target().tables[:3], Table("feelings")))
    async with opened(whole, target=target) as database:
        restored = await database.restore(USER, replace(TERMS, renamed={"moods": "feelings"}))
        assert dict(restored.rows)["feelings"] == 2


async def test_parents_are_put_back_before_their_children(whole: str) -> None:
    # the spec's order has the child first
    await execute(
        whole,
        "ALTER TABLE user_progress ADD task uuid REFERENCES tasks",
        "UPDATE user_progress AS p SET task = (SELECT id FROM tasks AS t WHERE t.user_id = p.user_id LIMIT 1)",
    )
    async with archived(whole) as removed:
        await removed.restore()
        assert await removed.now() == removed.before


async def test_tables_that_refer_to_each_other_are_put_back_where_the_keys_can_wait(whole: str) -> None:
    await execute(
        whole,
        "ALTER TABLE tasks ADD mood uuid REFERENCES moods DEFERRABLE",
        "ALTER TABLE moods ADD task uuid REFERENCES tasks DEFERRABLE",
        "UPDATE tasks AS t SET mood = (SELECT id FROM moods AS m WHERE m.user_id = t.user_id LIMIT 1)",
        "UPDATE moods AS m SET task = (SELECT id FROM tasks AS t WHERE t.user_id = m.user_id LIMIT 1)",
        # only so that the rows can be removed
        "ALTER TABLE tasks ALTER CONSTRAINT tasks_mood_fkey DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE moods ALTER CONSTRAINT moods_task_fkey DEFERRABLE INITIALLY DEFERRED",
    )
    async with archived(whole) as removed:
        await execute(
            whole,
            "ALTER TABLE tasks ALTER CONSTRAINT tasks_mood_fkey DEFERRABLE INITIALLY IMMEDIATE",
            "ALTER TABLE moods ALTER CONSTRAINT moods_task_fkey DEFERRABLE INITIALLY IMMEDIATE",
        )
        await removed.restore()
        assert await removed.now() == removed.before


async def test_a_row_whose_parent_is_gone_is_refused_naming_table_and_constraint(whole: str) -> None:
    await execute(
        whole,
        "CREATE TABLE projects (id int PRIMARY KEY)",
        "INSERT INTO projects VALUES (1)",
        "ALTER TABLE tasks ADD project int DEFAULT 1 REFERENCES projects",
    )
    async with archived(whole) as removed:
        await execute(whole, "UPDATE tasks SET project = NULL", "DELETE FROM projects")
        with pytest.raises(RequestRefused, match=r"public\.tasks refers to one that is not there.*tasks_project_fkey"):
            await removed.restore()
    assert await rows_of(whole, USER) == NOTHING


async def test_a_conflict_is_refused_naming_table_and_constraint_and_nothing_is_put_back(whole: str) -> None:
    ident = await fetch_value(whole, "SELECT id FROM tasks WHERE user_id = $1", USER)
    async with archived(whole) as removed:
        await execute(whole, f"INSERT INTO tasks (id, user_id) VALUES ('{ident}', '{OTHER}')")
        with pytest.raises(RequestRefused, match=r"public\.tasks: the constraint tasks_pkey.*--on-conflict skip"):
            await removed.restore()
    assert await rows_of(whole, USER) == NOTHING


async def test_with_skip_what_conflicts_stays_in_the_archive_and_can_be_put_back_later(whole: str) -> None:
    ident = await fetch_value(whole, "SELECT id FROM tasks WHERE user_id = $1", USER)
    async with archived(whole) as removed:
        await execute(whole, f"INSERT INTO tasks (id, user_id) VALUES ('{ident}', '{OTHER}')")
        restored = await removed.restore(replace(TERMS, skips_conflicts=True))
        assert (dict(restored.rows), dict(restored.skipped)) == (WHOLE | {"tasks": 1}, {"tasks": 1})
        await execute(whole, f"DELETE FROM tasks WHERE user_id = '{OTHER}'")
        assert dict((await removed.restore()).rows) == {"tasks": 1}
        assert await removed.now() == removed.before


async def test_with_skip_rows_that_refer_to_rows_of_the_same_table_find_them(empty_database_url: str) -> None:
    columns = "id int PRIMARY KEY, parent int REFERENCES things (id) DEFERRABLE INITIALLY DEFERRED"
    await create_tables(empty_database_url, tables=["others"])
    await execute(empty_database_url, f"CREATE TABLE things (user_id text, {columns})")
    # each but the last refers to the one after it
    for number in range(1, 9):
        parent = number + 1 if number < 8 else "NULL"
        await execute(
            empty_database_url,
            "BEGIN; SET CONSTRAINTS ALL DEFERRED; ALTER TABLE things DISABLE TRIGGER ALL; "
            f"INSERT INTO things VALUES ('{USER}', {number}, {parent}); ALTER TABLE things ENABLE TRIGGER ALL; COMMIT",
        )
    async with archived(empty_database_url, replace(ALONE, tables=(Table("others", Role.PROFILE), Table("things")))):
        pass
    await execute(
        empty_database_url,
        "ALTER TABLE things ALTER CONSTRAINT things_parent_fkey NOT DEFERRABLE",
        f"INSERT INTO things VALUES ('{OTHER}', 5)",
    )
    target = replace(ALONE, tables=(Table("others", Role.PROFILE), Table("things")))
    async with opened(empty_database_url, target=target) as database:
        restored = await database.restore(USER, replace(TERMS, skips_conflicts=True))
    assert (dict(restored.rows), dict(restored.skipped)) == ({"things": 7}, {"things": 1})


async def test_a_profile_of_today_is_a_conflict_also_without_a_unique_index(whole: str) -> None:
    async with archived(whole) as removed:
        await seed(whole, "user_progress", [USER])
        with pytest.raises(RequestRefused, match=r"has a profile row in public\.user_progress already"):
            await removed.restore()
        restored = await removed.restore(replace(TERMS, skips_conflicts=True))
        assert dict(restored.skipped) == {"user_progress": 1}
    assert await rows_of(whole, USER) == WHOLE


async def test_of_several_removals_the_older_one_comes_first(whole: str) -> None:
    async with archived(whole) as removed:
        await seed(whole, "tasks", [USER])
        await seed(whole, "user_progress", [USER])
        await execute(whole, "UPDATE user_progress SET note = 'the later one'")
        await remove(removed.database)
        with pytest.raises(RequestRefused, match="from several removals"):
            await removed.restore()
        restored = await removed.restore(replace(TERMS, skips_conflicts=True))
        assert dict(restored.rows) == WHOLE | {"tasks": 3}
        assert (await removed.now())["user_progress"] == removed.before["user_progress"]


async def test_surplus_profile_rows_stay_in_the_archive_unless_they_are_asked_for(whole: str) -> None:
    await seed(whole, "user_progress", [USER])
    async with opened(whole) as database:
        async with running(database, [USER]) as run:
            assert (await run.reduce_duplicates([USER])).rows == 1
        with pytest.raises(RequestRefused, match="1 are surplus profile rows: --duplicates"):
            await database.restore(USER, TERMS)
        restored = await database.restore(USER, replace(TERMS, duplicates=True))
    assert dict(restored.rows) == {"user_progress": 1}
    assert (await rows_of(whole, USER))["user_progress"] == 2


async def test_several_profile_rows_of_one_removal_are_put_back_as_they_were(whole: str) -> None:
    await seed(whole, "user_progress", [USER])
    async with archived(whole) as removed:
        await removed.restore()
        assert await removed.now() == removed.before


async def test_a_trigger_that_swallows_rows_is_refused_with_words(whole: str) -> None:
    async with archived(whole) as removed:
        await execute(
            whole,
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER swallow BEFORE INSERT ON moods FOR EACH ROW EXECUTE FUNCTION swallow()",
        )
        with pytest.raises(RequestRefused, match=r"2 of 2 rows did not arrive in public\.moods"):
            await removed.restore()
    assert await rows_of(whole, USER) == NOTHING


async def test_computed_and_identity_columns_come_back_as_they_were(empty_database_url: str) -> None:
    columns = "id bigint GENERATED ALWAYS AS IDENTITY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED"
    async with things(empty_database_url, columns, "42, 3") as removed:
        await removed.restore()
        assert await removed.now() == removed.before


async def test_a_column_added_since_gets_its_default(empty_database_url: str) -> None:
    async with things(empty_database_url, "a int", "1") as removed:
        await execute(empty_database_url, "ALTER TABLE things ADD b int NOT NULL DEFAULT 5, ADD c text")
        await removed.restore()
    (row,) = await fetch(empty_database_url, "SELECT a, b, c FROM things")
    assert tuple(row) == (1, 5, None)


async def test_a_required_column_added_since_is_refused_by_name(empty_database_url: str) -> None:
    async with things(empty_database_url, "a int", "1") as removed:
        await execute(empty_database_url, "ALTER TABLE things ADD b int NOT NULL")
        with pytest.raises(RequestRefused, match=r"public\.things\.b was added since"):
            await removed.restore()


async def test_what_a_dropped_column_held_stays_in_the_archive_and_is_named(empty_database_url: str) -> None:
    async with things(empty_database_url, "a int, b text, c text", "1, 'kept', NULL") as removed:
        await execute(empty_database_url, "ALTER TABLE things DROP b, DROP c")
        restored = await removed.restore()
    assert dict(restored.left) == {"things": ("b",)}
    assert await fetch_value(empty_database_url, "SELECT a FROM things") == 1
    assert await fetch_value(empty_database_url, "SELECT content ->> 'b' FROM usersync.archive") == "kept"


async def test_a_column_computed_since_is_left_to_the_server_and_named(empty_database_url: str) -> None:
    async with things(empty_database_url, "a int, b int", "1, 7") as removed:
        await execute(empty_database_url, "ALTER TABLE things DROP b, ADD b int GENERATED ALWAYS AS (a + 1) STORED")
        restored = await removed.restore()
    assert dict(restored.left) == {"things": ("b",)}
    assert await fetch_value(empty_database_url, "SELECT b FROM things") == 2


async def test_the_rows_belong_to_the_user_also_when_his_column_has_another_name_now(empty_database_url: str) -> None:
    async with things(empty_database_url, "a int", "1"):
        await execute(empty_database_url, "ALTER TABLE things RENAME user_id TO owner")
    target = Target("public", (Table("things", Role.PROFILE, "owner"),))
    async with opened(empty_database_url, target=target) as database:
        restored = await database.restore(USER, TERMS)
    assert await fetch_value(empty_database_url, "SELECT owner FROM things") == USER
    assert dict(restored.left) == {}


RETYPED = [
    ("int", "5", "bigint", "5"),
    ("int", "5", "numeric(10,2)", "5.00"),
    ("numeric(10,4)", "1.2300", "numeric(10,2)", "1.23"),
    ("numeric(10,4)", "NULL", "int", None),
    ("varchar(20)", "'abc'", "varchar(3)", "abc"),
    ("varchar(20)", "'abc'", "text", "abc"),
    ("text", "'7'", "int", "7"),
    ("text", "'yes'", "boolean", "true"),
    ("text", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("date", "'2024-02-29'", "timestamptz", "2024-02-29 00:00:00+00"),
    ("timestamptz", "'2024-02-29 00:00:00+00'", "date", "2024-02-29"),
    ("timestamptz(6)", "'2024-02-29 10:11:12.5+00'", "timestamptz(1)", "2024-02-29 10:11:12.5+00"),
    ("text[]", "'{1,2}'", "int[]", "{1,2}"),
    ("json", "'{\"b\":  1}'", "jsonb", '{"b": 1}'),
    ("float8", "'NaN'", "numeric", "NaN"),
]


@pytest.mark.parametrize(("old", "value", "new", "then"), RETYPED)
async def test_a_value_that_the_new_type_holds_is_put_back(
    empty_database_url: str, old: str, value: str, new: str, then: str | None
) -> None:
    async with things(empty_database_url, f"a {old}", value) as removed:
        await execute(empty_database_url, f"ALTER TABLE things DROP a, ADD a {new}")
        await removed.restore()
    async with connected(empty_database_url) as connection:
        await connection.execute("SET timezone = 'UTC'")
        assert await connection.fetchval("SELECT a::text FROM things") == then


async def test_a_retyped_value_is_compared_alike_whatever_the_database_writes_by_itself(
    empty_database_url: str,
) -> None:
    url = empty_database_url
    await execute(
        url,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET datestyle = ''German, DMY''', current_database()); "
        "EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kathmandu''', current_database()); END $$",
    )
    async with things(url, "a timestamptz", "'2024-02-29 00:00:00+00'") as removed:
        await execute(url, "ALTER TABLE things DROP a, ADD a date")
        await removed.restore()
    assert await fetch_value(url, "SELECT a = '2024-02-29'::date FROM things")


CUT = [
    ("text", "'abcdef'", "varchar(3)", "does not read"),
    ("text", "'abc   '", "varchar(3)", "cut or round"),
    ("numeric(10,4)", "1.2345", "numeric(10,2)", "cut or round"),
    ("numeric", "1.5", "int", "does not read"),
    ("bigint", "5000000000", "int", "does not read"),
    ("bigint", "16777217", "real", "cut or round"),
    ("float8", "0.123456789012345", "real", "cut or round"),
    ("timestamptz", "'2024-02-29 10:00:00+00'", "date", "cut or round"),
    ("timestamptz", "'2024-02-29 10:11:12.345+00'", "timestamptz(0)", "cut or round"),
    ("text", "'not a number'", "int", "does not read"),
    ("text", "'1.234'", "numeric(10,2)", "cut or round"),
    ("bytea", r"'\x01'", "uuid", "does not read"),
]


@pytest.mark.parametrize(("old", "value", "new", "why"), CUT)
async def test_a_value_that_the_new_type_would_cut_or_not_read_is_refused_naming_column_and_types(
    empty_database_url: str, old: str, value: str, new: str, why: str
) -> None:
    # a good value beside it must not hide it
    async with things(empty_database_url, f"a {old}", "NULL", value) as removed:
        await execute(empty_database_url, f"ALTER TABLE things DROP a, ADD a {new}")
        types = [
            row["type"]
            for row in await fetch(
                empty_database_url,
                "SELECT format_type(atttypid, atttypmod) AS type FROM pg_attribute "
                "WHERE attrelid = 'things'::regclass AND attname = 'a'",
            )
        ]
        with pytest.raises(RequestRefused, match=why) as refused:
            await removed.restore()
        assert "public.things.a was " in str(refused.value)
        assert types[0] in str(refused.value)
        assert await fetch_value(empty_database_url, "SELECT count(*) FROM things") == 0


async def test_a_label_that_an_enum_lost_is_refused_naming_the_column(empty_database_url: str) -> None:
    await execute(empty_database_url, "CREATE TYPE colour AS ENUM ('red', 'green')")
    async with things(empty_database_url, "a colour", "'red'") as removed:
        await execute(
            empty_database_url,
            "ALTER TABLE things DROP a",
            "DROP TYPE colour",
            "CREATE TYPE colour AS ENUM ('green')",
            "ALTER TABLE things ADD a colour",
        )
        with pytest.raises(RequestRefused, match=r"public\.things\.a was colour and is colour now"):
            await removed.restore()


async def test_a_type_that_is_gone_is_compared_by_its_text(empty_database_url: str) -> None:
    await execute(empty_database_url, "CREATE TYPE colour AS ENUM ('red', 'green')")
    async with things(empty_database_url, "a colour", "'red'") as removed:
        await execute(empty_database_url, "ALTER TABLE things ALTER a TYPE text", "DROP TYPE colour")
        await removed.restore()
    assert await fetch_value(empty_database_url, "SELECT a FROM things") == "red"


async def test_rows_archived_before_layouts_were_kept_are_put_back_too(empty_database_url: str) -> None:
    url = empty_database_url
    columns = "n numeric, t timestamptz, j jsonb, l int[], b boolean, d float8"
    values = "1.50, '2024-02-29 10:00:00+02', '{\"a\": [1, null]}', '{1,2}', true, 'NaN'"
    await execute(
        url, f"CREATE TABLE things (user_id text, {columns})", f"INSERT INTO things VALUES ('{USER}', {values})"
    )
    before = await texts(url, ["things"])
    content = await fetch_value(url, "SELECT to_jsonb(things)::text FROM things")
    async with archived(url, ALONE) as removed:
        await execute(
            url,
            f"UPDATE usersync.archive SET layout_id = NULL, content = '{content}'",
        )
        await removed.restore()
        assert await texts(url, ["things"]) == before


async def test_a_number_archived_before_layouts_were_kept_is_not_rounded(empty_database_url: str) -> None:
    async with things(empty_database_url, "n numeric", "1.55") as removed:
        await execute(
            empty_database_url,
            "UPDATE usersync.archive SET layout_id = NULL, content = content || '{\"n\": 1.55}'",
            "ALTER TABLE things DROP n, ADD n numeric(4, 1)",
        )
        with pytest.raises(RequestRefused, match="cut or round"):
            await removed.restore()


async def test_json_null_and_sql_null_are_told_apart(empty_database_url: str) -> None:
    async with things(empty_database_url, "a jsonb, b json", "'null', 'null'", "NULL, NULL") as removed:
        await removed.restore()
        assert await removed.now() == removed.before
    assert await fetch_value(empty_database_url, "SELECT count(*) FROM things WHERE a IS NULL AND b IS NULL") == 1


async def test_an_erased_user_cannot_be_put_back(whole: str) -> None:
    async with opened(whole) as database:
        async with running(database, [OTHER]) as run:
            erasing = replace(UNLIMITED, policy=DeletionPolicy.ERASE)
            await run.remove_users(proofs([USER]), erasing)
        with pytest.raises(RequestRefused, match="archive has no rows"):
            await database.restore(USER, TERMS)
