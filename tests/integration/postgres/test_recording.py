"""Events that are committed together, on a real server: what each comes to, and what one may do to the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.claims import ClaimKind
from controller.core.outcomes import Absorbed
from controller.core.targets import Target
from controller.errors import TableUnsupported
from controller.postgres.recording import Errand, Recording
from tests.support.databases import (
    connected,
    create_tables,
    execute,
    fetch,
    fetch_value,
    seed,
    until,
    user_ids,
    user_ids_in,
)
from tests.support.stores import DELETION, delivery, ids, opened, proofs
from tests.support.webhooks import spin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from controller.core.users import UserId
    from controller.postgres import Database

LEASE = timedelta(seconds=30)
ONE, TWO, THREE = ids(user_ids(3))
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('public/' || $1, 1970694498))"


def sign_up(message: str, user_id: UserId) -> Errand:
    return Errand(delivery(message), user_id)


def deletion(message: str, user_id: UserId) -> Errand:
    return Errand(delivery(message, "user.deleted"), user_id, ClaimKind.DELETION)


async def together(database: Database, *errands: Errand) -> list[Absorbed | None]:
    """All in one transaction."""
    return await Recording(database.connections, Target()).together(errands)


async def bury(database: Database, user_id: UserId) -> None:
    await database.record_claim(delivery(f"bury {user_id}", "user.deleted"), user_id, ClaimKind.DELETION)
    (claim,) = [claim for claim in await database.take_claims(10, LEASE) if claim.user_id == user_id]
    await database.settle_by_removal(claim, proofs([user_id])[0], DELETION)


@asynccontextmanager
async def held(url: str, statement: str, *arguments: object) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of somebody else's that has done `statement` and does not end."""
    async with connected(url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(statement, *arguments)
        try:
            yield connection
        finally:
            await transaction.rollback()


@pytest.fixture(params=[True, False], ids=["unique-index", "no-index"])
async def either_url(request: pytest.FixtureRequest, empty_database_url: str) -> str:
    await create_tables(empty_database_url, unique=request.param)
    return empty_database_url


async def test_the_second_of_one_message_in_a_group_is_repeated(either_url: str) -> None:
    async with opened(either_url) as database:
        results = await together(database, sign_up("m1", ONE), sign_up("m2", TWO), sign_up("m1", ONE))
    assert results == [Absorbed.CREATED, Absorbed.CREATED, Absorbed.REPEATED]
    assert await user_ids_in(either_url) == [ONE, TWO]


async def test_of_two_messages_about_one_newcomer_the_first_creates_him(either_url: str) -> None:
    async with opened(either_url) as database:
        results = await together(database, sign_up("m1", ONE), sign_up("m2", ONE))
    assert results == [Absorbed.CREATED, Absorbed.PRESENT]
    assert await user_ids_in(either_url) == [ONE]


async def test_a_message_of_an_earlier_group_is_repeated(either_url: str) -> None:
    async with opened(either_url) as database:
        await together(database, sign_up("m1", ONE))
        assert await together(database, sign_up("m1", ONE), sign_up("m2", TWO)) == [Absorbed.REPEATED, Absorbed.CREATED]


@pytest.mark.parametrize("deleted_first", [False, True])
async def test_a_user_created_and_deleted_in_one_group_has_both(either_url: str, *, deleted_first: bool) -> None:
    errands = [sign_up("m1", ONE), deletion("m2", ONE)]
    expected = [Absorbed.CREATED, Absorbed.CLAIMED]
    if deleted_first:
        errands, expected = errands[::-1], expected[::-1]
    async with opened(either_url) as database:
        assert await together(database, *errands) == expected
        assert [claim.user_id for claim in await database.take_claims(5, LEASE)] == [ONE]
    assert await user_ids_in(either_url) == [ONE]


async def test_two_claims_on_one_user_in_one_group_are_one(either_url: str) -> None:
    async with opened(either_url) as database:
        results = await together(database, deletion("m1", ONE), deletion("m2", ONE))
        assert results == [Absorbed.CLAIMED, Absorbed.CLAIMED]
        assert len(await database.take_claims(5, LEASE)) == 1


async def test_claims_of_one_group_are_taken_in_the_order_in_which_they_came(either_url: str) -> None:
    async with opened(either_url) as database:
        await together(database, deletion("m3", THREE), deletion("m2", TWO), deletion("m1", ONE))
        assert [claim.user_id for claim in await database.take_claims(2, LEASE)] == [THREE, TWO]


async def test_kinds_of_claims_do_not_mix_in_a_group(either_url: str) -> None:
    catch_up = Errand(delivery("m2"), ONE, ClaimKind.CATCH_UP)
    async with opened(either_url) as database:
        assert await together(database, deletion("m1", ONE), catch_up) == [Absorbed.CLAIMED, Absorbed.RECORDED]
    kinds = await fetch(either_url, "SELECT kind FROM usersync.claims ORDER BY id")
    assert [row["kind"] for row in kinds] == ["deletion", "catch_up"]


async def test_of_two_holdbacks_of_one_user_in_a_group_the_shorter_counts(either_url: str) -> None:
    held = [
        Errand(delivery(f"m{hours}", "user.deleted"), user_id, ClaimKind.HOLDBACK, timedelta(hours=hours))
        for hours, user_id in ((3, ONE), (2, ONE), (4, ONE), (5, TWO))
    ]
    async with opened(either_url) as database:
        assert await together(database, *held, deletion("m9", THREE)) == [Absorbed.HELD] * 4 + [Absorbed.CLAIMED]
    claims = await fetch(either_url, "SELECT user_id, kind, holdback FROM usersync.claims ORDER BY user_id")
    assert [tuple(claim) for claim in claims] == [
        (ONE, "holdback", timedelta(hours=2)),
        (TWO, "holdback", timedelta(hours=5)),
        (THREE, "deletion", None),
    ]


async def test_a_buried_user_stays_so_among_newcomers(either_url: str) -> None:
    async with opened(either_url) as database:
        await bury(database, TWO)
        results = await together(database, sign_up("m1", ONE), sign_up("m2", TWO), sign_up("m3", THREE))
    assert results == [Absorbed.CREATED, Absorbed.TOMBSTONED, Absorbed.CREATED]
    assert await user_ids_in(either_url) == [ONE, THREE]


async def test_profiles_that_are_there_stay_the_only_ones(either_url: str) -> None:
    await seed(either_url, "user_progress", [TWO])
    async with opened(either_url) as database:
        assert await together(database, sign_up("m1", ONE), sign_up("m2", TWO)) == [Absorbed.CREATED, Absorbed.PRESENT]
    assert await user_ids_in(either_url) == [ONE, TWO]


async def test_a_user_whose_lock_somebody_holds_is_left_out_and_not_recorded(either_url: str) -> None:
    async with opened(either_url) as database, held(either_url, LOCK, TWO):
        results = await together(database, sign_up("m1", ONE), sign_up("m2", TWO), deletion("m3", TWO))
    assert results == [Absorbed.CREATED, None, None]
    assert await fetch_value(either_url, "SELECT array_agg(message_id) FROM usersync.deliveries") == ["m1"]
    assert await user_ids_in(either_url) == [ONE]


async def all_at_once(database: Database, users: list[UserId]) -> dict[UserId, asyncio.Task[Absorbed]]:
    """A sign-up of each, all of them waiting before the first is answered."""
    tasks = {user: asyncio.create_task(database.create_profile(delivery(f"m {user}"), user)) for user in users}
    await spin(1)
    return tasks


async def test_a_user_whom_somebody_works_on_holds_up_nobody_else(database_url: str) -> None:
    users = ids(user_ids(20))
    async with opened(database_url) as database:
        async with held(database_url, LOCK, users[7]):
            tasks = await all_at_once(database, users)
            others = [task for user, task in tasks.items() if user != users[7]]
            assert set(await asyncio.gather(*others)) == {Absorbed.CREATED}
            assert not tasks[users[7]].done()
        assert await tasks[users[7]] is Absorbed.CREATED


async def test_a_row_that_the_application_has_not_committed_holds_up_nobody_else(empty_database_url: str) -> None:
    url = empty_database_url
    await create_tables(url, unique=True)
    users = ids(user_ids(20))
    async with opened(url) as database:
        async with held(url, "INSERT INTO user_progress (user_id) VALUES ($1)", users[7]):
            tasks = await all_at_once(database, users)
            others = [task for user, task in tasks.items() if user != users[7]]
            assert set(await asyncio.gather(*others)) == {Absorbed.CREATED}
            assert not tasks[users[7]].done()
        assert await tasks[users[7]] is Absorbed.CREATED


async def refuse(url: str, user_id: UserId, condition: str) -> None:
    """Let a trigger of the application's refuse one user."""
    await execute(
        url,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NEW.user_id = '{user_id}' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '{condition}'; END IF; "
        "RETURN NEW; END $$",
        "CREATE TRIGGER refusing BEFORE INSERT ON user_progress FOR EACH ROW EXECUTE FUNCTION refuse()",
    )


@pytest.mark.parametrize("condition", ["check_violation", "insufficient_privilege", "query_canceled", "U0001"])
async def test_only_the_event_that_the_database_refuses_fails(either_url: str, condition: str) -> None:
    users = ids(user_ids(10))
    await refuse(either_url, users[4], "57014" if condition == "query_canceled" else condition)
    async with opened(either_url) as database:
        tasks = await all_at_once(database, users)
        results = await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert Counter(type(result) is Absorbed for result in results) == {True: 9, False: 1}
    assert type(results[4]) is not Absorbed
    assert await user_ids_in(either_url) == [user for user in users if user != users[4]]
    assert await fetch_value(either_url, "SELECT count(*) FROM usersync.deliveries") == 9


async def test_claims_are_recorded_beside_a_sign_up_that_fails(either_url: str) -> None:
    await execute(either_url, "ALTER TABLE user_progress ADD CONSTRAINT closed CHECK (false)")
    async with opened(either_url) as database:
        sign_ups = await all_at_once(database, [ONE])
        claims = [
            asyncio.create_task(database.record_claim(delivery(user, "user.deleted"), user, ClaimKind.DELETION))
            for user in (TWO, THREE)
        ]
        assert await asyncio.gather(*claims) == [Absorbed.CLAIMED, Absorbed.CLAIMED]
        with pytest.raises(TableUnsupported, match="closed"):
            await sign_ups[ONE]


async def test_each_message_has_one_effect_over_two_replicas_that_get_all_of_them(either_url: str) -> None:
    users = ids(user_ids(150))
    async with opened(either_url) as one, opened(either_url) as other:
        tasks = [*(await all_at_once(one, users)).values(), *(await all_at_once(other, users[::-1])).values()]
        results = Counter(await asyncio.gather(*tasks))
    assert results == {Absorbed.CREATED: 150, Absorbed.REPEATED: 150}
    assert await user_ids_in(either_url) == users


async def test_an_event_waits_for_a_connection_and_then_has_its_effect(database_url: str) -> None:
    async with opened(database_url) as database:
        pool = database.connections.pool
        connections = [await pool.acquire() for _ in range(pool.get_max_size())]
        tasks = await all_at_once(database, [ONE, TWO, THREE])
        tasks[TWO].cancel()
        for connection in connections:
            await pool.release(connection)
        assert [await tasks[ONE], await tasks[THREE]] == [Absorbed.CREATED, Absorbed.CREATED]
        # whoever went away is sent again, and has his effect once, whether it had begun or not
        again = await database.create_profile(delivery(f"m {TWO}"), TWO)
    assert again in {Absorbed.CREATED, Absorbed.REPEATED}
    assert await user_ids_in(database_url) == [ONE, TWO, THREE]


async def test_closing_commits_what_was_taken(database_url: str) -> None:
    users = ids(user_ids(100))
    async with opened(database_url) as database:
        tasks = await all_at_once(database, users)
    assert {task.result() for task in tasks.values()} == {Absorbed.CREATED}
    assert await user_ids_in(database_url) == users


@pytest.mark.parametrize("unique", [True, False], ids=["index dropped", "index added"])
async def test_an_index_that_comes_or_goes_meanwhile_is_noticed(empty_database_url: str, *, unique: bool) -> None:
    url = empty_database_url
    await create_tables(url, unique=unique)
    change = "DROP INDEX user_progress_user_id_idx" if unique else "CREATE UNIQUE INDEX ON user_progress (user_id)"
    async with opened(url) as database:
        await database.create_profile(delivery("m1"), ONE)
        await execute(url, change)
        assert await database.create_profile(delivery("m2"), ONE) is Absorbed.PRESENT
        assert await database.create_profile(delivery("m3"), TWO) is Absorbed.CREATED
    assert await user_ids_in(url) == [ONE, TWO]


async def test_a_profile_table_that_came_meanwhile_is_noticed(empty_database_url: str) -> None:
    url = empty_database_url
    await create_tables(url, tables=("tasks",))
    async with opened(url) as database:
        with pytest.raises(TableUnsupported, match="does not exist"):
            await database.create_profile(delivery("m1"), ONE)
        await create_tables(url, tables=("user_progress",))
        assert await database.create_profile(delivery("m1"), ONE) is Absorbed.CREATED


async def test_a_lock_that_was_waited_for_shows_what_its_holder_committed(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as other:
        async with held(database_url, LOCK, ONE):
            tasks = [*(await all_at_once(one, [ONE])).values(), *(await all_at_once(other, [ONE])).values()]
            waiting = "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            await until(database_url, waiting)
        assert Counter(await asyncio.gather(*tasks)) == {Absorbed.CREATED: 1, Absorbed.REPEATED: 1}
