"""Orphaned users removed by a run, batch by batch.

Decides how a batch is carried out where somebody of it cannot go, has very many rows, or has moved; who may go is
`core.sweeping`'s, and what is removed of a user `removing`'s. Used by `runs`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from controller.core.outcomes import Removal
from controller.postgres.connections import ATTEMPTS, LONG
from controller.postgres.creating import lock_users
from controller.postgres.failures import ContendedTransaction, RowsHeld
from controller.postgres.purging import Purging
from controller.postgres.queries import load
from controller.postgres.receipting import LimitReached
from controller.postgres.removing import (
    ORPHANED,
    ProofExpired,
    Removing,
    RowsMoved,
    UsersLarge,
    all_orphaned,
    collect_places,
    count_rows,
    goes_by_place,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.ports import Clock, RunLabel
    from controller.core.proofs import Proof
    from controller.core.removals import RemovalTerms
    from controller.core.users import UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.counting import Bounds
    from controller.postgres.halving import Halving, Held
    from controller.postgres.locking import RunLock
    from controller.postgres.removing import Rows
    from controller.postgres.shapes import Shapes

log = structlog.get_logger(__name__)

_SQL: Final = load("runs")
PLACES_AGE: Final = timedelta(seconds=30)
"""Places are noted anew after this: a row that an orphan's live token wrote since is among them then."""


@dataclass(slots=True)
class Clearing:
    """The removals of one run. `places_noted_at` in seconds of the clock; None: not yet, or void."""

    lock: RunLock
    label: RunLabel
    shapes: Shapes
    clock: Clock
    bounds: Bounds
    halving: Halving
    places_noted_at: float | None = field(default=None, init=False)

    async def remove_users(self, proofs: Sequence[Proof], terms: RemovalTerms) -> Removal:
        """Tombstone, archive and delete all rows of these users, all of a user or nothing."""
        if not proofs:
            return Removal()
        await self._note_places([proof.user_id for proof in proofs])
        total = Removal()

        async def attempt(batch: Sequence[Proof], attempts: int) -> None:
            nonlocal total
            total += await self._remove_batch(batch, terms, attempts)

        def give_up(proof: Proof, held: Held) -> None:
            nonlocal total
            log.warning("user_left", reason=str(held))
            log.debug("user_left", user_id=proof.user_id)
            total += Removal(users_left=1)

        await self.halving.go(proofs, attempt, give_up)
        return total

    async def _remove_batch(self, proofs: Sequence[Proof], terms: RemovalTerms, attempts: int = ATTEMPTS) -> Removal:
        by_place = self.places_noted_at is not None
        while True:
            removing = self._removing(terms, by_place=by_place)

            async def remove(transaction: Transaction, removing: Removing = removing) -> Rows:
                await lock_users(transaction, self.lock.schema, [proof.user_id for proof in proofs])
                return await (await self._renewed(transaction, removing)).remove(transaction, proofs)

            try:
                gone = await self.lock.transact(remove, limits=LONG, attempts=attempts)
            except ProofExpired:
                continue
            except LimitReached:
                log.warning("limit_reached", users=len(proofs), permitted=terms.permitted)
                return Removal(users_left=len(proofs), limit_reached=True)
            except RowsMoved:
                by_place = False
                continue
            except UsersLarge as large:
                others = [proof for proof in proofs if proof.user_id not in large.users]
                # The others first: should one of them be held, nobody has begun who would be begun again.
                removal = await self._remove_batch(others, terms, attempts) if others else Removal()
                for proof in proofs:
                    if proof.user_id in large.users:
                        removal += await self._begin(Purging(removing, proof))
                return removal
            return Removal(len(gone), count_rows(gone), users_left=len(proofs) - len(gone))

    async def _begin(self, purging: Purging) -> Removal:
        async def begin(transaction: Transaction) -> Removal:
            removing = await self._renewed(transaction, purging.removing)
            return await replace(purging, removing=removing).begin(transaction)

        try:
            return await self.lock.transact(begin, limits=LONG)
        except ProofExpired:
            return Removal(users_left=1)
        except LimitReached:
            log.warning("limit_reached", users=1, permitted=purging.removing.terms.permitted)
            return Removal(users_left=1, limit_reached=True)
        except (RowsHeld, ContendedTransaction) as held:
            log.warning("user_left", reason=str(held))
            log.debug("user_left", user_id=purging.proof.user_id)
            return Removal(users_left=1)

    async def go_on(self, proof: Proof, terms: RemovalTerms) -> Removal:
        """Go on with the removal in batches of a user, until he is gone or the proof has to be renewed."""
        return await Purging(self._removing(terms), proof).go_on(self.lock.transact)

    def _removing(self, terms: RemovalTerms, *, by_place: bool = False) -> Removing:
        requested_by = f"run of {self.label.resource} by {self.label.holder}"
        return Removing(
            self.lock.schema, self.shapes, self.clock, terms, ORPHANED, requested_by, self.lock.run_id, by_place,
            self.bounds,
        )  # fmt: skip

    async def _renewed(self, transaction: Transaction, removing: Removing) -> Removing:
        """Go by the tables as they are now: a run is long, and a migration may have come in between."""
        shapes = await self.shapes.renewed(transaction)
        if shapes != self.shapes:
            # An index may be gone, and the places of a table are noted only where it had none.
            self.shapes, self.places_noted_at = shapes, None
        return replace(removing, shapes=shapes, by_place=removing.by_place and self.places_noted_at is not None)

    async def _note_places(self, user_ids: Sequence[UserId]) -> None:
        """Scan tables without an index once for the rows of all orphans, instead of once per batch."""
        shapes = [shape for shape in self.shapes.tables if goes_by_place(shape)]
        if not shapes:
            return
        noted_at, now = self.places_noted_at, self.clock.elapsed()
        if noted_at is not None and now - noted_at <= PLACES_AGE.total_seconds():
            return

        async def note(transaction: Transaction) -> bool:
            if not await all_orphaned(transaction, self.lock.run_id, user_ids):
                return False
            await transaction.change(_SQL["forget_places"], [str(self.lock.run_id)])
            for shape in shapes:
                await collect_places(transaction, self.lock.run_id, shape)
            return True

        self.places_noted_at = now if await self.lock.transact(note, limits=LONG) else None
