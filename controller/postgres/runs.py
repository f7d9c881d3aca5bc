"""One run under the lock: from the audit row that opens it to the one that closes it.

Decides how the batches of a run are carried out; what is to be done comes from `core.sweeping`. Every
transaction here begins by holding the fence. Used by `database`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog

from controller.core.outcomes import Reduction, Removal, Updating
from controller.core.targets import DeletionPolicy
from controller.core.users import UserId
from controller.postgres import suspecting, updating
from controller.postgres.auditing import UNFINISHED, close_audit, failure_of, open_audit
from controller.postgres.clearing import Clearing
from controller.postgres.connections import LONG
from controller.postgres.creating import buried, insert_profiles, lock_users, only_missing, unsupported
from controller.postgres.expiring import purge
from controller.postgres.failures import RowsHeld
from controller.postgres.halving import Halving
from controller.postgres.locking import RunLock, acquire
from controller.postgres.observing import PAGE, Observation, drifted_page, observe, record_listed
from controller.postgres.purging import unfinished_page
from controller.postgres.queries import load
from controller.postgres.receipting import chain, closing, note_users
from controller.postgres.reducing import reduce_duplicates, why_left
from controller.postgres.reporting import outcome_json
from controller.postgres.shapes import describe
from controller.postgres.updating import Owed, Writing, describe_writing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from controller.core.approving import HeldSet, SetDigest
    from controller.core.drift import Drift
    from controller.core.outcomes import Closing, Outcome
    from controller.core.ports import Clock, RunLabel
    from controller.core.proofs import Proof
    from controller.core.removals import RemovalTerms
    from controller.core.suspects import Suspects, Terms
    from controller.core.targets import Approval, Target
    from controller.core.users import Profile
    from controller.postgres.connections import Connections, Transaction
    from controller.postgres.counting import Bounds
    from controller.postgres.halving import Held
    from controller.postgres.locking import LockTimes
    from controller.postgres.references import Reference
    from controller.postgres.shapes import Shapes

log = structlog.get_logger(__name__)

_SQL: Final = load("runs")


@dataclass(slots=True)
class PostgresRun:
    """A `core.ports.Run`.

    `writing`: of mapped columns, None where there are none. `misfitting`: values that did not fit, by column.
    """

    lock: RunLock
    label: RunLabel
    target: Target
    shapes: Shapes
    writing: Writing | None
    clock: Clock
    bounds: Bounds
    recorded: int = field(default=0, init=False)
    finished: bool = field(default=False, init=False)
    misfitting: Counter[str] = field(default_factory=Counter, init=False)
    halving: Halving = field(default_factory=Halving, init=False)
    clearing: Clearing = field(init=False)

    def __post_init__(self) -> None:
        """Share what the parts have in common."""
        self.clearing = Clearing(self.lock, self.label, self.shapes, self.clock, self.bounds, self.halving)

    @property
    def id(self) -> str:
        """The uuid of the audit row."""
        return str(self.lock.run_id)

    async def record_listed(self, user_ids: Sequence[UserId]) -> None:
        """Add a page of the listing to the desired set."""
        if not user_ids:
            return

        async def record(transaction: Transaction) -> None:
            await record_listed(transaction, self.lock.run_id, user_ids)

        await self.lock.transact(record)
        self.recorded += len(user_ids)

    async def record_values(self, profiles: Sequence[Profile]) -> None:
        """Add what is mapped of listed users."""
        if self.writing is None or not profiles:
            return
        columns = self.writing.columns
        owed = [Owed(each.user_id, each.updated_at, tuple(columns.fields(each, self.misfitting))) for each in profiles]
        await self.lock.transact(lambda transaction: updating.record_values(transaction, self.lock.run_id, owed))

    async def observe(self) -> Drift:
        """Compare the desired set with the tables."""
        retains = self.label.policy.deletion.policy is DeletionPolicy.RETAIN
        observation = Observation(self.lock.run_id, self.recorded, self.target, self.shapes, retains)

        async def compare(transaction: Transaction) -> Drift:
            found = await observe(transaction, observation)
            if self.writing is None:
                return found
            return replace(found, outdated=await updating.note_owed(transaction, self.lock.run_id, self.writing))

        async def note(transaction: Transaction) -> None:
            await note_users(transaction, self.target.schema, drift.users_with_rows)

        self.clearing.places_noted_at = None
        drift = await self.lock.transact(compare, limits=LONG, isolation="repeatable_read")
        await self.lock.transact(note)
        return drift

    async def weigh(self, terms: Terms, approval: Approval | None, header: str) -> tuple[Suspects, str | None]:
        """Note the orphaned as suspects, and set apart who is due and who is approved."""
        run_id, schema = self.lock.run_id, self.target.schema

        async def look(transaction: Transaction) -> tuple[Suspects, str | None]:
            await suspecting.weigh(transaction, run_id, schema, self.label.instance.id, terms)
            refusal = None
            if approval is not None:
                refusal = await suspecting.set_apart(transaction, run_id, schema, approval, header)
            return await suspecting.count(transaction, run_id, schema, terms), refusal

        return await self.lock.transact(look, limits=LONG)

    async def hold(self, digest: SetDigest) -> HeldSet:
        """Store the users who are due as a set that waits for a person."""
        run_id, schema = self.lock.run_id, self.target.schema
        return await self.lock.transact(
            lambda transaction: suspecting.hold(transaction, run_id, schema, digest), limits=LONG
        )

    async def approve(self, approval: Approval) -> None:
        """Record who permitted the set."""
        run_id, schema = self.lock.run_id, self.target.schema
        await self.lock.transact(lambda transaction: suspecting.approve(transaction, run_id, schema, approval))

    async def use_up(self, approval: Approval) -> None:
        """Record that the set was removed."""
        run_id, schema = self.lock.run_id, self.target.schema
        await self.lock.transact(lambda transaction: suspecting.use_up(transaction, run_id, schema, approval))

    async def missing(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the listed, not buried users without a profile row."""
        async for batch in self._drifted("missing"):
            yield batch

    async def outdated(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the listed users whose mapped columns differ."""
        async for batch in self._owed(updating.OUTDATED):
            yield batch

    async def behind(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the outdated, and those who are in step, but noted as of an earlier version."""
        async for batch in self._owed(updating.BEHIND):
            yield batch

    async def _owed(self, kinds: Sequence[str]) -> AsyncGenerator[list[UserId], None]:
        async def read(after: str, transaction: Transaction) -> list[UserId]:
            return await updating.owed_page(transaction, self.lock.run_id, kinds, after, PAGE)

        if self.writing is not None:
            async for page in self._pages(read):
                yield page

    async def orphaned(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the users with rows who are not in the desired set."""
        async for batch in self._drifted("orphaned"):
            yield batch

    async def duplicated(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the users with more than one profile row."""
        async for batch in self._drifted("duplicated"):
            yield batch

    async def due(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the users who are due and not approved."""
        async for batch in self._drifted(suspecting.DUE):
            yield batch

    async def approved(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the users who are due and approved."""
        async for batch in self._drifted(suspecting.APPROVED):
            yield batch

    async def unfinished(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the users whose removal in batches has begun and not ended."""

        async def read(after: str, transaction: Transaction) -> list[UserId]:
            return [UserId(user) for user in await unfinished_page(transaction, self.target.schema, after, PAGE)]

        async for page in self._pages(read):
            yield page

    async def _drifted(self, kind: str) -> AsyncGenerator[list[UserId], None]:
        async def read(after: str, transaction: Transaction) -> list[UserId]:
            return await drifted_page(transaction, self.lock.run_id, kind, after)

        async for page in self._pages(read):
            yield page

    async def _pages(
        self, read: Callable[[str, Transaction], Awaitable[list[UserId]]]
    ) -> AsyncGenerator[list[UserId], None]:
        """Yield page after page; `read` gives the one behind an id. Each is read under the fence.

        Whoever took over has emptied the sets, which is not the same as nobody.
        """
        after = ""
        while page := await self.lock.transact(partial(read, after)):
            yield page
            after = page[-1]

    async def create_profiles(self, user_ids: Sequence[UserId]) -> int:
        """Insert missing profile rows, for listed users without a tombstone only."""
        profile = self.shapes.profile
        if profile is None or not user_ids:
            return 0
        if self.writing is not None:
            return await self._create_with_values(self.writing, user_ids)

        async def create(transaction: Transaction) -> int:
            await lock_users(transaction, self.target.schema, user_ids)
            wanted = await only_missing(transaction, self.lock.run_id, user_ids)
            wanted -= await buried(transaction, self.target.schema, user_ids)
            return len(await insert_profiles(transaction, profile, [user for user in user_ids if user in wanted]))

        try:
            return await self.lock.transact(create)
        except RowsHeld as held:
            raise unsupported(profile.schema, profile.name, held) from held

    async def _create_with_values(self, writing: Writing, user_ids: Sequence[UserId]) -> int:
        created: set[str] = set()

        async def attempt(batch: Sequence[UserId], attempts: int) -> None:
            async def create(transaction: Transaction, writing: Writing = writing) -> set[str]:
                await lock_users(transaction, self.target.schema, batch)
                wanted = await only_missing(transaction, self.lock.run_id, batch)
                wanted -= await buried(transaction, self.target.schema, batch)
                owed = await updating.owed_among(transaction, self.lock.run_id, self.target.schema, batch)
                return await writing.insert(transaction, [each for each in owed if each.user_id in wanted])

            try:
                created.update(await self.lock.transact(create, attempts=attempts))
            except RowsHeld as held:
                if not writing.may_spare(held):
                    raise unsupported(writing.shape.schema, writing.shape.name, held) from held
                if len(batch) > 1:
                    raise
                created.update(await self.lock.transact(partial(create, writing=replace(writing, sparing=True))))

        def give_up(user_id: UserId, held: Held) -> None:
            log.warning("profile_not_created", reason=str(held))
            log.debug("profile_not_created", user_id=user_id)

        await self.halving.go(user_ids, attempt, give_up)
        return len(created)

    async def doubtful(self, user_ids: Sequence[UserId], since: datetime) -> Sequence[UserId]:
        """Return those who were updated since then, in the millisecond that is noted of their row."""
        owed = await self.lock.transact(
            lambda transaction: updating.owed_among(transaction, self.lock.run_id, self.target.schema, user_ids)
        )
        return [each.user_id for each in owed if not each.is_settled(since)]

    async def update_profiles(
        self, user_ids: Sequence[UserId], confirmed: Sequence[Profile], since: datetime
    ) -> Updating:
        """Bring the mapped columns of these users in step, never with values older than those noted."""
        writing = self.writing
        if writing is None:
            return Updating()
        fresh = {each.user_id: each for each in confirmed}
        total = Updating()

        async def attempt(batch: Sequence[UserId], attempts: int) -> None:
            nonlocal total

            async def update(transaction: Transaction, writing: Writing = writing) -> set[str]:
                await lock_users(transaction, self.target.schema, batch)
                gone = await buried(transaction, self.target.schema, batch)
                owed = await updating.owed_among(transaction, self.lock.run_id, self.target.schema, batch)
                due = [writing.due(each, fresh.get(each.user_id), since) for each in owed if each.user_id not in gone]
                return await writing.update(transaction, [each for each in due if each is not None])

            try:
                total += Updating(len(await self.lock.transact(update, attempts=attempts)))
            except RowsHeld:
                if len(batch) > 1:
                    raise
                updated = await self.lock.transact(partial(update, writing=replace(writing, sparing=True)))
                total += Updating(len(updated), users_left=1)

        def give_up(user_id: UserId, held: Held) -> None:
            nonlocal total
            log.warning("values_left", reason=str(held))
            log.debug("values_left", user_id=user_id)
            total += Updating(users_left=1)

        await self.halving.go(user_ids, attempt, give_up)
        return total

    def misfits(self) -> Sequence[str]:
        """Say in sentences which values of Clerk's did not fit their columns."""
        return [] if self.writing is None else self.writing.columns.misfits(self.misfitting)

    async def remove_users(self, proofs: Sequence[Proof], terms: RemovalTerms) -> Removal:
        """Tombstone, archive and delete all rows of these users, all of a user or nothing."""
        return await self.clearing.remove_users(proofs, terms)

    async def go_on(self, proof: Proof, terms: RemovalTerms) -> Removal:
        """Go on with the removal in batches of a user, until he is gone or the proof has to be renewed."""
        return await self.clearing.go_on(proof, terms)

    async def reduce_duplicates(self, user_ids: Sequence[UserId]) -> Reduction:
        """Archive and delete all but the oldest profile row of each user."""
        if self.shapes.profile is None or not user_ids:
            return Reduction()
        total = Reduction()

        async def attempt(batch: Sequence[UserId], attempts: int) -> None:
            nonlocal total

            async def reduce(transaction: Transaction) -> tuple[int, Mapping[Reference, set[str]]]:
                await lock_users(transaction, self.target.schema, batch)
                retention = self.label.policy.deletion.retention
                shapes = await self.shapes.renewed(transaction)
                return await reduce_duplicates(transaction, shapes, batch, self.lock.run_id, retention)

            rows, left = await self.lock.transact(reduce, attempts=attempts)
            for key, users in left.items():
                log.warning("duplicates_left", reason=why_left(key), users=len(users))
                log.debug("duplicates_left", user_ids=sorted(users))
            total += Reduction(rows, sum(map(len, left.values())))

        def give_up(user_id: UserId, held: Held) -> None:
            nonlocal total
            log.warning("duplicates_left", reason=str(held))
            log.debug("duplicates_left", user_id=user_id)
            total += Reduction(users_left=1)

        await self.halving.go(user_ids, attempt, give_up)
        return total

    async def finish(self, outcome: Outcome) -> Closing:
        """Close the audit row with what the run came to, chain the receipts; then let go what is past its time."""

        async def close(transaction: Transaction) -> Closing:
            await transaction.change(_SQL["finish_run"], self.lock.run_id, outcome_json(outcome))
            await chain(transaction, self.target.schema)
            if self.writing is not None and outcome.found.clerk_users:
                await updating.forget_strangers(transaction, self.lock.run_id, self.writing)
            return await closing(transaction, self.target.schema)

        closed = await self.lock.transact(close, limits=LONG)
        self.finished = True
        await purge(self.lock)
        return closed


@asynccontextmanager
async def begin_run(  # noqa: PLR0913 - what a database is opened with, and the label
    connections: Connections, target: Target, clock: Clock, label: RunLabel, *, times: LockTimes, bounds: Bounds
) -> AsyncGenerator[PostgresRun, None]:
    """Take the lock, open the audit row, keep the heart beating; close and give back at the end.

    Raises:
        TargetBusy: another run holds the lock and its heart beats.
    """

    async def look(transaction: Transaction) -> tuple[Shapes, Writing | None]:
        shapes = await describe(transaction, target)
        return shapes, await describe_writing(transaction, shapes.profile)

    shapes, writing = await connections.transact(look)
    lock = await acquire(connections, target.schema, uuid4(), label.holder, times)
    run = PostgresRun(lock, label, target, shapes, writing, clock, bounds)
    try:
        await lock.transact(lambda transaction: open_audit(transaction, lock, label), limits=LONG)
        async with lock.beating(times.beat):
            yield run
    except BaseException as error:
        await close_audit(lock, failure_of(error))
        raise
    else:
        await close_audit(lock, None if run.finished else UNFINISHED)
