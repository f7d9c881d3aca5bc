"""Users who leave on their own request, beside runs and events in a real database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.claims import ClaimKind
from controller.core.leaving import FOR_GOOD
from controller.core.outcomes import Removal
from controller.core.removals import RemovalTerms
from controller.core.targets import Deletion, Target
from controller.postgres import Bounds, Database
from tests.support.databases import execute, fetch, fetch_value, seed, seed_users, user_id
from tests.support.fakes.clock import FakeClock
from tests.support.stores import INSTANCE, delivery, ids, opened, proofs, running

if TYPE_CHECKING:
    from controller.core.users import UserId

(USER,) = ids([user_id(7)])
(OTHER,) = ids([user_id(8)])
LEASE = timedelta(seconds=30)
TERMS = RemovalTerms.of(Deletion(), permitted=None)


@pytest.fixture
async def whole(database_url: str) -> str:
    """The four tables with rows of two users."""
    await seed_users(database_url, [USER, OTHER])
    return database_url


async def leave(database: Database, clock: FakeClock, user: UserId = USER) -> None:
    claim = await database.request_removal(user, LEASE)
    assert claim is not None
    (proof,) = proofs([user], clock)
    assert (await database.settle_by_removal(claim, proof, FOR_GOOD)).users == 1


async def acts(url: str) -> list[tuple[str, str]]:
    return [tuple(row) for row in await fetch(url, "SELECT act, reason FROM usersync.receipts ORDER BY id")]


async def test_nothing_of_him_stays_but_tombstone_and_receipt(whole: str) -> None:
    clock = FakeClock()
    async with opened(whole, clock=clock) as database:
        await execute(
            whole,
            "INSERT INTO usersync.suspects (schema_name, user_id, instance_id, epoch, absent_since, last_absent_at) "
            f"VALUES ('public', '{USER}', 'i', 'e', now(), now())",
            f"INSERT INTO usersync.held_users (schema_name, user_id, set_number) VALUES ('public', '{USER}', 1)",
        )
        await leave(database, clock)
        (sweep,) = await fetch(whole, "SELECT kind FROM usersync.claims")
        assert sweep["kind"] == "second_sweep"
        for table in ("suspects", "held_users", "archive", "unfinished"):
            assert await fetch_value(whole, f"SELECT count(*) FROM usersync.{table}") == 0
        assert await acts(whole) == [("erased", "requested")]
        assert (await database.verify_receipts()).problem is None


async def test_his_receipt_has_its_link_though_whoever_removed_him_has_not_come_to_make_it(whole: str) -> None:
    async with opened(whole) as database:
        await leave(database, FakeClock())
        linked = await database.receipt_of_request(USER)
        await execute(
            whole,
            "ALTER TABLE usersync.receipt_chain DISABLE TRIGGER append_only",
            "DELETE FROM usersync.receipt_chain",
        )
        assert await database.receipt_of_request(USER) == linked
    assert linked is not None
    assert linked.link is not None


async def test_of_a_user_with_very_many_rows_neither(database_url: str) -> None:
    await seed_users(database_url, [USER, OTHER])
    clock = FakeClock()
    bounds = Bounds(rows=5, batch=2, slice=timedelta())
    async with Database.open(database_url, Target(), clock, bounds=bounds) as database:
        await database.inspect()
        await database.pin_instance(INSTANCE)
        await execute(
            database_url,
            f"INSERT INTO usersync.held_users (schema_name, user_id, set_number) VALUES ('public', '{USER}', 1)",
        )
        claim = await database.request_removal(USER, LEASE)
        assert claim is not None
        while not (await database.settle_by_removal(claim, proofs([USER], clock)[0], FOR_GOOD)).users:
            assert await database.receipt_of_request(USER) is None
        for table in ("held_users", "archive", "unfinished", "claims WHERE kind <> 'second_sweep'"):
            assert await fetch_value(database_url, f"SELECT count(*) FROM usersync.{table}") == 0
    assert await acts(database_url) == [("begun", "requested"), ("erased", "requested")]
    assert [row["kind"] for row in await fetch(database_url, "SELECT kind FROM usersync.claims")] == ["second_sweep"]


async def test_rows_that_a_run_finds_of_him_later_are_not_archived(whole: str) -> None:
    clock = FakeClock()
    async with opened(whole, clock=clock) as database:
        await leave(database, clock)
        await seed(whole, "moods", [USER], rows=3)
        async with running(database) as run:
            await run.record_listed([])
            await run.observe()
            removal = await run.remove_users(proofs([USER, OTHER], clock), TERMS)
        assert removal == Removal(users=2, rows=10)
    archived = await fetch(whole, "SELECT DISTINCT user_id FROM usersync.archive")
    assert [row["user_id"] for row in archived] == [OTHER]
    assert sorted((await acts(whole))[1:]) == [("archived", "orphaned"), ("erased", "orphaned")]


async def test_rows_that_an_event_finds_of_him_later_are_not_archived(whole: str) -> None:
    clock = FakeClock()
    async with opened(whole, clock=clock) as database:
        await leave(database, clock)
        await seed(whole, "moods", [USER], rows=3)
        await database.record_claim(delivery("m1", "user.deleted"), USER, ClaimKind.DELETION)
        (claim,) = await database.take_claims(10, LEASE)
        assert (await database.settle_by_removal(claim, proofs([USER], clock)[0], Deletion())).rows == 3
    assert await fetch_value(whole, "SELECT count(*) FROM usersync.archive") == 0


async def test_an_event_that_finds_nothing_of_him_ends_without_a_receipt_or_another_sweep(whole: str) -> None:
    clock = FakeClock()
    async with opened(whole, clock=clock) as database:
        await leave(database, clock)
        await execute(whole, "DELETE FROM usersync.claims")
        await database.record_claim(delivery("m1", "user.deleted"), USER, ClaimKind.DELETION)
        (claim,) = await database.take_claims(10, LEASE)
        assert await database.settle_by_removal(claim, proofs([USER], clock)[0], Deletion()) == Removal(users=1)
    assert await acts(whole) == [("erased", "requested")]
    assert await fetch_value(whole, "SELECT count(*) FROM usersync.claims") == 0


async def test_asked_at_once_in_two_processes_it_is_one_request(whole: str) -> None:
    clock = FakeClock()
    async with opened(whole, clock=clock) as one, opened(whole, clock=clock) as two:
        claims = await asyncio.gather(*(each.request_removal(USER, LEASE) for each in (one, two, one, two)))
        assert len({claim.id for claim in claims if claim}) == 1
        proof = proofs([USER], clock)[0]
        removals = await asyncio.gather(
            *(each.settle_by_removal(claims[0], proof, FOR_GOOD) for each in (one, two) if claims[0])
        )
    assert sorted(removal.users for removal in removals) == [0, 1]
    assert await acts(whole) == [("erased", "requested")]


async def test_who_was_put_back_and_removed_again_since_can_ask_again(whole: str) -> None:
    clock = FakeClock()
    async with opened(whole, clock=clock) as database:
        await leave(database, clock)
        await execute(
            whole,
            "INSERT INTO usersync.lifted_tombstones (tombstone_id, lifted_by) "
            "SELECT tombstone_id, 'a person' FROM usersync.buried",
        )
        await seed_users(whole, [USER])
        assert await database.receipt_of_request(USER) is None
        await database.record_claim(delivery("m1", "user.deleted"), USER, ClaimKind.DELETION)
        (claim,) = await database.take_claims(10, LEASE)
        await database.settle_by_removal(claim, proofs([USER], clock)[0], Deletion())
        assert await database.receipt_of_request(USER) is None
        await leave(database, clock)
        assert await database.receipt_of_request(USER) is not None
