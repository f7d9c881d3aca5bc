"""Users with too many rows for one transaction, by the claims of the webhook service."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.absorbing import PRESENT_DELAYS, settle
from controller.core.claims import ClaimKind
from controller.core.outcomes import Settled
from controller.core.proofs import Proof
from controller.core.removals import RemovalTerms
from controller.core.requests import RestoreTerms, restore
from controller.core.targets import Deletion, DeletionPolicy, Limits, Spec
from controller.errors import ClerkUnavailable, RequestRefused
from tests.support.databases import create_tables, execute, fetch, fetch_value, rows_of, seed
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.directory import FakeDirectory
from tests.support.purges import (
    BATCHES,
    LARGE,
    LIVING,
    NOTHING,
    ROWS,
    WITHOUT_PROFILE,
    archived,
    archived_and_there,
    begin,
    database_of,
    receipts,
    seed_large,
)
from tests.support.stores import INSTANCE, delivery, running

if TYPE_CHECKING:
    from controller.core.claims import Claim
    from controller.postgres import Database

LEASE = timedelta(seconds=30)
DELETION = Deletion(limits=Limits(10, 100))
SPEC = Spec("app/x", deletion=DELETION)
FIRST = BATCHES[0]


@dataclass
class Replica:
    """One webhook service: takes what is due and settles it."""

    database: Database
    clerk: FakeDirectory = field(default_factory=lambda: FakeDirectory(of=INSTANCE))
    deletion: Deletion = DELETION

    async def take(self) -> Claim:
        (claim,) = await self.database.take_claims(1, LEASE)
        return claim

    async def take_due(self, url: str) -> Claim:
        await make_due(url)
        return await self.take()

    async def settle(self) -> Settled:
        return await settle(
            await self.take(), Spec("app/x", deletion=self.deletion), self.clerk, self.database, self.database.clock
        )

    async def settle_all(self) -> list[Settled]:
        """Settle until nothing is due."""
        settled: list[Settled] = []
        while await self.database.next_claim_due() == timedelta():
            settled.append(await self.settle())
        return settled


@pytest.fixture
async def url(empty_database_url: str) -> str:
    await create_tables(empty_database_url, index=True)
    await seed_large(empty_database_url)
    return empty_database_url


async def claim(database: Database, kind: ClaimKind = ClaimKind.DELETION, message_id: str = "m1") -> None:
    await database.record_claim(delivery(message_id, "user.deleted"), LARGE, kind)


async def claims(url: str) -> list[tuple[str, int, int]]:
    rows = await fetch(url, "SELECT kind, attempts, present_answers FROM usersync.claims ORDER BY id")
    return [tuple(row) for row in rows]


async def make_due(url: str) -> None:
    await execute(url, "UPDATE usersync.claims SET due_at = clock_timestamp()")


@pytest.mark.parametrize("kind", [ClaimKind.DELETION, ClaimKind.CATCH_UP])
async def test_slice_after_slice_the_claim_stays_due_until_he_is_gone(url: str, kind: ClaimKind) -> None:
    async with database_of(url) as database:
        await claim(database, kind)
        replica = Replica(database)
        assert await replica.settle_all() == [*[Settled.CONTINUED] * 7, Settled.REMOVED]
    assert await rows_of(url, LARGE) == NOTHING
    assert await archived(url) == ROWS
    assert await receipts(url) == [("begun", True, {"user_progress": 1}), ("archived", False, ROWS)]


async def test_a_slice_counts_as_no_attempt(url: str) -> None:
    async with database_of(url) as database:
        await claim(database)
        await Replica(database).settle()
        assert await claims(url) == [("deletion", 0, 0)]
        assert await database.next_claim_due() == timedelta()


async def test_each_slice_has_a_proof_of_its_own(url: str) -> None:
    async with database_of(url) as database:
        await claim(database)
        replica = Replica(database)
        settled = await replica.settle_all()
    assert replica.clerk.calls["look_up"] == len(settled) == 8


async def test_any_replica_goes_on_with_what_a_killed_one_left(url: str) -> None:
    """The claim of the killed one comes again after its lease."""
    async with database_of(url) as killed:
        await claim(killed)
        await Replica(killed).settle()
        await Replica(killed).take()
    async with database_of(url) as database:
        assert await Replica(database).settle_all() == []
        await make_due(url)
        assert (await Replica(database).settle_all())[-1] is Settled.REMOVED
    assert await archived(url) == ROWS


async def test_two_replicas_that_have_the_same_claim_remove_each_row_once(url: str) -> None:
    async with database_of(url) as one, database_of(url) as other:
        await claim(one)
        replicas = [Replica(one), Replica(other)]
        while await rows_of(url, LARGE) != NOTHING:
            await make_due(url)
            taken = await replicas[0].take()
            await asyncio.gather(*(settle(taken, SPEC, r.clerk, r.database, r.database.clock) for r in replicas))
        await make_due(url)
        await Replica(one).settle_all()
    assert await archived(url) == ROWS
    assert [act for act, _, _ in await receipts(url) if act == "begun"] == ["begun"]


async def test_while_clerk_is_away_nothing_more_is_removed(url: str) -> None:
    async with database_of(url) as database:
        await claim(database)
        replica = Replica(database)
        await replica.settle()
        replica.clerk.errors["look_up"] = ClerkUnavailable("away")
        with pytest.raises(ClerkUnavailable):
            await replica.settle()
    assert await rows_of(url, LARGE) == {**WITHOUT_PROFILE, "tasks": ROWS["tasks"] - FIRST}


async def test_once_clerk_says_that_he_lives_nothing_more_is_removed_and_it_is_told(url: str) -> None:
    async with database_of(url) as database:
        await claim(database)
        replica = Replica(database)
        await replica.settle()
        replica.clerk.sign_up(LARGE)
        for _ in PRESENT_DELAYS:
            assert await replica.settle() is Settled.POSTPONED
            await make_due(url)
        assert await replica.settle() is Settled.STOPPED
    assert await rows_of(url, LARGE) == {**WITHOUT_PROFILE, "tasks": ROWS["tasks"] - FIRST}
    assert await archived_and_there(url) == ROWS
    assert await fetch_value(url, "SELECT user_id FROM usersync.unfinished") == LARGE


@pytest.mark.parametrize("grace_period", [None, timedelta(days=1)], ids=["lives", "forced"])
async def test_restoring_him_ends_the_removal_and_he_has_all_his_rows(url: str, grace_period: timedelta | None) -> None:
    async with database_of(url) as database:
        await claim(database)
        replica = Replica(database)
        await replica.settle()
        terms = RestoreTerms(requested_by="a person")
        with pytest.raises(RequestRefused, match="does not know the user"):
            await restore(LARGE, terms, replica.clerk, database, grace_period=None)
        taken = await replica.take_due(url)
        if grace_period is None:
            replica.clerk.sign_up(LARGE)
        restored = await restore(LARGE, terms, replica.clerk, database, grace_period=grace_period)
        proof = Proof(LARGE, INSTANCE.id, database.clock.elapsed())
        assert (await database.settle_by_removal(taken, proof, DELETION)).users == 0
        assert not await database.is_unfinished(LARGE)
    assert restored.rows == {"user_progress": 1, "tasks": FIRST}
    assert await rows_of(url, LARGE) == ROWS
    assert await claims(url) == ([] if grace_period else [("deletion", 0, 0)]), "which Clerk's answer ends"


async def test_should_clerk_answer_as_before_again_the_removal_goes_on(url: str) -> None:
    async with database_of(url) as database:
        await claim(database)
        replica = Replica(database)
        await replica.settle()
        replica.clerk.sign_up(LARGE)
        await replica.settle()
        replica.clerk.delete(LARGE)
        await make_due(url)
        assert (await replica.settle_all())[-1] is Settled.REMOVED
    assert await archived(url) == ROWS


async def test_a_living_user_who_was_never_begun_with_is_discarded_as_before(url: str) -> None:
    async with database_of(url) as database:
        await claim(database)
        replica = Replica(database)
        replica.clerk.sign_up(LARGE)
        for _ in PRESENT_DELAYS:
            await replica.settle()
            await make_due(url)
        assert await replica.settle() is Settled.DISCARDED
    assert await rows_of(url, LARGE) == ROWS


async def test_a_claim_beyond_the_limits_is_held_and_his_rows_stay(url: str) -> None:
    async with database_of(url) as database:
        await claim(database)
        replica = Replica(database, deletion=replace(DELETION, limits=Limits(0, 100)))
        assert await replica.settle() is Settled.HELD_BACK
    assert await rows_of(url, LARGE) == ROWS
    assert await fetch_value(url, "SELECT count(*) FROM usersync.tombstones") == 0


async def test_what_a_foreign_key_holds_is_tried_again_later_and_later(url: str) -> None:
    await execute(
        url,
        "CREATE TABLE invoices (task uuid REFERENCES tasks)",
        f"INSERT INTO invoices SELECT id FROM tasks WHERE user_id = '{LARGE}'",
    )
    async with database_of(url) as database:
        await claim(database)
        replica = Replica(database)
        assert await replica.settle() is Settled.POSTPONED
        await make_due(url)
        assert await replica.settle() is Settled.POSTPONED
        due = await database.next_claim_due()
        assert due is not None
        assert timedelta(seconds=9) < due <= timedelta(seconds=10)
    assert await claims(url) == [("deletion", 2, 0)]
    assert await rows_of(url, LARGE) == WITHOUT_PROFILE


async def test_a_second_sweep_follows_the_last_slice(url: str) -> None:
    async with database_of(url) as database:
        await claim(database)
        await Replica(database).settle_all()
        due = await database.next_claim_due()
        assert due is not None
        assert timedelta(seconds=80) < due <= timedelta(seconds=90)
    assert await claims(url) == [("second_sweep", 0, 0)]


async def test_a_second_sweep_that_finds_very_many_rows_ends_only_with_them(url: str) -> None:
    async with database_of(url) as database:
        await claim(database)
        replica = Replica(database)
        await replica.settle_all()
        await seed(url, "tasks", [LARGE], rows=25)
        await make_due(url)
        assert await replica.settle_all() == [*[Settled.CONTINUED] * 5, Settled.SWEPT]
        assert await database.next_claim_due() is None
    assert await fetch_value(url, "SELECT count(*) FROM usersync.unfinished") == 0
    assert await archived(url) == {**ROWS, "tasks": 37}


async def test_what_a_run_had_begun_the_service_ends(url: str) -> None:
    async with database_of(url) as database:
        async with running(database, [LIVING]) as run:
            await begin(run, RemovalTerms.of(DELETION, permitted=10))
        await make_due(url)
        replica = Replica(database)
        assert (await replica.settle_all())[-1] is Settled.REMOVED
    assert await archived(url) == ROWS


async def test_under_retain_his_rows_stay_however_many(url: str) -> None:
    async with database_of(url) as database:
        await claim(database)
        replica = Replica(database, deletion=replace(DELETION, policy=DeletionPolicy.RETAIN))
        assert await replica.settle() is Settled.REMOVED
    assert await rows_of(url, LARGE) == ROWS


async def test_a_slice_that_a_slow_database_stretches_ends_after_the_batch_under_way(url: str) -> None:
    @dataclass
    class Slow(FakeClock):
        """Five seconds pass between any two looks."""

        def elapsed(self) -> float:
            self.advance(timedelta(seconds=5))
            return super().elapsed()

    async with database_of(url, clock=Slow()) as database:
        database.bounds = replace(database.bounds, slice=timedelta(seconds=8))
        await claim(database)
        assert await Replica(database).settle() is Settled.CONTINUED
    assert await rows_of(url, LARGE) != NOTHING
