"""What of suspects and limits only a real database can show: other histories of it, and two who count at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from controller.core.claims import ClaimKind
from controller.core.suspects import Suspects, Terms
from tests.support.databases import connected, execute, put_clock, seed_users, until, user_ids
from tests.support.stores import DELETION, delivery, ids, opened, proofs, running

HOUR = timedelta(hours=1)
TERMS = Terms(grace_period=HOUR, longest_gap=3 * HOUR, window=24 * HOUR)
LOADED_AGAIN = (
    "CREATE TABLE usersync.loaded (LIKE usersync.suspects INCLUDING ALL)",
    "INSERT INTO usersync.loaded SELECT * FROM usersync.suspects",
    "DROP TABLE usersync.suspects",
    "ALTER TABLE usersync.loaded RENAME TO suspects",
)
"""What a dump does to the table as it is loaded: the same rows, in another one."""
SOMEBODY_WAITS_FOR_THE_TARGET = """
    SELECT EXISTS (SELECT FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND query LIKE '%usersync.target%FOR NO KEY UPDATE%')"""


async def test_in_another_history_of_the_database_every_absence_begins_anew(database_url: str) -> None:
    await seed_users(database_url, user_ids(2))
    async with opened(database_url) as database:
        async with running(database, user_ids(1)) as run:
            await run.weigh(TERMS, None, "")
        await execute(database_url, *LOADED_AGAIN)
        await put_clock(database_url, HOUR)
        async with running(database, user_ids(1)) as run:
            assert await run.weigh(TERMS, None, "") == (Suspects(waiting=1), None)


async def test_in_the_same_history_the_absence_goes_on(database_url: str) -> None:
    await seed_users(database_url, user_ids(2))
    async with opened(database_url) as database:
        async with running(database, user_ids(1)) as run:
            await run.weigh(TERMS, None, "")
        await put_clock(database_url, HOUR)
        async with running(database, user_ids(1)) as run:
            assert await run.weigh(TERMS, None, "") == (Suspects(due=1), None)


async def test_a_removal_waits_for_whoever_counts_against_the_limits_before_it(database_url: str) -> None:
    (user,) = ids(user_ids(1))
    await seed_users(database_url, [user])
    async with opened(database_url) as database, connected(database_url) as other:
        async with running(database, [user]):
            # From here on the number of users is known, and an event need not count them.
            pass
        await database.record_claim(delivery("m1", "user.deleted"), user, ClaimKind.DELETION)
        (claim,) = await database.take_claims(1, HOUR)
        async with other.transaction():
            await other.execute("SELECT 1 FROM usersync.target FOR NO KEY UPDATE")
            settling = asyncio.create_task(database.settle_by_removal(claim, proofs([user])[0], DELETION))
            await until(database_url, SOMEBODY_WAITS_FOR_THE_TARGET)
            assert not settling.done()
        assert (await settling).users == 1


async def test_a_claim_does_not_wait_for_a_clock_that_was_set_back(database_url: str) -> None:
    (user,) = ids(user_ids(1))
    async with opened(database_url) as database:
        await database.record_claim(delivery("m1", "user.deleted"), user, ClaimKind.DELETION)
        await put_clock(database_url, -24 * HOUR)
        (claim,) = await database.take_claims(1, HOUR)
    assert claim.user_id == user
