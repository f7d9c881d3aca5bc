"""Users with too many rows for one transaction, by whole runs against an instance that changes its mind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.outcomes import Changes
from controller.core.ports import Unwatched
from controller.core.removals import RemovalTerms
from controller.core.sweeping import Sweeper
from controller.core.targets import Action, Deletion, DeletionPolicy, Limits, Spec
from tests.support.databases import create_tables, execute, rows_of
from tests.support.fakes.directory import FakeDirectory
from tests.support.purges import (
    BATCHES,
    LARGE,
    LIVING,
    NOTHING,
    ROWS,
    SMALL,
    WITHOUT_PROFILE,
    archived,
    archived_and_there,
    begin,
    database_of,
    go_on,
    receipts,
    seed_large,
)
from tests.support.stores import INSTANCE, running

if TYPE_CHECKING:
    from controller.core.outcomes import Outcome
    from controller.core.users import Instance
    from controller.postgres import Database

DELETION = Deletion(grace_period=timedelta(), limits=Limits(10, 100))
TERMS = RemovalTerms.of(DELETION, permitted=10)
GONE = Changes(users_removed=1, rows_removed=29)


@dataclass
class Clerk(FakeDirectory):
    """Knows LIVING and SMALL; LARGE signs up again before the n-th look-up of him, if told so."""

    of: Instance = INSTANCE
    returns_at: int | None = None
    looked_up: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.sign_up(LIVING, SMALL)
        self.before = self._count

    def _count(self, method: str) -> None:
        if method == "look_up":
            self.looked_up += 1
            if self.looked_up == self.returns_at:
                self.sign_up(LARGE)


@pytest.fixture
async def url(empty_database_url: str) -> str:
    await create_tables(empty_database_url)
    await seed_large(empty_database_url)
    return empty_database_url


async def sweep(
    database: Database,
    clerk: FakeDirectory,
    *actions: Action,
    deletion: Deletion = DELETION,
    dry_run: bool = False,
) -> Outcome:
    """One run; FullSync unless told otherwise."""
    spec = Spec("app/production", actions=actions or (Action.FULL_SYNC,), deletion=deletion, dry_run=dry_run)
    return await Sweeper(clerk, database, database.clock, Unwatched()).sweep(spec, holder="test")


async def test_a_run_removes_him_whole_asking_clerk_before_each_slice(url: str) -> None:
    clerk = Clerk()
    async with database_of(url) as database:
        outcome = await sweep(database, clerk)
    assert (outcome.changes, outcome.remaining.total) == (GONE, 0)
    # before the first transaction, before each batch, before the last
    assert clerk.looked_up == 1 + len(BATCHES) + 1
    assert await archived(url) == ROWS


@pytest.mark.parametrize("returns_at", [2, 4, 9])
async def test_once_clerk_says_that_he_lives_the_run_stops_and_warns(url: str, returns_at: int) -> None:
    clerk = Clerk(returns_at=returns_at)
    async with database_of(url) as database:
        outcome = await sweep(database, clerk)
    removed = 1 + sum(BATCHES[: returns_at - 2])
    assert outcome.changes == Changes(rows_removed=removed, users_left=1)
    assert ["usersync restore" in warning for warning in outcome.warnings][-1:] == [True]
    assert sum((await rows_of(url, LARGE)).values()) == 29 - removed
    assert await archived_and_there(url) == ROWS


async def test_each_further_run_warns_of_him_as_long_as_he_lives(url: str) -> None:
    clerk = Clerk(returns_at=4)
    async with database_of(url) as database:
        await sweep(database, clerk)
        outcome = await sweep(database, clerk)
    assert outcome.changes == Changes(users_left=1)
    assert "Clerk answers that they live" in outcome.warnings[-1]


@pytest.mark.parametrize("after", [0, 3, len(BATCHES)])
async def test_the_next_run_ends_what_a_killed_one_had_begun_and_counts_it_once(url: str, after: int) -> None:
    one = replace(DELETION, limits=Limits(1, 100))
    async with database_of(url) as database:
        async with running(database, [LIVING, SMALL]) as run:
            await begin(run, TERMS)
            await go_on(run, TERMS, times=after)
        outcome = await sweep(database, Clerk(), deletion=one)
    left = 28 - sum(BATCHES[:after])
    assert (outcome.held_back, outcome.changes) == (None, Changes(users_removed=1, rows_removed=left))
    assert await archived(url) == ROWS
    assert [act for act, _, _ in await receipts(url)] == ["begun", "archived"]


async def test_a_run_that_holds_back_a_set_ends_what_was_begun_all_the_same(url: str) -> None:
    clerk = Clerk()
    async with database_of(url) as database:
        async with running(database, [LIVING, SMALL]) as run:
            await begin(run, TERMS)
        clerk.delete(SMALL)
        outcome = await sweep(database, clerk, deletion=replace(DELETION, limits=Limits(1, 100)))
    assert outcome.held_back is not None
    assert outcome.changes == Changes(users_removed=1, rows_removed=28)
    assert (await rows_of(url, SMALL))["tasks"] == 2


@pytest.mark.parametrize("how", ["dry-run", "other-action", "empty-listing", "retain"])
async def test_what_was_begun_stays_where_the_run_may_not_delete(url: str, how: str) -> None:
    clerk = Clerk()
    deletion, actions = DELETION, (Action.FULL_SYNC,)
    async with database_of(url) as database:
        async with running(database, [LIVING, SMALL]) as run:
            await begin(run, TERMS)
        match how:
            case "empty-listing":
                clerk.delete(LIVING, SMALL)
            case "retain":
                deletion = replace(DELETION, policy=DeletionPolicy.RETAIN)
            case "other-action":
                actions = (Action.FIX_PROGRESS,)
        await sweep(database, clerk, *actions, deletion=deletion, dry_run=how == "dry-run")
    assert await rows_of(url, LARGE) == WITHOUT_PROFILE


async def test_who_is_held_in_the_middle_is_left_and_counted_as_left(url: str) -> None:
    await execute(
        url,
        "CREATE TABLE invoices (mood uuid REFERENCES moods)",
        f"INSERT INTO invoices SELECT id FROM moods WHERE user_id = '{LARGE}'",
    )
    async with database_of(url) as database:
        outcome = await sweep(database, Clerk())
    assert outcome.changes == Changes(rows_removed=20, users_left=1)
    assert await rows_of(url, LARGE) == {**NOTHING, "moods": 9}
