"""Users with very many rows erased at their request: in batches, by whoever goes on, and never half for good."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.claims import ClaimKind
from controller.core.leaving import OWN_REQUEST
from controller.core.outcomes import Removal
from controller.core.proofs import MAX_AGE
from controller.core.removals import RemovalTerms
from controller.core.targets import Deletion, DeletionPolicy, Limits
from controller.errors import RequestRefused
from tests.support.databases import create_tables, execute, fetch_value, rows_of, seed
from tests.support.fakes.clock import FakeClock
from tests.support.purges import (
    BATCHES,
    BOUNDS,
    LARGE,
    LIVING,
    NOTHING,
    ROWS,
    SMALL,
    WITHOUT_PROFILE,
    archived,
    begin,
    database_of,
    go_on,
    receipts,
    seed_large,
)
from tests.support.stores import erase, proofs, running
from tests.support.traces import leave_traces, tables_that_name

if TYPE_CHECKING:
    from controller.core.requests import Erased

KEPT = Deletion(policy=DeletionPolicy.RETAIN, limits=Limits(0, 0))
"""What a resource may say, and a person's own request has nothing to do with."""
ARCHIVE = RemovalTerms.of(Deletion(limits=Limits(10, 100)), permitted=10)
REQUESTED_BY = "SELECT array_agg(requested_by ORDER BY id) FROM usersync.receipts"
ERASED = ("erased", False, ROWS)
BEGUN = ("begun", False, {"user_progress": 1})


@pytest.fixture
async def url(empty_database_url: str) -> str:
    """The tables with LARGE and others in them."""
    await create_tables(empty_database_url, index=True)
    await seed_large(empty_database_url)
    return empty_database_url


async def test_he_goes_in_as_many_parts_as_it_needs_proofs_and_the_last_one_counts_all(url: str) -> None:
    parts: list[Erased] = []
    async with database_of(url) as database, database.erasing("somebody") as erasure:
        while not parts or not parts[-1].finished:
            parts.append(await erasure.remove(proofs([LARGE])[0]))
    assert [part.finished for part in parts] == [*[False] * len(BATCHES), True]
    assert (dict(parts[-1].rows), parts[-1].archived) == (ROWS, 0)
    assert await rows_of(url, LARGE) == NOTHING
    assert await receipts(url) == [BEGUN, ERASED]
    assert await fetch_value(url, REQUESTED_BY) == ["somebody", "somebody"]


async def test_a_slice_is_one_part(url: str) -> None:
    async with database_of(url, bounds=replace(BOUNDS, slice=timedelta(seconds=8))) as database:
        assert (await erase(database, proofs([LARGE])[0])).finished
    assert await rows_of(url, LARGE) == NOTHING


async def test_nothing_of_ours_names_him_but_his_second_sweep(url: str) -> None:
    bounds = replace(BOUNDS, slice=timedelta(seconds=8))
    async with database_of(url, bounds=bounds) as database:
        await leave_traces(url, LARGE)
        await erase(database, proofs([LARGE])[0])
    assert await tables_that_name(url, LARGE) == ["claims"]
    assert await fetch_value(url, "SELECT array_agg(kind) FROM usersync.claims") == ["second_sweep"]


async def test_what_the_archive_had_of_him_goes_in_batches_too_and_is_counted(url: str) -> None:
    async with database_of(url) as database:
        async with running(database, [LIVING, SMALL]) as run:
            await begin(run, ARCHIVE)
            await go_on(run, ARCHIVE)
        for table, rows in ROWS.items():
            await seed(url, table, [LARGE], rows=rows)
        async with database.erasing("somebody") as erasure:
            while not (erased := await erasure.remove(proofs([LARGE])[0])).finished:
                pass
    assert (dict(erased.rows), erased.archived) == (ROWS, sum(ROWS.values()))
    assert sum((await archived(url)).values()) == 0


async def test_a_removal_that_a_run_has_begun_is_gone_on_with_and_leaves_nothing_in_the_archive(url: str) -> None:
    bounds = replace(BOUNDS, slice=timedelta(seconds=8))
    async with database_of(url) as killed, running(killed, [LIVING, SMALL]) as run:
        await begin(run, ARCHIVE)
        await go_on(run, ARCHIVE, times=3)
    async with database_of(url, bounds=bounds) as database:
        erased = await erase(database, proofs([LARGE])[0])
    assert (dict(erased.rows), erased.finished) == (ROWS, True)
    assert sum((await archived(url)).values()) == 0
    assert (await receipts(url))[-1] == ERASED


async def test_should_we_die_the_webhook_service_goes_on_whatever_the_policy_says(url: str) -> None:
    async with database_of(url) as killed:
        await erase(killed, proofs([LARGE])[0])
    await execute(url, "UPDATE usersync.claims SET due_at = now()")
    async with database_of(url, bounds=replace(BOUNDS, slice=timedelta(seconds=8))) as database:
        claims = await database.take_claims(9, timedelta(seconds=60))
        assert {claim.kind for claim in claims} == {ClaimKind.OWN_REQUEST, ClaimKind.DELETION}
        deletion = next(claim for claim in claims if claim.kind is ClaimKind.DELETION)
        assert (await database.settle_by_removal(deletion, proofs([LARGE])[0], KEPT)).users == 1
    assert await rows_of(url, LARGE) == NOTHING
    assert await receipts(url) == [BEGUN, ERASED]
    assert await fetch_value(url, REQUESTED_BY) == ["somebody", OWN_REQUEST]


async def test_should_we_die_clerk_refusing_our_key_does_not_lift_the_request(url: str) -> None:
    async with database_of(url) as database:
        await erase(database, proofs([LARGE])[0])
        await execute(url, "UPDATE usersync.claims SET due_at = now()")
        claims = await database.take_claims(9, timedelta(seconds=60))
        assert not any([await database.lift_request(claim) for claim in claims])


async def test_should_we_die_the_next_run_goes_on_and_archives_nothing(url: str) -> None:
    async with database_of(url) as database:
        await erase(database, proofs([LARGE])[0])
        async with running(database, [LIVING, SMALL]) as run:
            assert (await go_on(run, ARCHIVE))[-1] == Removal(users=1)
    assert await rows_of(url, LARGE) == NOTHING
    assert sum((await archived(url)).values()) == 0
    assert await receipts(url) == [BEGUN, ERASED]
    assert await fetch_value(url, REQUESTED_BY) == ["somebody", OWN_REQUEST]


async def test_a_row_that_is_kept_is_named_and_once_it_may_go_he_is_erased_from_there(url: str) -> None:
    await execute(
        url,
        "CREATE TABLE invoices (mood uuid CONSTRAINT invoiced REFERENCES moods)",
        f"INSERT INTO invoices SELECT id FROM moods WHERE user_id = '{LARGE}' LIMIT 1",
    )
    async with database_of(url, bounds=replace(BOUNDS, slice=timedelta(seconds=8))) as database:
        with pytest.raises(RequestRefused, match=r"erased in part.*invoiced"):
            await erase(database, proofs([LARGE])[0])
        assert (await rows_of(url, LARGE))["tasks"] == 0
        assert await receipts(url) == [BEGUN]
        await execute(url, "DROP TABLE invoices")
        assert (await erase(database, proofs([LARGE])[0])).rows == ROWS


@pytest.mark.parametrize("begun", [False, True], ids=["not-begun", "begun"])
async def test_an_old_proof_removes_nothing(url: str, *, begun: bool) -> None:
    clock = FakeClock()
    async with database_of(url, clock=clock) as database:
        if begun:
            await erase(database, proofs([LARGE], clock)[0])
        before = await rows_of(url, LARGE)
        (proof,) = proofs([LARGE], clock)
        clock.advance(MAX_AGE + timedelta(seconds=1))
        with pytest.raises(RequestRefused, match="too old"):
            await erase(database, proof)
    assert await rows_of(url, LARGE) == before
    assert before == ({**WITHOUT_PROFILE, "tasks": 7} if begun else ROWS)


@pytest.mark.parametrize("asked", range(2, 9))
async def test_wherever_a_proof_expires_nobody_is_called_erased_who_is_not(url: str, asked: int) -> None:
    class Leaping(FakeClock):
        """An hour later from one question on."""

        times = 0

        def elapsed(self) -> float:
            self.times += 1
            return super().elapsed() + (3600 if self.times > asked else 0)

    async with database_of(url) as database:
        await erase(database, proofs([LARGE])[0])
    bounds = replace(BOUNDS, slice=timedelta(hours=2))
    async with database_of(url, bounds=bounds, clock=Leaping()) as database:
        try:
            finished = (await erase(database, proofs([LARGE])[0])).finished
        except RequestRefused:
            finished = False
    assert not finished
    assert sum((await rows_of(url, LARGE)).values()) > 0
