"""Users erased at their own request: nothing that names them stays anywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core.claims import ClaimKind
from controller.core.proofs import MAX_AGE
from controller.core.removals import RemovalTerms
from controller.core.targets import Deletion, Limits
from controller.errors import RequestRefused, TargetBusy
from tests.support.databases import (
    TABLES,
    execute,
    fetch,
    fetch_value,
    rows_of,
    seed,
    seed_users,
    user_id,
    user_ids,
)
from tests.support.fakes.clock import FakeClock
from tests.support.stores import OTHER_INSTANCE, delivery, erase, ids, opened, proofs, running
from tests.support.traces import leave_traces, tables_that_name

(USER,) = ids([user_id(7)])
(OTHER,) = ids([user_id(8)])
WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
NOTHING = dict.fromkeys(TABLES, 0)


@pytest.fixture
async def whole(database_url: str) -> str:
    """The four tables with rows of two users."""
    await seed_users(database_url, [USER, OTHER])
    return database_url


NAMING = [
    "archive", "claims", "drifted", "held_users", "links", "listed", "listed_values", "owed_values", "places",
    "suspects", "versions",
]  # fmt: skip


async def test_nothing_of_ours_names_an_erased_user_and_everything_still_names_others(whole: str) -> None:
    async with opened(whole) as database:
        async with running(database, []) as run:
            await run.remove_users(proofs([USER, OTHER]), RemovalTerms.of(Deletion(), None))
        await seed_users(whole, [USER])
        await leave_traces(whole, USER)
        await leave_traces(whole, OTHER)
        assert await tables_that_name(whole, USER) == NAMING
        erased = await erase(database, proofs([USER])[0])
    assert (dict(erased.rows), erased.archived) == (WHOLE, 7)
    assert await rows_of(whole, USER) == NOTHING
    assert await tables_that_name(whole, USER) == ["claims"], "his second sweep, and nothing else"
    assert await tables_that_name(whole, OTHER) == NAMING
    await execute(whole, "UPDATE usersync.claims SET due_at = now() WHERE kind = 'second_sweep'")
    async with opened(whole) as database:
        for claim in await database.take_claims(9, timedelta(seconds=60)):
            if (claim.user_id, claim.kind) == (USER, ClaimKind.SECOND_SWEEP):
                assert await database.is_swept(claim)
    assert await tables_that_name(whole, USER) == []


async def test_tombstone_and_receipt_stay_and_say_on_whose_request(whole: str) -> None:
    async with opened(whole) as database:
        await erase(database, proofs([USER])[0])
        assert (await database.create_profile(delivery("late"), USER)).value == "tombstoned"
    (receipt,) = await fetch(whole, "SELECT * FROM usersync.receipts")
    assert (receipt["act"], receipt["reason"], receipt["requested_by"]) == ("erased", "requested", "somebody")
    assert not receipt["counted"]
    assert json.loads(receipt["rows"]) == WHOLE
    assert await fetch_value(whole, "SELECT count(*) FROM usersync.receipt_chain") == 1


async def test_a_user_of_whom_only_the_archive_is_left_is_erased_from_it(whole: str) -> None:
    async with opened(whole) as database:
        async with running(database, [OTHER]) as run:
            await run.remove_users(proofs([USER]), RemovalTerms.of(Deletion(), None))
        erased = await erase(database, proofs([USER])[0])
    assert (dict(erased.rows), erased.archived) == ({}, 7)
    assert await tables_that_name(whole, USER) == ["claims"]
    assert await fetch_value(whole, "SELECT count(*) FROM usersync.tombstones") == 1


async def test_the_limits_do_not_keep_a_persons_own_request_back_nor_are_they_used_up(whole: str) -> None:
    users = user_ids(20, start=100)
    await seed_users(whole, users)
    none_may_go = replace(Deletion(), limits=Limits(users=0, percent=0))
    async with opened(whole) as database:
        await erase(database, proofs([USER])[0])
        await database.record_claim(delivery("msg_1", "user.deleted"), OTHER, ClaimKind.DELETION)
        (claim,) = await database.take_claims(1, timedelta(seconds=60))
        assert (await database.settle_by_removal(claim, proofs([OTHER])[0], none_may_go)).limit_reached
    assert await rows_of(whole, USER) == NOTHING


async def test_a_proof_that_grew_old_erases_nothing(whole: str) -> None:
    clock = FakeClock()
    async with opened(whole, clock=clock) as database:
        (proof,) = proofs([USER], clock)
        clock.advance(MAX_AGE + timedelta(seconds=1))
        with pytest.raises(RequestRefused, match="too old"):
            await erase(database, proof)
    assert await rows_of(whole, USER) == WHOLE


async def test_a_proof_of_another_instance_erases_nothing(whole: str) -> None:
    async with opened(whole) as database:
        with pytest.raises(RequestRefused, match="Nothing was erased"):
            await erase(database, proofs([USER], instance=OTHER_INSTANCE)[0])
    assert await rows_of(whole, USER) == WHOLE
    assert await fetch_value(whole, "SELECT count(*) FROM usersync.tombstones") == 0


async def test_a_user_whom_the_database_keeps_stays_whole_and_the_constraint_is_named(whole: str) -> None:
    await execute(
        whole,
        "CREATE TABLE invoices (task uuid CONSTRAINT invoiced REFERENCES tasks)",
        f"INSERT INTO invoices SELECT id FROM tasks WHERE user_id = '{USER}' LIMIT 1",
    )
    async with opened(whole) as database:
        await leave_traces(whole, USER)
        with pytest.raises(RequestRefused, match="invoiced"):
            await erase(database, proofs([USER])[0])
    assert await rows_of(whole, USER) == WHOLE
    assert "claims" in await tables_that_name(whole, USER)


async def test_nobody_is_erased_while_a_run_is_under_way(whole: str) -> None:
    async with opened(whole) as database:
        async with running(database, [OTHER]):
            with pytest.raises(TargetBusy):
                await erase(database, proofs([USER])[0])
        await erase(database, proofs([USER])[0])


async def test_what_a_live_token_writes_after_the_erasure_is_erased_by_the_second_sweep(whole: str) -> None:
    async with opened(whole) as database:
        await erase(database, proofs([USER])[0])
        await seed(whole, "moods", [USER], rows=2)
        await execute(whole, "UPDATE usersync.claims SET due_at = now()")
        (claim,) = await database.take_claims(9, timedelta(seconds=60))
        assert claim.kind is ClaimKind.SECOND_SWEEP
        assert (await database.settle_by_removal(claim, proofs([USER])[0], Deletion())).rows == 2
    assert await rows_of(whole, USER) == NOTHING
    assert await tables_that_name(whole, USER) == []
