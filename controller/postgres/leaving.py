"""Users who leave on their own request: the request stored, taken up by whoever removes him, and its receipt.

Decides that such a user is erased for good, beyond the limits, by whichever claim or worker his removal is reached
first; whether Clerk has deleted him is `core.leaving`'s. Used by `inbox`, inside of its transactions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from controller.core.claims import Claim, ClaimKind
from controller.core.leaving import OWN_REQUEST
from controller.postgres.creating import lock_users
from controller.postgres.queries import load
from controller.postgres.receipting import RECENT, chain
from controller.postgres.restoring import RETRACED
from controller.postgres.verifying import receipt_of

if TYPE_CHECKING:
    from datetime import timedelta

    from controller.core.receipts import Receipt
    from controller.core.users import UserId
    from controller.postgres.connections import Transaction

_SQL: Final = load("leaving")
_RESTORING: Final = load("restoring")


async def request_removal(transaction: Transaction, schema: str, user_id: UserId, lease: timedelta) -> Claim | None:
    """Store the request, or None if the user is gone on his own request already."""
    await lock_users(transaction, schema, [user_id])
    if await receipt_of_request(transaction, schema, user_id) is not None:
        return None
    number = await transaction.value(_SQL["request_removal"], schema, user_id, lease)
    return Claim(number, user_id, ClaimKind.OWN_REQUEST, attempts=0, present_answers=0)


async def receipt_of_request(transaction: Transaction, schema: str, user_id: str) -> Receipt | None:
    """Return the receipt of a user who is gone on his own request, wholly."""
    row = await transaction.row(_SQL["receipt_of_request"], schema, user_id, OWN_REQUEST)
    return None if row is None else receipt_of(row)


async def linked_receipt(transaction: Transaction, schema: str, user_id: str) -> Receipt | None:
    """Return the same with its link: whoever has removed him makes it afterwards, and may not have come to it yet."""
    receipt = await receipt_of_request(transaction, schema, user_id)
    if receipt is None or receipt.link is not None:
        return receipt
    await chain(transaction, schema, looks_back=RECENT)
    return await receipt_of_request(transaction, schema, user_id)


async def keep_request(transaction: Transaction, claim: Claim) -> None:
    """Note that the request's user is gone from Clerk."""
    await transaction.change(_SQL["keep_request"], claim.id)


async def lift_request(transaction: Transaction, schema: str, claim: Claim) -> bool:
    """End the request, unless its user is gone from Clerk or buried."""
    await lock_users(transaction, schema, [claim.user_id])
    return await transaction.change(_SQL["lift_request"], claim.id, schema, claim.user_id) == 1


async def on_own_request(transaction: Transaction, schema: str, claim: Claim) -> bool:
    """Whether the claim's user is to be erased because he asked for it, whatever the claim is for."""
    if claim.kind is ClaimKind.SECOND_SWEEP:
        return await receipt_of_request(transaction, schema, claim.user_id) is not None
    stands: bool = await transaction.value(_SQL["request_stands"], schema, claim.user_id)
    return stands


async def forget_traces(transaction: Transaction, schema: str, user_id: UserId) -> None:
    """Forget what a run has noted of the user beyond its end; what it keeps meanwhile ends with it."""
    for query in RETRACED:
        await transaction.change(_RESTORING[query], schema, user_id)
