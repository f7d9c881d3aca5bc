"""Our `Database` opened for a test: schema migrated, target pinned, runs begun with the listing in place."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from controller.core.events import Delivery
from controller.core.ports import RunLabel
from controller.core.proofs import Proof
from controller.core.removals import RemovalTerms
from controller.core.targets import Action, Deletion, DeletionPolicy, Limits, Policy, Target
from controller.core.users import Environment, Instance, UserId, parse_user_id
from controller.postgres import Bounds, Database, LockTimes
from tests.support.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from controller.core.ports import Clock
    from controller.core.requests import Erased
    from controller.postgres.runs import PostgresRun

INSTANCE = Instance("ins_test", Environment.DEVELOPMENT)
DELETION = Deletion(limits=Limits(1_000_000, 100))
"""Of events, for tests that are not about limits."""
TERMS = RemovalTerms.of(DELETION, permitted=None)
"""Of removals, for tests that are not about limits."""
ERASE = RemovalTerms.of(Deletion(DeletionPolicy.ERASE), permitted=None)
RETAIN = RemovalTerms.of(Deletion(DeletionPolicy.RETAIN), permitted=None)
OTHER_INSTANCE = Instance("ins_other", Environment.DEVELOPMENT)


@asynccontextmanager
async def opened(
    url: str,
    *,
    target: Target | None = None,
    clock: Clock | None = None,
    times: LockTimes | None = None,
    bounds: Bounds | None = None,
    pin: bool = True,
) -> AsyncIterator[Database]:
    """A database that has been inspected, and pinned to INSTANCE."""
    opening = Database.open(url, target or Target(), clock or FakeClock(), times=times, bounds=bounds)
    async with opening as database:
        await database.inspect()
        if pin:
            await database.pin_instance(INSTANCE)
        yield database


async def erase(database: Database, proof: Proof) -> Erased:
    """Erase the proof's user at somebody's request; of very many rows what goes on one proof."""
    async with database.erasing("somebody") as erasure:
        return await erasure.remove(proof)


def label(holder: str = "test", resource: str = "app/production") -> RunLabel:
    """What the audit is told."""
    return RunLabel(resource, Policy(frozenset({Action.CLEANUP})), INSTANCE, holder)


@asynccontextmanager
async def running(
    database: Database, listed: Iterable[str] = (), *, holder: str = "test"
) -> AsyncIterator[PostgresRun]:
    """A run that has recorded and observed these users of Clerk."""
    async with database.begin_run(label(holder)) as run:
        await run.record_listed(ids(listed))
        await run.observe()
        yield run


def ids(values: Iterable[str]) -> list[UserId]:
    """Ids of Clerk's form; anything else is a fault of the test."""
    found = [parse_user_id(value) for value in values]
    assert None not in found
    return [user_id for user_id in found if user_id is not None]


def proofs(user_ids: Sequence[str], clock: Clock | None = None, *, instance: Instance = INSTANCE) -> list[Proof]:
    """A fresh proof for each user."""
    asked_at = (clock or FakeClock()).elapsed()
    return [Proof(user_id, instance.id, asked_at) for user_id in ids(user_ids)]


def delivery(message_id: str, event_type: str = "user.created") -> Delivery:
    """One message."""
    return Delivery(message_id, event_type)
