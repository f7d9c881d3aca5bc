from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.claims import ClaimKind
from controller.core.outcomes import Absorbed, Removal
from controller.core.requests import RestoreTerms
from controller.core.targets import Target
from controller.errors import TableUnsupported
from tests.support.databases import (
    connected,
    create_tables,
    execute,
    fetch,
    put_clock,
    seed,
    seed_users,
    until,
    until_waited_for,
    user_ids,
    user_ids_in,
    users_with_rows,
)
from tests.support.stores import DELETION, delivery, ids, opened, proofs

if TYPE_CHECKING:
    from controller.core.claims import Claim
    from controller.postgres import Database

USER = ids(user_ids(1))[0]
LEASE = timedelta(seconds=30)


async def claimed(database: Database, kind: ClaimKind = ClaimKind.DELETION) -> Claim:
    """One claim on USER, taken."""
    await database.record_claim(delivery("claimed", "user.deleted"), USER, kind)
    (claim,) = await database.take_claims(1, LEASE)
    return claim


@pytest.mark.parametrize("unique", [True, False], ids=["unique-index", "no-index"])
async def test_the_same_message_five_times_at_once_has_one_effect(empty_database_url: str, *, unique: bool) -> None:
    await create_tables(empty_database_url, unique=unique)
    async with opened(empty_database_url) as one, opened(empty_database_url) as other:
        outcomes = await asyncio.gather(
            *(database.create_profile(delivery("m1"), USER) for database in (one, other, one, other, one))
        )
    assert sorted(outcome.value for outcome in outcomes) == ["created"] + ["repeated"] * 4
    assert await user_ids_in(empty_database_url) == [USER]


async def test_the_same_claim_five_times_at_once_is_one_claim(database_url: str) -> None:
    async with opened(database_url) as database:
        outcomes = await asyncio.gather(
            *(database.record_claim(delivery("m1"), USER, ClaimKind.DELETION) for _ in range(5))
        )
        assert sorted(outcome.value for outcome in outcomes) == ["claimed"] + ["repeated"] * 4
        assert len(await database.take_claims(10, LEASE)) == 1


async def test_a_message_without_an_effect_is_not_remembered(database_url: str) -> None:
    await execute(database_url, "ALTER TABLE user_progress ADD CONSTRAINT closed CHECK (false)")
    async with opened(database_url) as database:
        with pytest.raises(TableUnsupported, match="closed"):
            await database.create_profile(delivery("m1"), USER)
        await execute(database_url, "ALTER TABLE user_progress DROP CONSTRAINT closed")
        assert await database.create_profile(delivery("m1"), USER) is Absorbed.CREATED


async def test_the_same_message_id_of_another_schema_is_another_message(database_url: str) -> None:
    await create_tables(database_url, schema="staging")
    async with opened(database_url) as one, opened(database_url, target=Target(schema="staging")) as other:
        assert await one.create_profile(delivery("m1"), USER) is Absorbed.CREATED
        assert await other.create_profile(delivery("m1"), USER) is Absorbed.CREATED


async def test_an_event_needs_the_profile_table(empty_database_url: str) -> None:
    await create_tables(empty_database_url, tables=("tasks",))
    async with opened(empty_database_url) as database:
        with pytest.raises(TableUnsupported, match=r"public\.user_progress does not exist"):
            await database.create_profile(delivery("m1"), USER)


async def test_claims_are_parted_among_those_who_take_at_once(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as other:
        for number, user in enumerate(ids(user_ids(20))):
            await one.record_claim(delivery(f"m{number}"), user, ClaimKind.DELETION)
        taken = await asyncio.gather(*(database.take_claims(5, LEASE) for database in (one, other) * 3))
    everything = [claim.user_id for claims in taken for claim in claims]
    assert len(everything) == len(set(everything)) == 20


async def test_claims_come_oldest_first(database_url: str) -> None:
    users = ids(reversed(user_ids(5)))
    async with opened(database_url) as database:
        for user in users:
            await database.record_claim(delivery(user), user, ClaimKind.DELETION)
        assert [claim.user_id for claim in await database.take_claims(3, LEASE)] == users[:3]


async def test_a_new_message_about_a_claimed_user_begins_its_look_ups_anew(database_url: str) -> None:
    async with opened(database_url) as database:
        claim = await claimed(database)
        await database.postpone_claim(claim, timedelta(hours=1), answered_present=True)
        await database.record_claim(delivery("again"), USER, ClaimKind.DELETION)
        (anew,) = await database.take_claims(1, LEASE)
        assert (anew.id, anew.attempts, anew.present_answers) == (claim.id, 0, 0)


async def test_claims_of_a_kind_that_only_a_newer_version_knows_are_left_to_it(database_url: str) -> None:
    async with opened(database_url) as database:
        await execute(
            database_url,
            "ALTER TABLE usersync.claims DROP CONSTRAINT claims_kind_check",
            f"INSERT INTO usersync.claims (schema_name, user_id, kind) VALUES ('public', '{USER}', 'of_tomorrow')",
        )
        assert await database.next_claim_due() is None
        assert await database.take_claims(1, LEASE) == []
        assert (await database.backlog()).waiting == {}
        assert (await claimed(database)).kind is ClaimKind.DELETION


async def test_a_claim_begun_anew_is_not_discarded_by_who_took_it_before(database_url: str) -> None:
    async with opened(database_url) as database:
        await database.postpone_claim(await claimed(database), timedelta(), answered_present=True)
        (old,) = await database.take_claims(1, LEASE)
        await database.record_claim(delivery("again"), USER, ClaimKind.DELETION)
        await database.discard_claim(old)
        assert await database.next_claim_due() == timedelta()


@pytest.mark.parametrize("back", [timedelta(minutes=1), timedelta(days=400)])
async def test_a_holdback_lasts_no_longer_than_it_says_after_a_clock_was_set_back_and_no_shorter(
    database_url: str, back: timedelta
) -> None:
    holdback = timedelta(hours=2)
    async with opened(database_url) as database:
        await database.record_claim(delivery("m1", "user.deleted"), USER, ClaimKind.HOLDBACK, holdback)
        await put_clock(database_url, -back)
        assert await database.take_claims(1, LEASE) == []
        await put_clock(database_url, holdback - back - timedelta(minutes=1))
        assert await database.take_claims(1, LEASE) == []
        await put_clock(database_url, holdback - back + timedelta(minutes=1))
        assert len(await database.take_claims(1, LEASE)) == 1


async def test_a_claim_that_is_put_off_does_not_wait_for_a_clock_that_was_set_back(database_url: str) -> None:
    async with opened(database_url) as database:
        await database.postpone_claim(await claimed(database), timedelta(minutes=10), answered_present=False)
        await put_clock(database_url, -timedelta(days=1))
        assert len(await database.take_claims(1, LEASE)) == 1


async def test_a_shorter_holdback_shortens_the_one_that_is_under_way(database_url: str) -> None:
    async with opened(database_url) as database:
        for message, hours in (("m1", 24), ("m2", 1), ("m3", 24)):
            await database.record_claim(
                delivery(message, "user.deleted"), USER, ClaimKind.HOLDBACK, timedelta(hours=hours)
            )
        due = await database.next_claim_due()
        assert due is not None
        assert timedelta(minutes=59) < due <= timedelta(hours=1)
        held = await fetch(database_url, "SELECT holdback FROM usersync.claims")
    assert [row["holdback"] for row in held] == [timedelta(hours=1)]


async def test_a_restored_user_is_not_removed_when_the_holdback_is_over(database_url: str) -> None:
    await seed_users(database_url, [USER])
    async with opened(database_url) as database:
        await database.settle_by_removal(await claimed(database), proofs([USER])[0], DELETION)
        await database.record_claim(delivery("m2", "user.deleted"), USER, ClaimKind.HOLDBACK, timedelta(hours=1))
        await database.restore(USER, RestoreTerms("a person"))
    assert await waiting(database_url) == []


async def test_a_settled_removal_archives_every_row_with_its_reason(database_url: str) -> None:
    await seed_users(database_url, [USER])
    async with opened(database_url) as database:
        claim = await claimed(database)
        assert await database.settle_by_removal(claim, proofs([USER])[0], DELETION) == Removal(users=1, rows=7)
    rows = await fetch(database_url, "SELECT reason, run_id, count(*) AS n FROM usersync.archive GROUP BY 1, 2")
    assert [tuple(row) for row in rows] == [("deleted", None, 7)]


async def waiting(url: str) -> list[str]:
    """The kinds of the claims that wait."""
    return [row["kind"] for row in await fetch(url, "SELECT kind FROM usersync.claims")]


async def test_a_removal_settled_twice_changes_nothing_more(database_url: str) -> None:
    await seed_users(database_url, [USER])
    async with opened(database_url) as one, opened(database_url) as other:
        claim = await claimed(one)
        removals = await asyncio.gather(
            *(database.settle_by_removal(claim, proofs([USER])[0], DELETION) for database in (one, other))
        )
        assert sum(removal.rows for removal in removals) == 7
    assert await waiting(database_url) == ["second_sweep"]


async def test_a_deleted_user_without_rows_is_buried_before_a_late_creation(database_url: str) -> None:
    async with opened(database_url) as database:
        await database.settle_by_removal(await claimed(database), proofs([USER])[0], DELETION)
        assert await database.create_profile(delivery("late"), USER) is Absorbed.TOMBSTONED


async def test_the_proof_of_another_user_settles_nothing(database_url: str) -> None:
    await seed_users(database_url, user_ids(2))
    async with opened(database_url) as database:
        claim = await claimed(database)
        assert await database.settle_by_removal(claim, proofs(user_ids(1, start=1))[0], DELETION) == Removal(
            users_left=1
        )
    assert await users_with_rows(database_url) == set(user_ids(2))


async def test_all_claims_on_a_removed_user_end_with_him(database_url: str) -> None:
    async with opened(database_url) as database:
        await database.record_claim(delivery("m0"), USER, ClaimKind.CATCH_UP)
        claims = await database.take_claims(5, LEASE)
        await database.record_claim(delivery("m1"), USER, ClaimKind.DELETION)
        await database.settle_by_removal(claims[0], proofs([USER])[0], DELETION)
    assert await waiting(database_url) == ["second_sweep"]


async def test_a_buried_user_is_not_created_by_a_claim(database_url: str) -> None:
    async with opened(database_url) as database:
        await database.settle_by_removal(await claimed(database), proofs([USER])[0], DELETION)
        await database.record_claim(delivery("m2"), USER, ClaimKind.CATCH_UP)
        (claim,) = await database.take_claims(1, LEASE)
        assert not await database.settle_by_creation(claim)
    assert await user_ids_in(database_url) == []


async def test_a_claim_settled_by_creation_keeps_the_profile_that_is_there(database_url: str) -> None:
    await seed(database_url, "user_progress", [USER])
    async with opened(database_url) as database:
        assert not await database.settle_by_creation(await claimed(database, ClaimKind.CATCH_UP))
        assert await database.next_claim_due() is None
    assert await user_ids_in(database_url) == [USER]


async def test_a_creation_that_waited_for_the_removal_of_its_user_finds_him_buried(database_url: str) -> None:
    await seed_users(database_url, [USER])
    async with opened(database_url) as database, connected(database_url) as application:
        claim = await claimed(database)
        row_lock = application.transaction()
        await row_lock.start()
        await application.execute("SELECT 1 FROM moods FOR UPDATE")
        removing = asyncio.create_task(database.settle_by_removal(claim, proofs([USER])[0], DELETION))
        await until_waited_for(application)
        creating = asyncio.create_task(database.create_profile(delivery("m1"), USER))
        await until(database_url, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'")
        await row_lock.rollback()
        assert (await removing).users == 1
        assert await creating is Absorbed.TOMBSTONED
    assert await users_with_rows(database_url) == set()
