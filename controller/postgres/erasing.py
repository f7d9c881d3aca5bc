"""Users erased: their rows, what the archive has of them, and every trace of their id but tombstone and receipt.

Decides nothing about who may be erased; that is `core.requests`'. It is one transaction under the run lock and the
user's lock. Used by `database`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from controller.core.requests import Erased
from controller.errors import RequestRefused
from controller.postgres.counting import Bounds
from controller.postgres.creating import lock_users
from controller.postgres.failures import RowsHeld
from controller.postgres.queries import load
from controller.postgres.removing import REQUESTED, ProofExpired, Removing
from controller.postgres.restoring import own_request, require_finished
from controller.postgres.shapes import describe

if TYPE_CHECKING:
    from controller.core.ports import Clock
    from controller.core.proofs import Proof
    from controller.core.targets import Target
    from controller.postgres.connections import Transaction

_SQL: Final = load("restoring") | load("updating")
TRACES: Final = (
    "forget_suspect",
    "forget_held_user",
    "forget_claims",
    "forget_listed_user",
    "forget_drifted_user",
    "forget_places_user",
    "forget_listed_values_user",
    "forget_owed_values_user",
)
"""Queries that forget a user in each table of ours that may name him; the archive is `removing`'s."""


async def erase(transaction: Transaction, target: Target, clock: Clock, proof: Proof, requested_by: str) -> Erased:
    """Remove the user's rows and every trace of his id, but tombstone and receipt.

    Raises:
        RequestRefused: the proof does not hold, or the database keeps some row.
    """
    schema, user_id = target.schema, proof.user_id
    await lock_users(transaction, schema, [user_id])
    await require_finished(transaction, schema, user_id)
    archived = await transaction.value(_SQL["count_archived"], schema, user_id)
    shapes = await describe(transaction, target)
    # All in one transaction, however many rows: there is nobody who would go on with the rest.
    bounds = Bounds(rows=sys.maxsize // 2)
    removing = Removing(schema, shapes, clock, own_request(), REQUESTED, requested_by, bounds=bounds)
    try:
        async with transaction.savepoint():
            gone = await removing.remove(transaction, [proof])
    except ProofExpired:
        gone = {}
    except RowsHeld as held:
        message = f"Nothing was erased: {held} Remove what keeps the row, and try again."
        raise RequestRefused(message) from held
    if user_id not in gone:
        message = "Nothing was erased: the proof that Clerk has deleted the user grew too old meanwhile; try again."
        raise RequestRefused(message)
    for query in TRACES:
        await transaction.change(_SQL[query], schema, user_id)
    return Erased(gone[user_id], archived)
