"""A user with very many rows: buried at once with his profile, his other rows removed in batches.

Decides in which order they go and when he is gone; whoever goes on, in whichever process, begins where the last
committed batch ended. Each batch is a transaction under the user's lock, needs a proof that holds and a tombstone
that stands, and is archived with what it removes. Used by `runs`, `inbox` and `erasing`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from controller.core.absorbing import SECOND_SWEEP_DELAY
from controller.core.leaving import OWN_REQUEST
from controller.core.outcomes import Removal
from controller.core.targets import DeletionPolicy
from controller.postgres.connections import LONG
from controller.postgres.creating import buried, lock_users
from controller.postgres.failures import ContendedTransaction, RowsHeld
from controller.postgres.leaving import forget_traces
from controller.postgres.linking import Linking, archive_places, erase_links_batch, linking, lock_batch
from controller.postgres.queries import load
from controller.postgres.receipting import Occasion, issue
from controller.postgres.removing import ACTS, DELETED, REQUESTED, TEXT_FORM, ProofExpired, Removing, layout_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from datetime import datetime

    from controller.core.proofs import Proof
    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shape

    Transact = Callable[..., Awaitable[Any]]
    """`Connections.transact`, or that of a run's lock, which holds the fence."""

log = structlog.get_logger(__name__)

_SQL: Final = load("purging")
_CHANGING: Final = load("changing")
_INBOX: Final = load("inbox")
BEGUN: Final = "begun"
"""Act on the receipt of a user whose rows are being removed."""
ERASED: Final = ACTS[DeletionPolicy.ERASE]
AFTER_THE_LAST: Final = ""
"""`under_way` once every table was gone through."""
CLAIM_DELAY: Final = timedelta(minutes=10)
"""After this the webhook service goes on with what a run began; the run itself is through by then, or was killed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the removal of one user is. `begun_at` is on each of his archived rows: one removal, one time."""

    user: str
    act: str
    reason: str
    approval: str | None
    begun_at: datetime
    rows: dict[str, int]
    under_way: str | None
    searched_to: str | None

    def taken(self, shape: Shape, rows: int, under_way: str, searched_to: str | None) -> Standing:
        """Return how far it is after one more batch."""
        counted = {**self.rows, shape.name: self.rows.get(shape.name, 0) + rows}
        return replace(self, rows=counted, under_way=under_way, searched_to=searched_to)


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction did. `ended`: nothing is left to do; `finished`: by this one."""

    rows: int = 0
    ended: bool = False
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What one DELETE found and removed; `last`: the place of the last row found."""

    picked: int
    removed: int
    last: str | None = None


@dataclass(frozen=True, slots=True)
class Purging:
    """The removal of one user in batches, on the strength of one proof."""

    removing: Removing
    proof: Proof

    @property
    def _user(self) -> str:
        return self.proof.user_id

    async def begin(self, transaction: Transaction) -> Removal:
        """Bury the user, count him, and remove his profile; harmless where that was done before.

        The profile stays to the end where other tables refer to it or a trigger of the application would act on
        its deletion: what that takes along nobody archives.

        Raises:
            ProofExpired: the proof does not hold.
            LimitReached: he would pass the limits.
            RowsHeld: the database keeps his profile.
        """
        removing, user = self.removing, self._user
        schema, terms = removing.schema, removing.terms
        await lock_users(transaction, schema, [self.proof.user_id])
        if await self._standing(transaction) is not None:
            return Removal(users_unfinished=1)
        if not await removing.holding(transaction, [self.proof]):
            raise ProofExpired
        if not await removing.large_among(transaction, [user]):
            # Somebody else was faster, or rows went meanwhile: whoever asks again finds an ordinary user.
            return Removal(users_left=1)
        removing.refuse_unlisted_cascades()
        await transaction.change(_CHANGING["bury"], schema, [user], removing.reason)
        begun_at = await transaction.value(_CHANGING["time"])
        rows = await self._remove_profile(transaction, begun_at)
        occasion = Occasion(BEGUN, removing.reason, removing.requested_by, removing.run_id)
        await issue(transaction, schema, {user: rows}, occasion, terms)
        await transaction.change(
            _SQL["add_unfinished"], schema, user, ACTS[terms.policy], removing.reason, terms.approval, begun_at,
            json.dumps(rows),
        )  # fmt: skip
        await transaction.change(_SQL["add_claim"], schema, user, CLAIM_DELAY)
        await removing.shapes.require_unchanged(transaction)
        return Removal(rows=sum(rows.values()), users_unfinished=1)

    async def _remove_profile(self, transaction: Transaction, begun_at: datetime) -> dict[str, int]:
        shapes = self.removing.shapes
        profile = shapes.profile
        if profile is None:
            # A receipt that names a table counts against the limits, as a user with rows does.
            return {shapes.tables[0].name: 0}
        if await self._stays_to_the_end(transaction, profile):
            return {profile.name: 0}
        return {profile.name: await self._remove_whole(transaction, self.removing, profile, begun_at)}

    async def go_on(self, transact: Transact) -> Removal:
        """Remove batch after batch until the user is gone, or the proof has to be renewed.

        Raises:
            LockLost: in a run, another one has taken over.
        """
        removal, held = await self.advance(transact)
        if held is not None:
            log.warning("user_left_unfinished", reason=str(held))
            log.debug("user_left_unfinished", user_id=self._user)
        return removal

    async def advance(self, transact: Transact) -> tuple[Removal, RowsHeld | ContendedTransaction | None]:
        """Do that of `go_on`; the second answer is what keeps the user's rows, if something does."""
        clock, rows, steps = self.removing.clock, 0, 0
        ends_at = clock.elapsed() + self.removing.bounds.slice.total_seconds()
        try:
            while True:
                step: Step = await transact(self._step, limits=LONG)
                rows, steps = rows + step.rows, steps + 1
                if step.ended:
                    return Removal(users=int(step.finished), rows=rows), None
                if clock.elapsed() >= ends_at:
                    return Removal(rows=rows, users_unfinished=1), None
        except ProofExpired:
            # Without a single batch it is no use to begin anew at once.
            return (Removal(rows=rows, users_unfinished=1) if steps else Removal(users_left=1)), None
        except (RowsHeld, ContendedTransaction) as held:
            return Removal(rows=rows, users_left=1), held

    async def _step(self, transaction: Transaction) -> Step:
        shapes = await self.removing.shapes.renewed(transaction)
        step = await replace(self, removing=replace(self.removing, shapes=shapes)).step(transaction)
        await shapes.require_unchanged(transaction)
        return step

    async def step(self, transaction: Transaction) -> Step:
        """Remove one batch; the last time, end it all."""
        await lock_users(transaction, self.removing.schema, [self.proof.user_id])
        standing = await self._standing(transaction)
        if standing is None:
            return Step(ended=True)
        await self._require_tombstone(transaction)
        self.removing.refuse_unlisted_cascades()
        await transaction.execute(TEXT_FORM)
        await transaction.execute(_SQL["search_in_order"].sql())
        for shape, after, following in self._tables_left(standing):
            batch = await self._remove_batch(transaction, shape, standing, after)
            if batch.picked and not batch.removed:
                # A trigger can swallow a DELETE without an error, and would do so for ever.
                message = f"Rows of {shape.schema}.{shape.name} stay where they are: a trigger prevents their deletion."
                raise RowsHeld(message)
            if batch.picked:
                through = batch.removed == batch.picked < self.removing.bounds.batch
                taken = standing.taken(
                    shape, batch.removed, following if through else shape.name, None if through else batch.last
                )
                await self._note(transaction, taken)
                return Step(batch.removed)
        if standing.act == ERASED and await self._erase_archived(transaction):
            await self._note(transaction, standing)
            return Step()
        await self._finish(transaction, standing)
        return Step(ended=True, finished=True)

    def _tables_left(self, standing: Standing) -> Iterator[tuple[Shape, str | None, str]]:
        """Yield tables, where to begin in each, and the name of the next.

        Behind the last one all come once more, from their beginnings: for rows that came, or moved, meanwhile.
        """
        order = self.removing.shapes.removal_order
        names = [*(shape.name for shape in order), AFTER_THE_LAST]
        first = names.index(standing.under_way) if standing.under_way in names else 0
        for number in range(first, len(order)):
            yield order[number], standing.searched_to if number == first else None, names[number + 1]
        for number, shape in enumerate(order):
            yield shape, None, names[number + 1]

    async def _remove_batch(
        self, transaction: Transaction, shape: Shape, standing: Standing, after: str | None
    ) -> Batch:
        removing, bounds = self.removing, self.removing.bounds
        # Right before the DELETE: a lock may have been waited for since.
        if not await removing.holding(transaction, [self.proof]):
            raise ProofExpired
        if self._goes_whole(shape):
            # A row goes with those that refer to it, which may be in any batch; so all go at once.
            rows = await self._remove_whole(transaction, self._as_begun(standing), shape, standing.begun_at)
            left = not rows and await transaction.value(shape.sql(_CHANGING["rows_remain"]), [self._user])
            return Batch(1, 0) if left else Batch(rows, rows)
        arguments: tuple[object, ...] = (self._user, bounds.batch, after)
        if standing.act == ERASED:
            query = "erase_batch"
        else:
            links = linking(removing.shapes, shape, standing.begun_at, removing.terms.retention)
            if links.keys:
                return await self._remove_linked_batch(transaction, standing, links, after)
            query, layout = "archive_batch", await layout_of(transaction, shape)
            arguments = (
                removing.schema, shape.name, *arguments, standing.reason, removing.run_id, layout, standing.begun_at,
                removing.terms.retention,
            )  # fmt: skip
        row = await transaction.row(shape.sql(_SQL[query], **shape.content()), *arguments)
        return Batch(row["picked"], row["removed"], None if shape.indexed else row["last"])

    async def _remove_linked_batch(
        self, transaction: Transaction, standing: Standing, links: Linking, after: str | None
    ) -> Batch:
        """Lock the batch first, and note which rows that stay refer to it."""
        removing, shape = self.removing, links.shape
        batch = await lock_batch(transaction, shape, self._user, removing.bounds.batch, after)
        if not batch.picked:
            return Batch(0, 0)
        noted = await links.note_batch(transaction, self._user, batch.place)
        # The rows may have been waited for.
        if not removing.holds(self.proof):
            raise ProofExpired
        removed = await archive_places(
            transaction, shape, batch.place, removing.schema, shape.name, self._user, standing.reason,
            removing.run_id, await layout_of(transaction, shape), standing.begun_at, removing.terms.retention,
        )  # fmt: skip
        await links.note_emptied(transaction, noted)
        return Batch(batch.picked, removed, None if shape.indexed else batch.last)

    async def _remove_whole(
        self, transaction: Transaction, removing: Removing, shape: Shape, begun_at: datetime
    ) -> int:
        # By a scan where there is no index: the places that a run has noted may be as old as its first batch.
        scanning = replace(removing, by_place=False)
        await transaction.execute(TEXT_FORM)
        return (await scanning.empty(transaction, shape, [self.proof], begun_at)).get(self._user, 0)

    def _as_begun(self, standing: Standing) -> Removing:
        policy = DeletionPolicy.ERASE if standing.act == ERASED else DeletionPolicy.ARCHIVE
        return replace(self.removing, reason=standing.reason, terms=replace(self.removing.terms, policy=policy))

    def _goes_whole(self, shape: Shape) -> bool:
        """Whether rows of the table, or of others, go along with a row of it, and so could be in another batch."""
        references = self.removing.shapes.references
        to_itself = any(key.to_itself and key.parent_oid == shape.oid for key in references.keys)
        return to_itself or bool(references.cascading_to(shape.oid))

    async def _stays_to_the_end(self, transaction: Transaction, profile: Shape) -> bool:
        keys = self.removing.shapes.references.keys
        referred_to = any(key.parent_oid == profile.oid and not key.to_itself for key in keys)
        return referred_to or await transaction.value(_SQL["has_delete_triggers"], profile.oid)

    async def _erase_archived(self, transaction: Transaction) -> int:
        schema, size = self.removing.schema, self.removing.bounds.batch
        archived = await transaction.change(_SQL["erase_archived_batch"], schema, self._user, size)
        return archived + await erase_links_batch(transaction, schema, self._user, size)

    async def _finish(self, transaction: Transaction, standing: Standing) -> None:
        removing, user = self.removing, self._user
        terms = replace(removing.terms, permitted=None, approval=standing.approval)
        rows = {table: number for table, number in standing.rows.items() if number}
        requested = standing.reason == REQUESTED
        # Whoever goes on with what was requested is not who requested it.
        requested_by = OWN_REQUEST if requested and removing.reason != REQUESTED else removing.requested_by
        occasion = Occasion(standing.act, standing.reason, requested_by, removing.run_id)
        await issue(transaction, removing.schema, {user: rows}, occasion, terms)
        await transaction.change(_SQL["end_unfinished"], removing.schema, user)
        await transaction.change(_INBOX["end_claims_of"], removing.schema, [user], requested)
        if requested:
            await forget_traces(transaction, removing.schema, self.proof.user_id)
        if standing.reason in {DELETED, REQUESTED}:
            await transaction.change(_INBOX["record_second_sweeps"], removing.schema, [user], SECOND_SWEEP_DELAY)

    async def _require_tombstone(self, transaction: Transaction) -> None:
        if not await buried(transaction, self.removing.schema, [self.proof.user_id]):
            message = (
                "The tombstone of a user whose removal had begun was lifted meanwhile, so the rest of the rows stays."
            )
            raise RowsHeld(message)

    async def _standing(self, transaction: Transaction) -> Standing | None:
        row = await transaction.row(_SQL["find_unfinished"], self.removing.schema, self._user)
        if row is None:
            return None
        # Who is to be erased stays to be erased, whatever the policy says since; the archive has no more than a part.
        act = ERASED if self.removing.terms.policy is DeletionPolicy.ERASE else row["act"]
        reason = REQUESTED if self.removing.reason == REQUESTED else row["reason"]
        return Standing(
            self._user, act, reason, row["approval"], row["begun_at"], json.loads(row["rows"]),
            row["under_way"], row["searched_to"],
        )  # fmt: skip

    async def _note(self, transaction: Transaction, standing: Standing) -> None:
        await transaction.change(
            _SQL["note_progress"], self.removing.schema, standing.user, standing.act, standing.reason,
            json.dumps(standing.rows), standing.under_way, standing.searched_to,
        )  # fmt: skip


async def any_unfinished(transaction: Transaction, schema: str, users: list[str]) -> bool:
    """Whether the removal in batches of any of these users has begun and not ended."""
    return bool(await transaction.rows(_SQL["unfinished_among"], schema, users))


async def unfinished_page(transaction: Transaction, schema: str, after: str, size: int) -> list[str]:
    """Return the next users whose removal has begun and not ended, in byte order."""
    rows = await transaction.rows(_SQL["unfinished_page"], schema, after, size)
    return [row["user_id"] for row in rows]
