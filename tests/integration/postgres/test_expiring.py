"""What is past its time goes at the end of a run, little by little, and never at the cost of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controller.core.outcomes import Changes, Outcome
from controller.core.plans import Plan
from controller.postgres.expiring import BATCH, BATCHES
from tests.support.databases import connected, execute, fetch, fetch_value
from tests.support.stores import opened, running

if TYPE_CHECKING:
    from controller.postgres import Database

OLD_ARCHIVE = """
    INSERT INTO usersync.archive (schema_name, table_name, user_id, content, reason, expires_at)
    SELECT 'public', 'tasks', 'user_' || n, '{}', 'orphaned', now() - interval '1 second' FROM generate_series(1, $1) n
"""
OLD_LINKS = """
    INSERT INTO usersync.links (schema_name, user_id, table_name, child_schema, child_table, constraint_name,
        primary_key, held, became, expires_at)
    SELECT 'public', 'user_' || n, 'tasks', 'public', 'likes', 'liked', '{}', '{}', '{}', now() - interval '1 second'
    FROM generate_series(1, $1) n
"""
OLD_DELIVERIES = """
    INSERT INTO usersync.deliveries (schema_name, message_id, event_type, received_at)
    SELECT 'public', 'old-' || n, 'user.created', now() - interval '91 days' FROM generate_series(1, $1) n
"""
OLD_RUNS = """
    INSERT INTO usersync.runs (id, schema_name, resource, holder, instance_id, actions, dry_run, state, started_at,
        finished_at)
    SELECT gen_random_uuid(), 'public', 'old', 'h', 'ins_test', '{}', false, 'succeeded', now() - interval '92 days',
        now() - interval '91 days'
    FROM generate_series(1, $1) n
"""
OLD_SECOND_SWEEPS = """
    INSERT INTO usersync.claims (schema_name, user_id, kind, due_at)
    SELECT 'public', 'user_' || n, 'second_sweep', now() - interval '8 days' FROM generate_series(1, $1) n
"""
OLD_APPROVALS = """
    INSERT INTO usersync.approvals (schema_name, digest, header, set_number, users, last_held_at)
    SELECT 'public', 'old ' || n, '', n, 1, now() - interval '91 days' FROM generate_series(1, $1) n
    UNION ALL SELECT 'public', 'last', '', $1 + 1, 1, now()
"""
OLD = {
    "archive": OLD_ARCHIVE,
    "links": OLD_LINKS,
    "deliveries": OLD_DELIVERIES,
    "runs": OLD_RUNS,
    "approvals": OLD_APPROVALS,
    "claims": OLD_SECOND_SWEEPS,
}
AGED = {
    "archive": "expires_at < now()",
    "links": "expires_at < now()",
    "deliveries": "received_at < now() - interval '90 days'",
    "runs": "finished_at < now() - interval '90 days'",
    "approvals": "last_held_at < now() - interval '90 days'",
    "claims": "due_at < now() - interval '7 days'",
}
YOUNG = [
    """INSERT INTO usersync.archive (schema_name, table_name, user_id, content, reason, expires_at)
    VALUES ('public', 'tasks', 'user_young', '{}', 'orphaned', now() + interval '1 minute')""",
    """INSERT INTO usersync.links (schema_name, user_id, table_name, child_schema, child_table, constraint_name,
        primary_key, held, became, expires_at)
    VALUES ('public', 'user_young', 'tasks', 'public', 'likes', 'liked', '{}', '{}', '{}',
        now() + interval '1 minute')""",
    """INSERT INTO usersync.deliveries (schema_name, message_id, event_type, received_at)
    VALUES ('public', 'young', 'user.created', now() - interval '89 days')""",
    """INSERT INTO usersync.runs (id, schema_name, resource, holder, instance_id, actions, dry_run, state, started_at,
        finished_at)
    VALUES (gen_random_uuid(), 'public', 'young', 'h', 'ins_test', '{}', false, 'failed', now() - interval '91 days',
        now() - interval '89 days')""",
    """INSERT INTO usersync.claims (schema_name, user_id, kind, due_at)
    VALUES ('public', 'user_young', 'second_sweep', now() - interval '6 days'),
        ('public', 'user_old', 'deletion', now() - interval '8 days')""",
    """INSERT INTO usersync.approvals (schema_name, digest, header, set_number, users, last_held_at, approved_at)
    VALUES ('public', 'young', '', 1, 1, now() - interval '89 days', NULL),
        ('public', 'used', '', 2, 1, now() - interval '91 days', now() - interval '91 days'),
        ('public', 'with the last number', '', 3, 1, now() - interval '91 days', NULL)""",
]
COUNTS_IN_TRANSACTIONS = """
    CREATE TABLE public.purged (kind text, transaction xid8 DEFAULT pg_current_xact_id(), rows bigint);
    CREATE FUNCTION public.count_purged() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.purged (kind, rows) SELECT TG_TABLE_NAME, count(*) FROM gone;
        RETURN NULL;
    END $$;
"""


async def add(url: str, kind: str, rows: int) -> None:
    """Rows of a kind whose time has come."""
    async with connected(url) as connection:
        await connection.execute(OLD[kind], rows)


async def left(url: str, kind: str) -> int:
    count: int = await fetch_value(url, f"SELECT count(*) FROM usersync.{kind} WHERE {AGED[kind]}")
    return count


async def run_to_end(database: Database) -> str:
    async with running(database) as run:
        drift = await run.observe()
        await run.finish(Outcome(run.id, drift, drift, Plan(), Changes()))
    return run.id


@pytest.mark.parametrize("kind", OLD)
async def test_what_is_past_its_time_goes_with_the_next_run(database_url: str, kind: str) -> None:
    async with opened(database_url) as database:
        await add(database_url, kind, 3)
        await run_to_end(database)
    assert await left(database_url, kind) == 0


async def test_what_is_not_past_its_time_stays(database_url: str) -> None:
    async with opened(database_url) as database:
        await execute(database_url, *YOUNG)
        run_id = await run_to_end(database)
    assert await fetch_value(database_url, "SELECT array_agg(user_id) FROM usersync.archive") == ["user_young"]
    assert await fetch_value(database_url, "SELECT array_agg(user_id) FROM usersync.links") == ["user_young"]
    assert await fetch_value(database_url, "SELECT array_agg(message_id) FROM usersync.deliveries") == ["young"]
    assert await fetch_value(database_url, "SELECT count(*) FROM usersync.approvals") == 3
    claims = "SELECT array_agg(kind ORDER BY kind) FROM usersync.claims"
    assert await fetch_value(database_url, claims) == ["deletion", "second_sweep"]
    runs = await fetch(database_url, "SELECT id::text, resource FROM usersync.runs")
    assert {row["resource"] for row in runs} == {"young", "app/production"}
    assert run_id in {row["id"] for row in runs}


@pytest.mark.parametrize("kind", OLD)
async def test_what_belongs_to_another_schema_is_left_to_its_own_runs(database_url: str, kind: str) -> None:
    async with opened(database_url) as database:
        await add(database_url, kind, 3)
        await execute(database_url, f"UPDATE usersync.{kind} SET schema_name = 'other'")
        await run_to_end(database)
    assert await left(database_url, kind) == 3


@pytest.mark.parametrize("kind", OLD)
async def test_many_go_in_small_batches_each_in_a_transaction_of_its_own(database_url: str, kind: str) -> None:
    async with opened(database_url) as database:
        await add(database_url, kind, 2 * BATCH + 1)
        await execute(
            database_url,
            COUNTS_IN_TRANSACTIONS,
            f"CREATE TRIGGER count_purged AFTER DELETE ON usersync.{kind} REFERENCING OLD TABLE AS gone "
            "FOR EACH STATEMENT EXECUTE FUNCTION public.count_purged()",
        )
        await run_to_end(database)
    purged = await fetch(database_url, "SELECT sum(rows)::int AS rows FROM purged WHERE rows > 0 GROUP BY transaction")
    assert sorted(row["rows"] for row in purged) == [1, BATCH, BATCH]


async def test_one_run_takes_a_bounded_number_and_the_next_one_goes_on(database_url: str) -> None:
    async with opened(database_url) as database:
        await add(database_url, "deliveries", BATCH * BATCHES + 1)
        await run_to_end(database)
        assert await left(database_url, "deliveries") == 1
        await run_to_end(database)
    assert await left(database_url, "deliveries") == 0


async def test_a_row_that_somebody_holds_is_not_waited_for(database_url: str) -> None:
    async with opened(database_url) as database:
        await add(database_url, "archive", 3)
        async with connected(database_url) as other, other.transaction():
            await other.execute("SELECT FROM usersync.archive WHERE user_id = 'user_2' FOR UPDATE")
            await run_to_end(database)
            assert await left(database_url, "archive") == 1


async def test_a_run_whose_purge_fails_has_succeeded_all_the_same(database_url: str) -> None:
    async with opened(database_url) as database:
        await add(database_url, "deliveries", 1)
        await execute(
            database_url,
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
            "CREATE TRIGGER refuse BEFORE DELETE ON usersync.deliveries FOR EACH ROW EXECUTE FUNCTION public.refuse()",
        )
        run_id = await run_to_end(database)
    assert await fetch_value(database_url, "SELECT state FROM usersync.runs WHERE id::text = $1", run_id) == "succeeded"
    assert await left(database_url, "deliveries") == 1


async def test_the_report_is_written_before_anything_is_purged(database_url: str) -> None:
    async with opened(database_url) as database:
        await add(database_url, "deliveries", 1)
        await execute(
            database_url,
            "CREATE TABLE public.seen (state text)",
            "CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO seen SELECT state FROM usersync.runs; RETURN NULL; END $$",
            "CREATE TRIGGER look AFTER DELETE ON usersync.deliveries FOR EACH ROW EXECUTE FUNCTION public.look()",
        )
        await run_to_end(database)
        assert await fetch_value(database_url, "SELECT array_agg(state) FROM seen") == ["succeeded"]


@pytest.mark.parametrize("kind", ["archive", "links", "deliveries"])
async def test_without_runs_it_goes_batch_by_batch(database_url: str, kind: str) -> None:
    async with opened(database_url) as database:
        await add(database_url, kind, BATCH + 1)
        assert await database.expire_some()
        assert await left(database_url, kind) == 1
        assert not await database.expire_some()
    assert await left(database_url, kind) == 0


async def test_without_runs_too_what_is_not_past_its_time_stays_and_runs_are_left_to_runs(database_url: str) -> None:
    async with opened(database_url) as database:
        await execute(database_url, *YOUNG)
        await add(database_url, "runs", 1)
        await database.expire_some()
    counts = [await fetch_value(database_url, f"SELECT count(*) FROM usersync.{kind}") for kind in OLD]
    assert counts == [1, 1, 1, 2, 3, 2]


async def test_of_several_services_one_at_a_time_deletes_what_is_past_its_time(database_url: str) -> None:
    async with opened(database_url) as database, connected(database_url) as other, other.transaction():
        await add(database_url, "deliveries", 1)
        await other.execute("SELECT pg_advisory_xact_lock(hashtextextended('usersync.expiring/public', 0))")
        assert not await database.expire_some()
        assert await left(database_url, "deliveries") == 1
