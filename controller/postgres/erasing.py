"""Users erased: their rows, what the archive has of them, and every trace of their id but tombstone and receipt.

Decides nothing about who may be erased; that is `core.requests`'. A user leaves in one transaction under the run lock
and his own; one with very many rows in batches, which the webhook service or a run goes on with should we die.
Used by `database`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from controller.core.absorbing import SECOND_SWEEP_DELAY
from controller.core.requests import Erased
from controller.errors import RequestRefused
from controller.postgres import leaving
from controller.postgres.connections import LONG
from controller.postgres.creating import lock_users
from controller.postgres.failures import RowsHeld
from controller.postgres.purging import CLAIM_DELAY, Purging
from controller.postgres.queries import load
from controller.postgres.removing import REQUESTED, ProofExpired, Removing, UsersLarge
from controller.postgres.restoring import own_request
from controller.postgres.shapes import describe
from controller.postgres.verifying import read_receipts

if TYPE_CHECKING:
    from controller.core.ports import Clock
    from controller.core.proofs import Proof
    from controller.core.targets import Target
    from controller.postgres.connections import Transaction
    from controller.postgres.counting import Bounds
    from controller.postgres.locking import RunLock

_SQL: Final = load("restoring") | load("updating")
_INBOX: Final = load("inbox")
TRACES: Final = (
    "forget_suspect",
    "forget_held_user",
    "forget_listed_user",
    "forget_drifted_user",
    "forget_places_user",
    "forget_listed_values_user",
    "forget_owed_values_user",
)
"""Queries that forget a user in each table of ours that may name him; the archive and the claims are `removing`'s."""


@dataclass(slots=True)
class Erasing:
    """A `core.requests.Erasure`. `archived`: rows that the archive had of the user when it began."""

    lock: RunLock
    target: Target
    clock: Clock
    bounds: Bounds
    requested_by: str
    archived: int | None = field(default=None, init=False)

    async def remove(self, proof: Proof) -> Erased:
        """Remove the user, or of very many rows as many as go on the strength of one proof.

        Raises:
            RequestRefused: the proof does not hold, or the database keeps some row.
        """
        try:
            return await self.lock.transact(partial(self._remove_whole, proof), limits=LONG)
        except UsersLarge:
            return await self._remove_in_batches(proof)
        except ProofExpired as expired:
            raise _too_old() from expired
        except RowsHeld as held:
            raise _nothing_erased(held) from held

    async def _remove_whole(self, proof: Proof, transaction: Transaction) -> Erased:
        schema, user_id = self.target.schema, proof.user_id
        removing = await self._begin(proof, transaction)
        gone = await removing.remove(transaction, [proof])
        if user_id not in gone:
            raise ProofExpired
        await self._forget(proof, transaction)
        await transaction.change(_INBOX["record_second_sweeps"], schema, [user_id], SECOND_SWEEP_DELAY)
        return Erased(gone[user_id], self.archived or 0)

    async def _begin(self, proof: Proof, transaction: Transaction) -> Removing:
        schema, user_id = self.target.schema, proof.user_id
        await lock_users(transaction, schema, [user_id])
        if self.archived is None:
            self.archived = await transaction.value(_SQL["count_archived"], schema, user_id)
        shapes = await describe(transaction, self.target)
        return Removing(schema, shapes, self.clock, own_request(), REQUESTED, self.requested_by, bounds=self.bounds)

    async def _forget(self, proof: Proof, transaction: Transaction) -> None:
        for query in TRACES:
            await transaction.change(_SQL[query], self.target.schema, proof.user_id)

    async def _remove_in_batches(self, proof: Proof) -> Erased:
        async def begin(transaction: Transaction) -> Purging:
            purging = Purging(await self._begin(proof, transaction), proof)
            await purging.begin(transaction)
            # Whoever goes on after us is to know that it was asked for, whatever the policy says.
            await leaving.request_removal(transaction, self.target.schema, proof.user_id, CLAIM_DELAY)
            return purging

        async def end(transaction: Transaction) -> Erased:
            await lock_users(transaction, self.target.schema, [proof.user_id])
            await self._forget(proof, transaction)
            (receipt,) = await read_receipts(transaction, self.target.schema, 1, proof.user_id)
            return Erased(receipt.rows, self.archived or 0)

        try:
            purging = await self.lock.transact(begin, limits=LONG)
        except ProofExpired as expired:
            raise _too_old() from expired
        except RowsHeld as held:
            raise _nothing_erased(held) from held
        removal, kept_by = await purging.advance(self.lock.transact)
        if kept_by is not None:
            message = f"The user is erased in part: {kept_by} Remove what keeps the row, and erase him again."
            raise RequestRefused(message) from kept_by
        if removal.users_left:
            raise _too_old()
        if removal.users_unfinished:
            return Erased({}, self.archived or 0, finished=False)
        return await self.lock.transact(end)


def _nothing_erased(held: RowsHeld) -> RequestRefused:
    return RequestRefused(f"Nothing was erased: {held} Remove what keeps the row, and try again.")


def _too_old() -> RequestRefused:
    return RequestRefused("Nothing was erased: the proof that Clerk has deleted the user grew too old; try again.")
