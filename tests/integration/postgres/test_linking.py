"""Rows that stay and referred to rows that go: what they lost is noted, and set again with what is put back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from controller.core.outcomes import Removal
from controller.core.requests import Links, RestoreTerms
from controller.core.targets import Target
from controller.errors import RequestRefused
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
    until,
    until_waited_for,
    user_ids,
)
from tests.support.stores import ERASE, RETAIN, TERMS, erase, ids, opened, proofs, running
from tests.support.traces import tables_that_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from controller.cli.demo.local_postgres import LocalPostgres
    from controller.core.removals import RemovalTerms
    from controller.postgres import Database

LIVING, GONE, OTHER = ids(user_ids(3))
WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
RESTORE = RestoreTerms("somebody")
SKIP = replace(RESTORE, skips_conflicts=True)
LIKED = "CREATE TABLE likes (id int PRIMARY KEY, task uuid CONSTRAINT liked REFERENCES tasks ON DELETE SET NULL)"
"""A table that is not listed."""
LIKES = f"INSERT INTO likes SELECT row_number() OVER (ORDER BY id), id FROM tasks WHERE user_id = '{GONE}'"
A_TASK = f"SELECT id FROM tasks WHERE user_id = '{GONE}' LIMIT 1"
A_MOOD = f"SELECT id FROM moods WHERE user_id = '{GONE}' LIMIT 1"
TASKS_LIKED = "SELECT count(task) FROM likes"
NOTED = "SELECT count(*) FROM usersync.links"
STOP_FUNCTION = """
    CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN OLD; END $$
"""
STOP = (STOP_FUNCTION, "CREATE TRIGGER stop BEFORE DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION stop()")
"""A DELETE stops at the first row."""
INVITED = """
    CREATE TABLE invited (guest text PRIMARY KEY, host text REFERENCES user_progress (user_id) ON DELETE SET NULL)
"""


async def remove(database: Database, *users: str, terms: RemovalTerms = TERMS) -> Removal:
    """Remove them as a run does, by proofs."""
    async with running(database, [LIVING]) as run:
        return await run.remove_users(proofs(users), terms)


async def texts(url: str, table: str) -> list[str]:
    """All rows of the table, as PostgreSQL writes them."""
    return [row["text"] for row in await fetch(url, f"SELECT t::text AS text FROM {table} AS t ORDER BY 1")]


async def restored_whole(url: str, table: str, *statements: str, target: Target | None = None) -> Links:
    """After the statements, remove and restore GONE: `table` is as it was, and was not in between."""
    await execute(url, *statements)
    before = await texts(url, table)
    async with opened(url, target=target) as database:
        assert await remove(database, GONE) == Removal(users=1, rows=7)
        assert await texts(url, table) != before
        restored = await database.restore(GONE, RESTORE)
    assert await texts(url, table) == before
    return restored.links


@pytest.fixture(params=["indexed", "by-place"])
async def either(empty_database_url: str, request: pytest.FixtureRequest) -> str:
    """The four tables with rows of three users, with an index or without."""
    await create_tables(empty_database_url, index=request.param == "indexed")
    await seed_users(empty_database_url, [LIVING, GONE, OTHER])
    return empty_database_url


@pytest.fixture
async def url(database_url: str) -> str:
    """The four tables with rows of three users."""
    await seed_users(database_url, [LIVING, GONE, OTHER])
    return database_url


@pytest.fixture
async def liked(url: str) -> str:
    """Each of the two tasks of GONE is liked by a row of a table that is not listed."""
    await execute(url, LIKED, LIKES)
    return url


@pytest.fixture
def role(postgres_server: LocalPostgres, database_url: str) -> Iterator[str]:
    """The URL of a role `app`, who may read and write the default tables and migrate, and sees no later table."""
    database = database_url.rpartition("/")[2]
    postgres_server.execute("CREATE ROLE app LOGIN")
    postgres_server.execute(f"GRANT CREATE ON DATABASE {database} TO app")
    postgres_server.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app", database=database)
    yield postgres_server.url(database, user="app")
    postgres_server.execute("DROP OWNED BY app CASCADE", database=database)
    postgres_server.execute("DROP ROLE app")


@asynccontextmanager
async def gone(url: str) -> AsyncIterator[Database]:
    """GONE is removed, and the database stays open."""
    async with opened(url) as database:
        assert (await remove(database, GONE)).users == 1
        yield database


# What is set again.


async def test_a_row_of_another_user_refers_again(either: str) -> None:
    links = await restored_whole(
        either,
        "tasks",
        "ALTER TABLE tasks ADD COLUMN mood uuid REFERENCES moods ON DELETE SET NULL",
        f"UPDATE tasks SET mood = ({A_MOOD}) WHERE user_id = '{LIVING}'",
    )
    assert links == Links({"tasks": 2})


async def test_a_row_of_an_unlisted_table_refers_again(either: str) -> None:
    assert await restored_whole(either, "likes", LIKED, LIKES) == Links({"likes": 2})


async def test_rows_of_others_in_the_same_table_refer_again_and_the_users_own_are_not_noted(either: str) -> None:
    links = await restored_whole(
        either,
        "tasks",
        "ALTER TABLE tasks ADD COLUMN up uuid REFERENCES tasks ON DELETE SET NULL",
        f"UPDATE tasks SET up = ({A_TASK})",
        f"UPDATE tasks SET user_id = NULL WHERE user_id = '{OTHER}'",
    )
    assert links == Links({"tasks": 4})
    assert await fetch_value(either, "SELECT last_value FROM usersync.links_id_seq") == 4, "not even for a moment"


async def test_rows_of_a_user_who_goes_in_the_same_transaction_are_archived_as_they_were(either: str) -> None:
    await execute(
        either,
        "ALTER TABLE tasks ADD COLUMN mood uuid REFERENCES moods ON DELETE SET NULL",
        f"UPDATE tasks SET mood = ({A_MOOD})",
    )
    before = await texts(either, "tasks")
    async with opened(either) as database:
        assert (await remove(database, GONE, OTHER)).users == 2
        assert await fetch_value(either, NOTED) == 2, "the rows of LIVING alone"
        await database.restore(GONE, RESTORE)
        await database.restore(OTHER, RESTORE)
    assert await texts(either, "tasks") == before


async def test_in_a_cycle_the_users_own_rows_that_are_emptied_before_they_are_archived_refer_again(url: str) -> None:
    links = await restored_whole(
        url,
        "user_progress",
        "ALTER TABLE user_progress ADD COLUMN task uuid REFERENCES tasks ON DELETE SET NULL",
        "ALTER TABLE tasks ADD COLUMN profile uuid REFERENCES user_progress",
        f"UPDATE user_progress SET task = ({A_TASK}) WHERE user_id = '{GONE}'",
        "UPDATE tasks AS t SET profile = (SELECT id FROM user_progress AS p WHERE p.user_id = t.user_id)",
    )
    assert links == Links({"user_progress": 1})


@pytest.mark.parametrize(
    ("action", "emptied"),
    [
        ("SET NULL", "(1,,)"),
        ("SET NULL (task)", "(1,,a)"),
        ("SET DEFAULT", "(1,00000000-0000-0000-0000-000000000000,b)"),
        ("SET DEFAULT (task)", "(1,00000000-0000-0000-0000-000000000000,a)"),
    ],
)
async def test_a_key_of_two_columns_refers_again_by_whichever_the_action_takes(
    url: str, action: str, emptied: str
) -> None:
    if "(" in action and await fetch_value(url, "SELECT current_setting('server_version_num')::int") < 150000:
        action = action.partition(" (")[0]
    await execute(
        url,
        "ALTER TABLE tasks ADD COLUMN team text DEFAULT 'a', ADD UNIQUE (id, team)",
        "INSERT INTO tasks (id, team) SELECT '00000000-0000-0000-0000-000000000000', t FROM (VALUES ('b')) AS v (t)",
        "CREATE TABLE likes (id int PRIMARY KEY, task uuid DEFAULT '00000000-0000-0000-0000-000000000000', "
        f"team text DEFAULT 'b', FOREIGN KEY (task, team) REFERENCES tasks (id, team) ON DELETE {action})",
        f"INSERT INTO likes SELECT 1, id, team FROM tasks WHERE id = ({A_TASK})",
    )
    if "DEFAULT (task)" in action:
        await execute(
            url,
            "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey CASCADE",
            "INSERT INTO tasks (id, team) VALUES ('00000000-0000-0000-0000-000000000000', 'a')",
        )
    before = await texts(url, "likes")
    async with gone(url) as database:
        assert await texts(url, "likes") == [emptied]
        assert (await database.restore(GONE, RESTORE)).links == Links({"likes": 1})
    assert await texts(url, "likes") == before


async def test_two_keys_with_a_column_in_common_refer_again_both(url: str) -> None:
    links = await restored_whole(
        url,
        "games",
        "ALTER TABLE tasks ADD COLUMN team text DEFAULT 'a', ADD UNIQUE (team, id)",
        "CREATE TABLE games (id int PRIMARY KEY, team text, home uuid, away uuid, "
        "FOREIGN KEY (team, home) REFERENCES tasks (team, id) ON DELETE SET NULL, "
        "FOREIGN KEY (team, away) REFERENCES tasks (team, id) ON DELETE SET NULL)",
        "INSERT INTO games SELECT 1, 'a', min(id::text)::uuid, max(id::text)::uuid FROM tasks "
        f"WHERE user_id = '{GONE}'",
    )
    assert sum(links.restored.values()) == 2


async def test_a_key_to_the_user_id_of_the_profile_refers_again(url: str) -> None:
    links = await restored_whole(
        url,
        "invited",
        "ALTER TABLE user_progress ADD UNIQUE (user_id)",
        INVITED,
        f"INSERT INTO invited VALUES ('{LIVING}', '{GONE}'), ('{OTHER}', '{LIVING}')",
    )
    assert links == Links({"invited": 1})


async def test_odd_names_and_types_and_a_table_of_another_schema_refer_again(url: str) -> None:
    links = await restored_whole(
        url,
        '"o""ther"."li\'k{}es"',
        "CREATE SCHEMA extensions",
        "CREATE EXTENSION citext SCHEMA extensions",
        'ALTER TABLE moods ADD COLUMN "co\'d\\e" extensions.citext UNIQUE, ADD COLUMN bits float8',
        "UPDATE moods SET \"co'd\\e\" = 'Mood-' || id",
        'CREATE SCHEMA "o""ther"',
        'CREATE TABLE "o""ther"."li\'k{}es" ("k""ey" extensions.citext, at timestamptz, share float8, c char(5), '
        '"mo\'o""d" extensions.citext REFERENCES moods ("co\'d\\e") ON DELETE SET NULL, '
        'PRIMARY KEY ("k""ey", at, share, c))',
        'INSERT INTO "o""ther"."li\'k{}es" SELECT user_id, now(), random(), \'ab\', upper("co\'d\\e"::text) FROM moods',
    )
    assert links == Links({"o\"ther.li'k{}es": 2})


async def test_in_partitioned_tables_rows_refer_again_too(url: str) -> None:
    links = await restored_whole(
        url,
        "likes",
        "DROP TABLE moods",
        "CREATE TABLE moods (id int PRIMARY KEY, user_id text) PARTITION BY LIST (id)",
        *(f"CREATE TABLE moods_{n} PARTITION OF moods FOR VALUES IN ({n})" for n in (1, 2, 3)),
        f"INSERT INTO moods VALUES (1, '{GONE}'), (2, '{GONE}'), (3, '{LIVING}')",
        "CREATE TABLE likes (id int PRIMARY KEY, mood int REFERENCES moods ON DELETE SET NULL) PARTITION BY LIST (id)",
        *(f"CREATE TABLE likes_{n} PARTITION OF likes FOR VALUES IN ({n}, {n + 10})" for n in (1, 2, 3)),
        "INSERT INTO likes SELECT n, n % 10 FROM unnest(ARRAY[1, 2, 3, 11, 12]) AS n",
    )
    assert links == Links({"likes": 4})


async def test_a_second_restore_sets_what_could_not_be_set_the_first_time(url: str) -> None:
    await execute(
        url,
        "ALTER TABLE tasks ADD COLUMN mood uuid REFERENCES moods ON DELETE SET NULL",
        f"UPDATE tasks SET mood = ({A_MOOD}) WHERE user_id = '{LIVING}'",
    )
    before = await texts(url, "tasks")
    async with gone(url) as database:
        assert (await remove(database, LIVING)).users == 1
        assert (await database.restore(GONE, RESTORE)).links == Links({}, {"tasks": 2})
        await database.restore(LIVING, RESTORE)
        assert (await database.restore(GONE, RESTORE)).links == Links({"tasks": 2})
        with pytest.raises(RequestRefused, match="7 were put back before"):
            await database.restore(GONE, RESTORE)
    assert await texts(url, "tasks") == before


async def test_a_removal_in_which_nothing_refers_notes_nothing(liked: str) -> None:
    async with opened(liked) as database:
        assert await remove(database, OTHER) == Removal(users=1, rows=7)
    assert await fetch_value(liked, NOTED) == 0


# What is left.


@pytest.mark.parametrize(
    "meanwhile",
    [
        f"UPDATE likes SET task = (SELECT id FROM tasks WHERE user_id = '{LIVING}' LIMIT 1) WHERE id = 1",
        "DELETE FROM likes WHERE id = 1",
    ],
    ids=["pointed-elsewhere", "gone"],
)
async def test_a_row_that_somebody_has_changed_meanwhile_is_left_and_counted(liked: str, meanwhile: str) -> None:
    async with gone(liked) as database:
        await execute(liked, meanwhile)
        changed = await fetch(liked, "SELECT * FROM likes WHERE id = 1")
        assert (await database.restore(GONE, RESTORE)).links == Links({"likes": 1}, {"likes": 1})
        assert await fetch(liked, "SELECT * FROM likes WHERE id = 1") == changed


async def test_a_row_that_has_no_longer_the_default_is_left(url: str) -> None:
    await execute(
        url,
        "INSERT INTO tasks (id) VALUES ('00000000-0000-0000-0000-000000000000')",
        "CREATE TABLE likes (id int PRIMARY KEY, "
        "task uuid DEFAULT '00000000-0000-0000-0000-000000000000' REFERENCES tasks ON DELETE SET DEFAULT)",
        LIKES,
    )
    async with gone(url) as database:
        await execute(url, "UPDATE likes SET task = NULL WHERE id = 1")
        assert (await database.restore(GONE, RESTORE)).links == Links({"likes": 1}, {"likes": 1})


async def test_a_row_that_was_pointed_at_somebody_else_who_went_too_is_left(liked: str) -> None:
    async with gone(liked) as database:
        await execute(
            liked, f"UPDATE likes SET task = (SELECT id FROM tasks WHERE user_id = '{OTHER}' LIMIT 1) WHERE id = 1"
        )
        await remove(database, OTHER)
        assert (await database.restore(GONE, RESTORE)).links == Links({"likes": 1}, {"likes": 1})
        assert (await database.restore(OTHER, RESTORE)).links == Links({"likes": 1})


async def test_what_referred_to_a_row_that_is_not_put_back_is_left(liked: str) -> None:
    async with gone(liked) as database:
        await execute(liked, "DELETE FROM usersync.archive WHERE content ->> 'id' = (SELECT held ->> 'task' FROM "
                             "usersync.links ORDER BY id LIMIT 1)")  # fmt: skip
        restored = await database.restore(GONE, RESTORE)
    assert dict(restored.rows) == WHOLE | {"tasks": 1}
    assert restored.links == Links({"likes": 1}, {"likes": 1})


@pytest.mark.parametrize("change", ["DROP TABLE likes", "ALTER TABLE likes DROP CONSTRAINT liked"])
async def test_where_there_is_no_such_key_any_more_nothing_is_set(liked: str, change: str) -> None:
    async with gone(liked) as database:
        await execute(liked, change)
        assert (await database.restore(GONE, RESTORE)).links == Links({}, {"likes": 2})
    assert await rows_of(liked, GONE) == WHOLE


async def test_a_row_pointed_elsewhere_between_the_look_and_the_delete_is_not_noted(liked: str) -> None:
    await execute(liked, *STOP)
    async with (
        opened(liked) as database,
        running(database, [LIVING]) as run,
        connected(liked) as gate,
        connected(liked) as application,
    ):
        await gate.execute("SELECT pg_advisory_lock(42)")
        removing = asyncio.create_task(run.remove_users(proofs([GONE]), TERMS))
        await until_waited_for(gate)
        await application.execute("UPDATE likes SET task = NULL WHERE id = 1")
        await gate.execute("SELECT pg_advisory_unlock(42)")
        assert (await removing).users == 1
    assert await fetch(liked, "SELECT primary_key ->> 'id' FROM usersync.links") == [("2",)]


# The race between the look and the DELETE.


async def test_a_row_being_inserted_is_waited_for_and_noted(either: str) -> None:
    await execute(either, LIKED)
    async with (
        opened(either) as database,
        running(database, [LIVING]) as run,
        connected(either) as application,
    ):
        insertion = application.transaction()
        await insertion.start()
        await application.execute(LIKES)
        removing = asyncio.create_task(run.remove_users(proofs([GONE]), TERMS))
        await until_waited_for(application)
        await insertion.commit()
        assert (await removing).users == 1
    assert await fetch_value(either, TASKS_LIKED) == 0
    async with opened(either) as database:
        assert (await database.restore(GONE, RESTORE)).links == Links({"likes": 2})
    assert await fetch_value(either, TASKS_LIKED) == 2


async def test_a_row_inserted_between_the_look_and_the_delete_is_refused_and_not_unlinked(either: str) -> None:
    await execute(either, LIKED, *STOP)
    async with (
        opened(either) as database,
        running(database, [LIVING]) as run,
        connected(either) as gate,
        connected(either) as application,
    ):
        await gate.execute("SELECT pg_advisory_lock(42)")
        removing = asyncio.create_task(run.remove_users(proofs([GONE]), TERMS))
        await until_waited_for(gate)
        inserting = asyncio.create_task(application.execute(LIKES))
        await until(either, "SELECT count(*) > 1 FROM pg_locks WHERE NOT granted")
        await gate.execute("SELECT pg_advisory_unlock(42)")
        assert (await removing).users == 1
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await inserting


async def test_a_row_of_the_user_to_which_nobody_has_looked_what_refers_is_not_deleted(
    empty_database_url: str,
) -> None:
    url = empty_database_url
    await create_tables(url, index=True)
    await seed_users(url, [GONE])
    await execute(url, LIKED)
    async with opened(url) as database, running(database, [LIVING]) as run, connected(url) as application:
        work = application.transaction()
        await work.start()
        await application.execute("SELECT FROM tasks FOR UPDATE")
        removing = asyncio.create_task(run.remove_users(proofs([GONE]), TERMS))
        await until_waited_for(application)
        await seed(url, "tasks", [GONE])
        await work.commit()
        assert await removing == Removal(users_left=1)


# What is refused, skipped, undone.


async def test_a_dry_run_counts_and_undoes_all(liked: str) -> None:
    async with gone(liked) as database:
        restored = await database.restore(GONE, replace(RESTORE, dry_run=True))
        assert restored.links == Links({"likes": 2})
        assert await fetch_value(liked, TASKS_LIKED) == 0
        assert await fetch_value(liked, "SELECT count(restored_at) FROM usersync.links") == 0


async def test_only_links_to_rows_of_the_wanted_tables_are_set(liked: str) -> None:
    await execute(
        liked, "ALTER TABLE likes ADD COLUMN mood uuid REFERENCES moods ON DELETE SET NULL",
        f"UPDATE likes SET mood = ({A_MOOD})",
    )  # fmt: skip
    async with gone(liked) as database:
        assert (await database.restore(GONE, replace(RESTORE, tables=("moods",)))).links == Links({"likes": 2})
        assert await fetch(liked, "SELECT count(task), count(mood) FROM likes") == [(0, 2)]
        await database.restore(GONE, RESTORE)
        assert await fetch(liked, "SELECT count(task), count(mood) FROM likes") == [(2, 2)]


async def test_renamed_tables_are_found_by_their_new_names(liked: str) -> None:
    await execute(
        liked, "ALTER TABLE moods ADD COLUMN task uuid REFERENCES tasks ON DELETE SET NULL",
        f"UPDATE moods SET task = ({A_TASK}) WHERE user_id = '{LIVING}'",
    )  # fmt: skip
    async with gone(liked):
        pass
    await execute(liked, *(f"ALTER TABLE {name} RENAME TO new_{name}" for name in ("tasks", "likes", "moods")))
    await execute(liked, LIKED.replace("REFERENCES tasks", "REFERENCES new_tasks").replace("CONSTRAINT liked", ""))
    renamed = {name: f"new_{name}" for name in ("tasks", "likes", "moods")}
    target = Target(
        "public", tuple(replace(table, name=renamed.get(table.name, table.name)) for table in Target().tables)
    )
    async with opened(liked, target=target) as database:
        restored = await database.restore(GONE, replace(RESTORE, renamed=renamed))
    assert restored.links == Links({"new_likes": 2, "new_moods": 2})
    assert await fetch_value(liked, "SELECT count(task) FROM new_likes") == 2
    assert await fetch_value(liked, "SELECT count(task) FROM new_moods") == 2


STANDS_IN_THE_WAY = (
    "ALTER TABLE likes ADD COLUMN active boolean DEFAULT true, ADD CONSTRAINT one_each CHECK (active OR task IS NULL)",
    "UPDATE likes SET active = false WHERE id = 1",
)


async def test_a_constraint_that_stands_in_the_way_refuses_the_whole(liked: str) -> None:
    async with gone(liked) as database:
        await execute(liked, *STANDS_IN_THE_WAY)
        with pytest.raises(RequestRefused, match=r"public\.likes cannot refer again.*constraint one_each.*skip"):
            await database.restore(GONE, RESTORE)
    assert sum((await rows_of(liked, GONE)).values()) == 0


async def test_or_leaves_the_link_where_conflicts_are_skipped(liked: str) -> None:
    async with gone(liked) as database:
        await execute(liked, *STANDS_IN_THE_WAY)
        assert (await database.restore(GONE, SKIP)).links == Links({"likes": 1}, {}, {"likes": 1})
    assert await fetch(liked, "SELECT id FROM likes WHERE task IS NOT NULL") == [(2,)]
    assert await rows_of(liked, GONE) == WHOLE


# What is not noted, and what is forgotten.


@pytest.mark.parametrize("terms", [ERASE, RETAIN], ids=["erase", "retain"])
async def test_under_another_policy_nothing_is_noted(liked: str, terms: RemovalTerms) -> None:
    async with opened(liked) as database:
        await remove(database, GONE, terms=terms)
    assert not await fetch_value(liked, "SELECT is_called FROM usersync.links_id_seq"), "not even for a moment"


async def test_links_expire_with_the_archive(liked: str) -> None:
    async with gone(liked):
        kept = "(SELECT expires_at FROM usersync.archive UNION SELECT expires_at FROM usersync.links)"
        assert await fetch_value(liked, f"SELECT count(*) FROM {kept} AS k") == 1


async def test_a_link_that_is_past_its_retention_is_neither_set_again_nor_counted(liked: str) -> None:
    await execute(liked, "INSERT INTO likes SELECT 3, task FROM likes WHERE id = 1")
    async with gone(liked) as database:
        await execute(
            liked, "UPDATE usersync.links SET expires_at = now() WHERE id = (SELECT min(id) + 1 FROM usersync.links)"
        )
        restored = await database.restore(GONE, RESTORE)
    assert restored.links == Links({"likes": 2}, {}, {})


async def test_an_archived_user_who_is_erased_later_is_forgotten_in_both_directions(url: str) -> None:
    """What referred to his rows goes, and that his row referred to somebody else's."""
    await execute(
        url,
        "ALTER TABLE user_progress ADD UNIQUE (user_id)",
        INVITED,
        f"INSERT INTO invited VALUES ('{LIVING}', '{GONE}'), ('{GONE}', '{OTHER}')",
    )
    async with opened(url) as database:
        await remove(database, GONE)
        await remove(database, OTHER)
        assert "links" in await tables_that_name(url, GONE)
        await erase(database, proofs([GONE])[0])
    assert await tables_that_name(url, GONE) == ["claims"]
    assert "links" not in await tables_that_name(url, OTHER), "the row that referred was named by both"


@pytest.mark.parametrize(
    ("key", "word"),
    [("", "no primary key"), (", PRIMARY KEY (id, task)", "primary key of public.likes")],
    ids=["without", "moved"],
)
async def test_a_table_whose_rows_cannot_be_found_again_is_named_and_the_removal_goes_on(
    url: str, key: str, word: str
) -> None:
    await execute(
        url,
        "INSERT INTO tasks (id) VALUES ('00000000-0000-0000-0000-000000000000')",
        "CREATE TABLE likes (id int, task uuid DEFAULT '00000000-0000-0000-0000-000000000000' "
        f"CONSTRAINT liked REFERENCES tasks ON DELETE SET DEFAULT{key})",
        LIKES,
    )
    async with opened(url) as database:
        (sentence,) = (await database.inspect()).unnoted_links
        assert "liked of public.likes to public.tasks (ON DELETE SET DEFAULT)" in sentence
        assert word in sentence
        assert (await remove(database, GONE)).users == 1
        assert (await database.restore(GONE, RESTORE)).links == Links()


async def test_a_role_that_may_not_read_the_rows_removes_and_says_what_is_not_noted(role: str, liked: str) -> None:
    async with opened(role) as database:
        (sentence,) = (await database.inspect()).unnoted_links
        assert 'GRANT SELECT ON "public"."likes"' in sentence
        assert (await remove(database, GONE)).users == 1
    assert await fetch_value(liked, NOTED) == 0


async def test_a_role_that_may_not_set_the_column_is_told_the_grant_and_may_skip(role: str, liked: str) -> None:
    await execute(liked, "GRANT SELECT ON likes TO PUBLIC")
    async with opened(role) as database:
        assert (await remove(database, GONE)).users == 1
        with pytest.raises(RequestRefused, match=r'GRANT SELECT, UPDATE \("task"\) ON "public"."likes"'):
            await database.restore(GONE, RESTORE)
        assert await rows_of(liked, GONE) == dict.fromkeys(TABLES, 0)
        assert (await database.restore(GONE, SKIP)).links == Links({}, {}, {"likes": 2})
        await execute(liked, "GRANT UPDATE (task) ON likes TO PUBLIC")
        assert (await database.restore(GONE, RESTORE)).links == Links({"likes": 2})


async def test_without_such_a_key_no_row_is_locked_before_the_delete(url: str) -> None:
    await execute(url, LIKED.replace("ON DELETE SET NULL", ""), *STOP)
    async with (
        opened(url) as database,
        running(database, [LIVING]) as run,
        connected(url) as gate,
        connected(url) as application,
    ):
        await gate.execute("SELECT pg_advisory_lock(42)")
        removing = asyncio.create_task(run.remove_users(proofs([GONE]), TERMS))
        await until_waited_for(gate)
        free = await application.fetch("SELECT FROM tasks FOR UPDATE SKIP LOCKED")
        assert len(free) == 5, "all but the one that the DELETE has come to"
        await gate.execute("SELECT pg_advisory_unlock(42)")
        assert (await removing).users == 1
