"""The onlooker of the tests that kill: it sees what it is there to see."""

from __future__ import annotations

from tests.support.databases import TABLES, execute, seed_users, user_ids
from tests.support.observing import observing


async def test_a_user_whose_rows_leave_one_table_first_is_seen_half_gone(database_url: str) -> None:
    half, whole = user_ids(2)
    await seed_users(database_url, [half, whole])
    async with observing(database_url) as observer:
        await execute(database_url, f"DELETE FROM moods WHERE user_id = '{half}'")
        await observer.looked_again()
    assert set(observer.halves) == {half}


async def test_users_whose_rows_leave_all_tables_at_once_are_not(database_url: str) -> None:
    gone, stays = user_ids(2)
    await seed_users(database_url, [gone, stays])
    async with observing(database_url) as observer:
        await execute(database_url, "; ".join(f"DELETE FROM {table} WHERE user_id = '{gone}'" for table in TABLES))
        await observer.looked_again()
    assert (observer.halves, observer.users) == ([], 1)
