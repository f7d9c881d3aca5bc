"""Receipts: issued with each removal, counted against the limits, chained after the fact.

Decides whether a removing transaction passes the limits: it holds the target's row from its receipts to its
commit, so runs and events count one after the other. The chain is made later, by one at a time, so that issuing
never waits for it. Used by `removing`, `runs`, `inbox` and the commands that read them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from controller.core.outcomes import Closing
from controller.core.planning import allowance
from controller.core.users import CLERK_ID_PATTERN
from controller.postgres.queries import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from controller.core.removals import RemovalTerms
    from controller.core.targets import Limits
    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shape

_SQL: Final = load("receipts")
FIRST_LINK: Final = bytes(32)
"""What stands for the hash before the first receipt."""
LINKS_AT_ONCE: Final = 1000
RECENT: Final = 1000
"""How far an event looks back for receipts without a link; runs look through all."""


class LimitReached(Exception):
    """The receipts of the transaction would pass the limits; it rolls back."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """Why, and on whose request, receipts are issued. `act` is what became of the rows."""

    act: str
    reason: str
    requested_by: str
    run_id: UUID | None = None


async def issue(
    transaction: Transaction,
    schema: str,
    rows: Mapping[str, Mapping[str, int]],
    occasion: Occasion,
    terms: RemovalTerms,
) -> None:
    """Write a receipt for each user of `rows` (user -> table -> rows), and count it where the limits apply.

    Raises:
        LimitReached: more users would be gone within the window than `terms.permitted`.
    """
    limited = terms.permitted is not None
    if limited:
        await transaction.rows(_SQL["lock_limits"], schema)
    # Who had no rows lost none: an event about him uses nothing up.
    counted = [limited and bool(tables) for tables in rows.values()]
    await transaction.change(
        _SQL["issue_receipts"],
        schema,
        list(rows),
        [json.dumps(tables, sort_keys=True) for tables in rows.values()],
        # as texts, like all arrays: asyncpg asks for the type of any other
        [str(count) for count in counted],
        occasion.act,
        occasion.reason,
        occasion.requested_by,
        terms.approval,
        occasion.run_id,
    )
    if terms.permitted is not None and any(counted) and await _removed(transaction, schema, terms) > terms.permitted:
        raise LimitReached


async def _removed(transaction: Transaction, schema: str, terms: RemovalTerms) -> int:
    removed: int = await transaction.value(_SQL["removed_in_window"], schema, terms.window)
    return removed


async def permitted_to_events(transaction: Transaction, schema: str, limits: Limits, profile: Shape | None) -> int:
    """How many users may be gone from the window, by the number of users as it was last counted.

    Runs count it; where none has for a day, the profile table is counted.
    """
    row = await transaction.row(_SQL["limits_base"], schema, limits.window)
    if row is None:
        return 0
    users, before = row["users"] or 0, row["removed_before"]
    if row["stale"] and profile is not None:
        users = await transaction.value(profile.sql(_SQL["count_users"]), CLERK_ID_PATTERN)
        await note_users(transaction, schema, users)
        before = await transaction.value(_SQL["removed_in_window"], schema, limits.window)
    return allowance(limits, users + before)


async def note_users(transaction: Transaction, schema: str, users: int) -> None:
    """Keep how many users have rows, for the events until the next count."""
    await transaction.change(_SQL["note_users"], schema, users)


async def chain(transaction: Transaction, schema: str, *, looks_back: int | None = None) -> None:
    """Add a link for each receipt that has none, in the order in which they are found.

    `looks_back`: only so far behind the newest that has one, as to look through all takes longer with each receipt;
    one whose transaction took so long to commit is left to whoever looks through all.
    """
    await transaction.rows(_SQL["lock_chain"], schema)
    head = await transaction.row(_SQL["chain_head"], schema)
    position, link = (head["position"], head["hash"]) if head else (0, FIRST_LINK)
    behind = 0 if looks_back is None else await transaction.value(_SQL["newest_linked"]) - looks_back
    query = _SQL["unchained"].sql(fragments={"content": _SQL["receipt_content"].sql()})
    while rows := await transaction.rows(query, schema, LINKS_AT_ONCE, behind):
        links = []
        for row in rows:
            position, link = position + 1, next_link(link, row["content"])
            links.append((str(position), str(row["id"]), link.hex()))
        await transaction.change(_SQL["add_links"], schema, *map(list, zip(*links, strict=True)))


def next_link(link: bytes, content: str) -> bytes:
    """Return the hash of a receipt's content and of the link before it."""
    return hashlib.sha256(link + content.encode()).digest()


async def closing(transaction: Transaction, schema: str) -> Closing:
    """Say how many receipts there are, and up to which head they are chained."""
    head: Any = await transaction.row(_SQL["chain_head"], schema)
    return Closing(
        receipts=await transaction.value(_SQL["count_receipts"], schema),
        head=head["hash"].hex() if head else None,
        claims_held=await transaction.value(_SQL["claims_held"], schema),
    )
