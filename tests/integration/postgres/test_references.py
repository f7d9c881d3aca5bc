"""Foreign keys that delete, unlink or hold rows: what a removal and a reduction do about them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest
from structlog.testing import capture_logs

from controller.core.claims import ClaimKind
from controller.core.outcomes import Reduction, Removal
from controller.core.targets import Role, Table, Target
from tests.support.databases import (
    connected,
    create_tables,
    execute,
    fetch_value,
    rows_of,
    seed,
    seed_users,
    until,
    until_waited_for,
    user_ids,
    user_ids_in,
    users_with_rows,
)
from tests.support.stores import DELETION, TERMS, delivery, ids, opened, proofs, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.cli.demo.local_postgres import LocalPostgres

WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
INDEXED = pytest.mark.parametrize("index", [True, False], ids=["indexed", "by-place"])
CASCADE_TO_COMMENTS = (
    "CREATE TABLE comments (body text, task uuid CONSTRAINT of_task REFERENCES tasks ON DELETE CASCADE)"
)
TASKS_OF_MOODS = "ALTER TABLE tasks ADD COLUMN mood uuid CONSTRAINT in_mood REFERENCES moods ON DELETE CASCADE"
"""Tasks belong to a mood, which may be another user's: children of `tasks` go with the parents of `moods`."""


async def unlisted_cascades(url: str, target: Target | None = None) -> tuple[str, ...]:
    async with opened(url, target=target) as database:
        return (await database.inspect()).unlisted_cascades


def own(table: str, column: str, parent: str) -> str:
    """Let the rows of each user refer to a row of his own."""
    first = f"SELECT id FROM {parent} AS p WHERE p.user_id = c.user_id ORDER BY id LIMIT 1"
    return f"UPDATE {table} AS c SET {column} = ({first})"


async def archived(url: str) -> int:
    count: int = await fetch_value(url, "SELECT count(*) FROM usersync.archive")
    return count


# Cascades into tables that are not listed.


async def test_a_cascade_into_an_unlisted_table_is_named_with_the_remedy(database_url: str) -> None:
    await execute(database_url, CASCADE_TO_COMMENTS)
    (sentence,) = await unlisted_cascades(database_url)
    assert "foreign key of_task deletes rows of public.comments along with those of public.tasks" in sentence
    assert "List comments in spec.tables" in sentence
    assert "ON DELETE NO ACTION" in sentence


@pytest.mark.parametrize("rule", ["NO ACTION", "RESTRICT", "SET NULL", "SET DEFAULT"])
async def test_another_action_into_an_unlisted_table_is_no_cascade(database_url: str, rule: str) -> None:
    await execute(database_url, f"CREATE TABLE comments (task uuid REFERENCES tasks ON DELETE {rule})")
    assert await unlisted_cascades(database_url) == ()


async def test_a_cascade_into_a_listed_table_is_not_held_against_it(database_url: str) -> None:
    await execute(
        database_url, TASKS_OF_MOODS, "ALTER TABLE tasks ADD COLUMN up uuid REFERENCES tasks ON DELETE CASCADE"
    )
    assert await unlisted_cascades(database_url) == ()


async def test_a_table_of_the_same_name_in_another_schema_is_not_listed(database_url: str) -> None:
    await execute(
        database_url,
        "CREATE SCHEMA other",
        "CREATE TABLE other.tasks (mood uuid REFERENCES public.moods ON DELETE CASCADE)",
    )
    (sentence,) = await unlisted_cascades(database_url)
    assert "other.tasks" in sentence


async def test_a_cascade_between_partitioned_tables_is_named_once(database_url: str) -> None:
    await execute(
        database_url,
        "DROP TABLE moods",
        "CREATE TABLE moods (id int PRIMARY KEY, user_id text) PARTITION BY LIST (id)",
        "CREATE TABLE moods_1 PARTITION OF moods FOR VALUES IN (1)",
        "CREATE TABLE moods_2 PARTITION OF moods FOR VALUES IN (2)",
        "CREATE TABLE comments (mood int REFERENCES moods ON DELETE CASCADE) PARTITION BY LIST (mood)",
        "CREATE TABLE comments_1 PARTITION OF comments FOR VALUES IN (1)",
    )
    (sentence,) = await unlisted_cascades(database_url)
    assert "rows of public.comments along with those of public.moods " in sentence


@pytest.mark.parametrize(
    "part",
    ["PARTITION OF moods (PRIMARY KEY (id)) FOR VALUES IN (1)", "(PRIMARY KEY (id)) INHERITS (moods)"],
    ids=["partition", "heir"],
)
async def test_a_cascade_from_a_part_of_a_listed_table_is_found(database_url: str, part: str) -> None:
    """A DELETE reaches the partitions of the table, and its heirs."""
    await execute(
        database_url,
        "DROP TABLE moods",
        f"CREATE TABLE moods (id int, user_id text) {'PARTITION BY LIST (id)' if 'PARTITION' in part else ''}",
        f"CREATE TABLE moods_1 {part}",
        "CREATE TABLE comments (mood int REFERENCES moods_1 ON DELETE CASCADE)",
    )
    (sentence,) = await unlisted_cascades(database_url)
    assert "along with those of public.moods_1 " in sentence


async def test_a_cascade_from_the_whole_of_which_only_a_partition_is_listed_is_found(database_url: str) -> None:
    await execute(
        database_url,
        "CREATE TABLE events (id int PRIMARY KEY, user_id text) PARTITION BY LIST (id)",
        "CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1)",
        "CREATE TABLE comments (event int CONSTRAINT of_event REFERENCES events ON DELETE CASCADE)",
    )
    target = Target(tables=(Table("user_progress", Role.PROFILE), Table("events_1")))
    (sentence,) = await unlisted_cascades(database_url, target)
    assert "rows of public.comments along with those of public.events_1 " in sentence


async def test_while_a_cascade_leads_to_an_unlisted_table_nobody_is_removed(database_url: str) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    await execute(database_url, CASCADE_TO_COMMENTS, "INSERT INTO comments SELECT 'one', id FROM tasks")
    async with opened(database_url) as database, running(database) as run:
        assert await run.remove_users(proofs(users), TERMS) == Removal(users_left=2)
    assert await rows_of(database_url, users[0]) == WHOLE
    assert await fetch_value(database_url, "SELECT count(*) FROM comments") == 4
    assert await archived(database_url) == 0


async def test_a_claim_waits_and_the_log_names_the_cascade(database_url: str) -> None:
    (user,) = ids(user_ids(1))
    await seed_users(database_url, [user])
    await execute(database_url, CASCADE_TO_COMMENTS)
    async with opened(database_url) as database:
        await database.record_claim(delivery("m1"), user, ClaimKind.DELETION)
        (claim,) = await database.take_claims(1, timedelta(seconds=30))
        with capture_logs() as logs:
            assert await database.settle_by_removal(claim, proofs([user])[0], DELETION) == Removal(users_left=1)
        assert await database.next_claim_due() is not None
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert "of_task deletes rows of public.comments" in warning["reason"]
    assert await rows_of(database_url, user) == WHOLE


async def test_once_the_table_is_listed_its_rows_are_removed_and_archived(database_url: str) -> None:
    (user,) = user_ids(1)
    await seed_users(database_url, [user])
    await execute(
        database_url,
        CASCADE_TO_COMMENTS,
        "ALTER TABLE comments ADD COLUMN user_id text",
        f"INSERT INTO comments SELECT 'one', id, '{user}' FROM tasks",
    )
    target = Target(tables=(*Target().tables, Table("comments")))
    async with opened(database_url, target=target) as database, running(database) as run:
        assert await run.remove_users(proofs([user]), TERMS) == Removal(users=1, rows=9)
    assert await archived(database_url) == 9


# Cascades among listed tables.


@INDEXED
@pytest.mark.parametrize("owner", ["another", "system", None])
@pytest.mark.parametrize("refers", ["tasks", "moods"])
async def test_a_user_to_whose_row_a_cascade_binds_somebody_elses_is_left_whole_and_the_others_go(
    empty_database_url: str, refers: str, owner: str | None, *, index: bool
) -> None:
    users = user_ids(10)
    living, bound = user_ids(2, start=10)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, [*users, living, bound])
    await execute(
        empty_database_url,
        f"ALTER TABLE {refers} ADD COLUMN mood uuid REFERENCES moods ON DELETE CASCADE",
        own(refers, "mood", "moods"),
        f"INSERT INTO {refers} (user_id, mood) SELECT {'NULL' if owner is None else repr(owner)}, id FROM moods "
        f"WHERE user_id = '{bound}' LIMIT 1",
        f"UPDATE {refers} SET user_id = '{living}' WHERE user_id = 'another'",
    )
    before = await fetch_value(empty_database_url, f"SELECT count(*) FROM {refers}")
    with capture_logs() as logs:
        async with opened(empty_database_url) as database, running(database, [living]) as run:
            assert await run.remove_users(proofs([*users, bound]), TERMS) == Removal(users=10, rows=70, users_left=1)
    assert await rows_of(empty_database_url, bound) == WHOLE
    assert await fetch_value(empty_database_url, f"SELECT count(*) FROM {refers}") == before - 20
    assert await archived(empty_database_url) == 70
    (warning,) = [entry for entry in logs if entry["event"] == "user_left" and entry["log_level"] == "warning"]
    assert f"of public.{refers} to public.moods (ON DELETE CASCADE)" in warning["reason"]


async def test_rows_of_users_who_go_together_do_not_bind_each_other(database_url: str) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    await execute(
        database_url, TASKS_OF_MOODS, "UPDATE tasks AS t SET mood = (SELECT id FROM moods AS m "
        "WHERE m.user_id <> t.user_id LIMIT 1)"
    )  # fmt: skip
    async with opened(database_url) as database, running(database) as run:
        assert await run.remove_users(proofs(users), TERMS) == Removal(users=2, rows=14)
    assert await archived(database_url) == 14


@INDEXED
async def test_rows_of_one_user_that_refer_to_each_other_go_with_all_of_them_archived(
    empty_database_url: str, *, index: bool
) -> None:
    users = user_ids(2)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, users)
    await execute(
        empty_database_url,
        "ALTER TABLE tasks ADD COLUMN up uuid REFERENCES tasks ON DELETE CASCADE",
        own("tasks", "up", "tasks"),
    )
    async with opened(empty_database_url) as database, running(database, users[:1]) as run:
        assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users=1, rows=7)
    assert await rows_of(empty_database_url, users[0]) == WHOLE
    assert await archived(empty_database_url) == 7


@pytest.mark.parametrize("refers", ["tasks", "moods"])
async def test_a_row_that_came_after_the_places_were_noted_is_archived_before_a_cascade_takes_it(
    database_url: str, refers: str
) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    await execute(database_url, f"ALTER TABLE {refers} ADD COLUMN mood uuid REFERENCES moods ON DELETE CASCADE")
    async with opened(database_url) as database, running(database) as run:
        await run.remove_users(proofs(users[:1]), TERMS)
        assert run.clearing.places_noted_at is not None
        await execute(
            database_url,
            f"INSERT INTO {refers} (user_id, mood) SELECT user_id, id FROM moods WHERE user_id = '{users[1]}' LIMIT 1",
        )
        assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users=1, rows=8)
    assert await archived(database_url) == 15


async def test_a_claim_on_a_user_to_whose_row_a_cascade_binds_somebody_elses_stays(database_url: str) -> None:
    living, user = ids(user_ids(2))
    await seed_users(database_url, [living, user])
    await execute(
        database_url, TASKS_OF_MOODS, f"UPDATE tasks SET mood = (SELECT id FROM moods WHERE user_id = '{user}' LIMIT 1)"
    )
    async with opened(database_url) as database:
        await database.record_claim(delivery("m1"), user, ClaimKind.DELETION)
        (claim,) = await database.take_claims(1, timedelta(seconds=30))
        assert await database.settle_by_removal(claim, proofs([user])[0], DELETION) == Removal(users_left=1)
    assert await rows_of(database_url, user) == await rows_of(database_url, living) == WHOLE


async def test_keys_are_compared_as_the_server_compares_them(database_url: str) -> None:
    """By the operators of the key, which `search_path` need not show, and across collations."""
    living, gone = user_ids(2)
    await seed_users(database_url, [living, gone])
    await execute(
        database_url,
        "CREATE SCHEMA extensions",
        "CREATE EXTENSION citext SCHEMA extensions",
        'ALTER TABLE moods ADD COLUMN code extensions.citext, ADD COLUMN place text COLLATE "C"',
        "UPDATE moods SET code = id::text, place = 'here'",
        "ALTER TABLE moods ADD UNIQUE (code, place)",
        'ALTER TABLE tasks ADD COLUMN mood extensions.citext, ADD COLUMN place text COLLATE "POSIX"',
        "ALTER TABLE tasks ADD FOREIGN KEY (mood, place) REFERENCES moods (code, place) ON DELETE CASCADE",
        "UPDATE tasks SET place = 'here', "
        f"mood = (SELECT upper(code::text) FROM moods WHERE user_id = '{gone}' LIMIT 1) WHERE user_id = '{living}'",
    )
    async with opened(database_url) as database, running(database, [living]) as run:
        assert await run.remove_users(proofs([gone]), TERMS) == Removal(users_left=1)
    assert await rows_of(database_url, living) == WHOLE


async def test_in_partitioned_tables_a_cascade_is_seen_too(database_url: str) -> None:
    living, gone, other = user_ids(3)
    await execute(
        database_url,
        "DROP TABLE moods",
        "CREATE TABLE moods (id int PRIMARY KEY, user_id text) PARTITION BY LIST (id)",
        *(f"CREATE TABLE moods_{n} PARTITION OF moods FOR VALUES IN ({n})" for n in (1, 2)),
        "ALTER TABLE tasks ADD COLUMN mood int REFERENCES moods ON DELETE CASCADE",
        f"INSERT INTO moods VALUES (1, '{gone}'), (2, '{other}')",
        f"INSERT INTO tasks (user_id, mood) VALUES ('{living}', 1), ('{other}', 2)",
    )
    async with opened(database_url) as database, running(database, [living]) as run:
        assert await run.remove_users(proofs([gone, other]), TERMS) == Removal(users=1, rows=2, users_left=1)
    assert await users_with_rows(database_url) == {living, gone}


# The race between the look and the DELETE.


@INDEXED
async def test_a_row_being_inserted_is_waited_for_and_binds_the_user(empty_database_url: str, *, index: bool) -> None:
    living, gone = user_ids(2)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, [living, gone])
    await execute(empty_database_url, TASKS_OF_MOODS)
    async with (
        opened(empty_database_url) as database,
        running(database, [living]) as run,
        connected(empty_database_url) as application,
    ):
        insertion = application.transaction()
        await insertion.start()
        await application.execute(
            f"INSERT INTO tasks (user_id, mood) SELECT '{living}', id FROM moods WHERE user_id = '{gone}' LIMIT 1"
        )
        removing = asyncio.create_task(run.remove_users(proofs([gone]), TERMS))
        await until_waited_for(application)
        await insertion.commit()
        assert await removing == Removal(users_left=1)
    assert await rows_of(empty_database_url, gone) == WHOLE
    assert (await rows_of(empty_database_url, living))["tasks"] == 3


@INDEXED
async def test_a_row_inserted_between_the_look_and_the_delete_is_refused_and_not_taken_along(
    empty_database_url: str, *, index: bool
) -> None:
    living, gone = user_ids(2)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, [living, gone])
    await execute(
        empty_database_url,
        TASKS_OF_MOODS,
        # A DELETE stops here, before it has locked a row.
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM pg_advisory_xact_lock(42); RETURN OLD; END $$",
        "CREATE TRIGGER stop BEFORE DELETE ON moods FOR EACH ROW EXECUTE FUNCTION stop()",
    )
    async with (
        opened(empty_database_url) as database,
        running(database, [living]) as run,
        connected(empty_database_url) as gate,
        connected(empty_database_url) as application,
    ):
        await gate.execute("SELECT pg_advisory_lock(42)")
        removing = asyncio.create_task(run.remove_users(proofs([gone]), TERMS))
        await until_waited_for(gate)
        inserting = asyncio.create_task(
            application.execute(
                f"INSERT INTO tasks (user_id, mood) SELECT '{living}', id FROM moods WHERE user_id = '{gone}' LIMIT 1"
            )
        )
        await until(empty_database_url, "SELECT count(*) > 1 FROM pg_locks WHERE NOT granted")
        await gate.execute("SELECT pg_advisory_unlock(42)")
        assert await removing == Removal(users=1, rows=7)
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await inserting
    assert await rows_of(empty_database_url, living) == WHOLE


async def test_a_row_of_the_user_that_nobody_has_looked_at_is_not_deleted(empty_database_url: str) -> None:
    """What refers to it is not known: it came after the rows were locked."""
    (gone,) = user_ids(1)
    await create_tables(empty_database_url, index=True)
    await seed_users(empty_database_url, [gone])
    await execute(empty_database_url, TASKS_OF_MOODS)
    async with (
        opened(empty_database_url) as database,
        running(database) as run,
        connected(empty_database_url) as application,
    ):
        work = application.transaction()
        await work.start()
        await application.execute("SELECT FROM moods FOR UPDATE")
        removing = asyncio.create_task(run.remove_users(proofs([gone]), TERMS))
        await until_waited_for(application)
        await seed(empty_database_url, "moods", [gone])
        await work.commit()
        assert await removing == Removal(users_left=1)
        assert await rows_of(empty_database_url, gone) == WHOLE | {"moods": 3}
        assert await run.remove_users(proofs([gone]), TERMS) == Removal(users=1, rows=8)


# Cycles, and keys that hold.


async def test_a_cycle_whose_checks_can_wait_is_emptied(database_url: str) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    await execute(
        database_url,
        "ALTER TABLE tasks ADD COLUMN mood uuid REFERENCES moods DEFERRABLE",
        "ALTER TABLE moods ADD COLUMN task uuid REFERENCES tasks DEFERRABLE",
        own("tasks", "mood", "moods"),
        own("moods", "task", "tasks"),
    )
    async with opened(database_url) as database, running(database, users[:1]) as run:
        assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users=1, rows=7)
    assert await rows_of(database_url, users[0]) == WHOLE


async def test_a_cycle_of_which_one_check_can_wait_is_emptied_in_the_order_of_the_other(database_url: str) -> None:
    (user,) = user_ids(1)
    await seed_users(database_url, [user])
    await execute(
        database_url,
        "ALTER TABLE tasks ADD COLUMN mood uuid REFERENCES moods DEFERRABLE",
        "ALTER TABLE moods ADD COLUMN task uuid REFERENCES tasks ON DELETE RESTRICT",
        own("tasks", "mood", "moods"),
        own("moods", "task", "tasks"),
    )
    async with opened(database_url) as database, running(database) as run:
        assert await run.remove_users(proofs([user]), TERMS) == Removal(users=1, rows=7)


async def test_a_cycle_that_can_be_unlinked_is_emptied_without_a_cascade_to_rows_not_archived(
    database_url: str,
) -> None:
    (user,) = user_ids(1)
    await seed_users(database_url, [user])
    await execute(
        database_url,
        "ALTER TABLE tasks ADD COLUMN mood uuid REFERENCES moods ON DELETE SET NULL",
        "ALTER TABLE moods ADD COLUMN task uuid REFERENCES tasks ON DELETE CASCADE",
        own("tasks", "mood", "moods"),
        own("moods", "task", "tasks"),
    )
    async with opened(database_url) as database, running(database) as run:
        assert await run.remove_users(proofs([user]), TERMS) == Removal(users=1, rows=7)
    assert await archived(database_url) == 7


@INDEXED
@pytest.mark.parametrize("rule", ["NO ACTION", "RESTRICT", "CASCADE"])
async def test_users_in_a_cycle_that_cannot_wait_are_left_whole_with_a_warning(
    empty_database_url: str, rule: str, *, index: bool
) -> None:
    linked, free = user_ids(2)
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, [linked, free])
    await execute(
        empty_database_url,
        f"ALTER TABLE tasks ADD COLUMN mood uuid CONSTRAINT of_mood REFERENCES moods ON DELETE {rule}",
        f"ALTER TABLE moods ADD COLUMN task uuid CONSTRAINT of_task REFERENCES tasks ON DELETE {rule}",
        own("tasks", "mood", "moods") + f" WHERE user_id = '{linked}'",
        own("moods", "task", "tasks") + f" WHERE user_id = '{linked}'",
    )
    async with opened(empty_database_url) as database, running(database) as run:
        assert await run.remove_users(proofs([linked, free]), TERMS) == Removal(users=1, rows=7, users_left=1)
        (warning,) = [text for text in (await database.inspect()).warnings if "cycle" in text]
    assert f"of_mood of public.tasks (ON DELETE {rule})" in warning
    assert f"of_task of public.moods (ON DELETE {rule})" in warning
    assert "DEFERRABLE" in warning
    assert await rows_of(empty_database_url, linked) == WHOLE
    assert await archived(empty_database_url) == 7


@pytest.mark.parametrize("rule", ["RESTRICT", "NO ACTION"])
async def test_a_key_that_holds_a_user_is_named_with_its_table(database_url: str, rule: str) -> None:
    held, free = user_ids(2)
    await seed_users(database_url, [held, free])
    await execute(
        database_url,
        f"CREATE TABLE invoices (task uuid CONSTRAINT of_task REFERENCES tasks ON DELETE {rule})",
        f"INSERT INTO invoices SELECT id FROM tasks WHERE user_id = '{held}' LIMIT 1",
    )
    async with opened(database_url) as database, running(database) as run:
        with capture_logs() as logs:
            assert await run.remove_users(proofs([held, free]), TERMS) == Removal(users=1, rows=7, users_left=1)
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert "of_task of table invoices" in warning["reason"]
    assert held not in str(warning)
    assert await rows_of(database_url, held) == WHOLE


# Duplicates: their users live.


@pytest.fixture
def role(postgres_server: LocalPostgres, database_url: str) -> Iterator[str]:
    """The URL of a role `app`, who may read and write the default tables and migrate, and sees no other table."""
    database = database_url.rpartition("/")[2]
    postgres_server.execute("CREATE ROLE app LOGIN")
    postgres_server.execute(f"GRANT CREATE ON DATABASE {database} TO app")
    postgres_server.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app", database=database)
    yield postgres_server.url(database, user="app")
    postgres_server.execute("DROP OWNED BY app CASCADE", database=database)
    postgres_server.execute("DROP ROLE app")


async def duplicated(url: str, *users: str) -> None:
    """Give each user two profile rows, `old` and `new`."""
    for user in users:
        await execute(
            url,
            "INSERT INTO user_progress (user_id, note, created_at) "
            f"VALUES ('{user}', 'old', '2026-01-01'), ('{user}', 'new', '2026-01-02')",
        )


@pytest.mark.parametrize("rule", ["CASCADE", "SET NULL", "SET DEFAULT"])
@pytest.mark.parametrize("table", ["orders", "tasks", "user_progress"])
async def test_a_profile_row_to_which_rows_refer_stays_and_the_duplicates_of_others_go(
    database_url: str, table: str, rule: str
) -> None:
    bound, free = ids(user_ids(2))
    await duplicated(database_url, bound, free)
    await execute(
        database_url,
        "CREATE TABLE orders (user_id text, note text)",
        f"ALTER TABLE {table} ADD COLUMN profile uuid CONSTRAINT of_profile REFERENCES user_progress ON DELETE {rule}",
        f"INSERT INTO {table} (user_id, note, profile) SELECT 'system', 'refers', id FROM user_progress "
        f"WHERE user_id = '{bound}' AND note = 'new'",
    )
    async with opened(database_url) as database, running(database, [bound, free]) as run:
        with capture_logs() as logs:
            assert await run.reduce_duplicates([bound, free]) == Reduction(rows=1, users_left=1)
    assert await user_ids_in(database_url) == [*(["system"] if table == "user_progress" else []), bound, bound, free]
    assert await fetch_value(database_url, f"SELECT count(profile) FROM {table} WHERE note = 'refers'") == 1
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert f"of_profile of public.{table} to public.user_progress (ON DELETE {rule})" in warning["reason"]
    assert "Point them at the oldest profile row" in warning["reason"]
    assert warning["users"] == 1


async def test_rows_that_refer_to_the_oldest_profile_row_do_not_keep_the_others(database_url: str) -> None:
    (user,) = ids(user_ids(1))
    await duplicated(database_url, user)
    await execute(
        database_url,
        "CREATE TABLE orders (profile uuid REFERENCES user_progress ON DELETE CASCADE)",
        "INSERT INTO orders SELECT id FROM user_progress WHERE note = 'old'",
    )
    async with opened(database_url) as database, running(database, [user]) as run:
        assert await run.reduce_duplicates([user]) == Reduction(rows=1)
    assert await fetch_value(database_url, "SELECT count(*) FROM orders") == 1


async def test_a_profile_row_that_refers_to_itself_alone_goes(database_url: str) -> None:
    (user,) = ids(user_ids(1))
    await duplicated(database_url, user)
    await execute(
        database_url,
        "ALTER TABLE user_progress ADD COLUMN root uuid REFERENCES user_progress ON DELETE CASCADE",
        "UPDATE user_progress SET root = id",
    )
    async with opened(database_url) as database, running(database, [user]) as run:
        assert await run.reduce_duplicates([user]) == Reduction(rows=1)


async def test_where_rows_that_refer_cannot_be_seen_duplicates_stay(database_url: str, role: str) -> None:
    (user,) = ids(user_ids(1))
    await duplicated(database_url, user)
    await execute(database_url, "CREATE TABLE orders (profile uuid REFERENCES user_progress ON DELETE CASCADE)")
    async with opened(role) as database, running(database, [user]) as run:
        with capture_logs() as logs:
            assert await run.reduce_duplicates([user]) == Reduction(users_left=1)
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert 'GRANT SELECT ON "public"."orders"' in warning["reason"]
    assert await user_ids_in(database_url) == [user, user]


async def test_a_profile_row_being_referred_to_is_waited_for_and_stays(database_url: str) -> None:
    (user,) = ids(user_ids(1))
    await duplicated(database_url, user)
    await execute(database_url, "CREATE TABLE orders (profile uuid REFERENCES user_progress ON DELETE CASCADE)")
    async with (
        opened(database_url) as database,
        running(database, [user]) as run,
        connected(database_url) as application,
    ):
        insertion = application.transaction()
        await insertion.start()
        await application.execute("INSERT INTO orders SELECT id FROM user_progress WHERE note = 'new'")
        reducing = asyncio.create_task(run.reduce_duplicates([user]))
        await until_waited_for(application)
        await insertion.commit()
        assert await reducing == Reduction(users_left=1)
    assert await fetch_value(database_url, "SELECT count(*) FROM orders") == 1


async def test_a_profile_row_that_nobody_has_looked_at_is_not_deleted(database_url: str) -> None:
    (user,) = ids(user_ids(1))
    await duplicated(database_url, user)
    await execute(database_url, "CREATE TABLE orders (profile uuid REFERENCES user_progress ON DELETE CASCADE)")
    async with (
        opened(database_url) as database,
        running(database, [user]) as run,
        connected(database_url) as application,
    ):
        work = application.transaction()
        await work.start()
        await application.execute("SELECT FROM user_progress FOR UPDATE")
        reducing = asyncio.create_task(run.reduce_duplicates([user]))
        await until_waited_for(application)
        await seed(database_url, "user_progress", [user])
        await work.commit()
        assert await reducing == Reduction(users_left=1)
        assert await run.reduce_duplicates([user]) == Reduction(rows=2)
