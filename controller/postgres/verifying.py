"""Receipts read again: listed for people, and their chain recomputed from its first link.

Decides what does not fit: a link that is not the hash of its receipt and of the link before it, a gap, a receipt
without a link, a removal without a tombstone, a head from earlier that is no link any more. Used by `database`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from controller.core.receipts import Receipt, Verified
from controller.postgres.queries import load
from controller.postgres.receipting import FIRST_LINK, LINKS_AT_ONCE, next_link

if TYPE_CHECKING:
    from typing import Any

    from controller.core.users import UserId
    from controller.postgres.connections import Transaction

_SQL: Final = load("receipts")


async def read_receipts(transaction: Transaction, schema: str, limit: int, user_id: UserId | None) -> list[Receipt]:
    """Return the newest `limit` receipts, the last of them last."""
    rows = await transaction.rows(_SQL["newest_receipts"], schema, limit, user_id)
    return [receipt_of(row) for row in reversed(rows)]


def receipt_of(row: Any) -> Receipt:
    """Read one row of `newest_receipts`, or of another query with its columns."""
    return Receipt(
        position=row["position"],
        act=row["act"],
        reason=row["reason"],
        requested_by=row["requested_by"],
        issued_at=row["issued_at"],
        counted=row["counted"],
        approval=row["approval"],
        run_id=None if row["run_id"] is None else str(row["run_id"]),
        rows=json.loads(row["rows"]),
        user_hash=row["user_hash"],
        link=row["link"],
    )


async def verify(transaction: Transaction, schema: str, head: str | None) -> Verified:
    """Recompute every link; `head` (hexadecimal) is one that somebody kept, and has to be among them."""
    receipts = await transaction.value(_SQL["count_receipts"], schema)
    query = _SQL["links"].sql(fragments={"content": _SQL["receipt_content"].sql()})
    position, link, found = 0, FIRST_LINK, head is None
    while rows := await transaction.rows(query, schema, position, LINKS_AT_ONCE):
        for row in rows:
            problem = _misfit(row, position + 1, link)
            if problem is not None:
                return Verified(receipts, None, problem, position + 1)
            position, link = position + 1, row["hash"]
            found = found or link.hex() == head
    last = link.hex() if position else None
    unlinked = await transaction.value(_SQL["count_unlinked"], schema)
    if unlinked:
        return Verified(receipts, last, f"{unlinked} receipts have no link in the chain.")
    if not found:
        problem = (
            f"The head {head} is no link of this chain: receipts were taken away since it was kept, or it is of "
            "another database or schema."
        )
        return Verified(receipts, last, problem)
    return Verified(receipts, last)


def _misfit(row: Any, expected: int, before: bytes) -> str | None:
    """Say what is wrong with a link, if anything is."""
    if row["position"] != expected:
        return f"Position {expected} of the chain is missing: a receipt was taken away."
    if row["content"] is None:
        return f"The receipt at position {expected} is missing, or is of another schema."
    if next_link(before, row["content"]) != row["hash"]:
        return (
            f"The link at position {expected} is not the hash of its receipt and of the link before it: the receipt, "
            "the link or what was before it has been changed."
        )
    if row["removal"] and not row["has_tombstone"]:
        return f"The receipt at position {expected} is of a removal, and the user's tombstone is missing."
    return None
