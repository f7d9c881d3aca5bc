"""A table of very many rows without an index: read as a whole a few times, whatever the number of users to go."""

from __future__ import annotations

from controller.core.outcomes import Removal
from tests.support.databases import execute, fetch_value, until, user_ids
from tests.support.stores import TERMS, opened, proofs, running

ROWS = 1_000_000
LIVING, GONE, BATCH = 19_000, 1_000, 500
GONE_ROWS = ROWS * GONE // (LIVING + GONE)


async def test_a_million_rows_without_an_index_are_scanned_a_few_times_and_not_once_per_user(
    database_url: str,
) -> None:
    users = user_ids(LIVING + GONE)
    await execute(
        database_url,
        "ALTER TABLE moods DROP CONSTRAINT moods_pkey",
        f"""
        INSERT INTO moods (user_id)
        SELECT 'user_test' || lpad((n % {LIVING + GONE})::text, 23, '0') FROM generate_series(1, {ROWS}) AS n
        """,
    )
    async with opened(database_url) as database, running(database, users[:LIVING]) as run:
        removal = Removal()
        for start in range(LIVING, LIVING + GONE, BATCH):
            removal += await run.remove_users(proofs(users[start : start + BATCH]), TERMS)
    assert removal == Removal(users=GONE, rows=GONE_ROWS)
    assert await fetch_value(database_url, "SELECT count(*) FROM moods") == ROWS - GONE_ROWS
    # A session tells of its scans when it ends.
    await until(database_url, "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'usersync'")
    scans = await fetch_value(database_url, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'moods'")
    assert 2 <= scans <= 6
