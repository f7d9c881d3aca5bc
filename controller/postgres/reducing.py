"""Duplicates reduced: all but the oldest profile row of a user archived and deleted.

Decides which rows are surplus, and leaves whoever's surplus rows are referred to by rows that would be deleted or
unlinked with them: these users live, and so does what they own. Used by `runs`, inside of its transactions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from controller.postgres.creating import byte_order
from controller.postgres.failures import RowsHeld
from controller.postgres.queries import load
from controller.postgres.removing import DUPLICATE, TEXT_FORM, layout_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from uuid import UUID

    from controller.core.users import UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.references import Reference
    from controller.postgres.shapes import Shape, Shapes

_SQL: Final = load("changing")


async def reduce_duplicates(
    transaction: Transaction, shapes: Shapes, users: Sequence[UserId], run_id: UUID, retention: timedelta
) -> tuple[int, Mapping[Reference, set[str]]]:
    """Archive and delete all but the first profile row of each user; the users' locks are held.

    Returns how many rows went, and by key the users who keep theirs, as a row that refers to a surplus one would
    be deleted or unlinked with it: these users live, and so does what they own.

    Raises:
        RowsHeld: the database keeps some row, or one came after the look.
        TablesChanged: begin again, with a new description.
    """
    profile = shapes.profile
    if profile is None:
        return 0, {}
    going = byte_order(users)
    left: dict[Reference, set[str]] = {}
    locked = await transaction.rows(profile.sql(_SQL["lock_rows"]), going)
    surplus = {row["user_id"]: row["surplus"] for row in locked}
    keys = shapes.references.touching(profile.oid)
    for key in keys:
        held = await _users_referred_to(transaction, profile, key, going)
        if held:
            left[key] = held
            going = [user for user in going if user not in held]
    await transaction.execute(TEXT_FORM)
    query = profile.sql(_SQL["reduce_duplicates"], ranking=profile.ranking(), **profile.content())
    layout, now = await layout_of(transaction, profile), await transaction.value(_SQL["time"])
    removed = await transaction.change(
        query, profile.schema, profile.name, going, DUPLICATE, run_id, layout, now, retention
    )
    if keys and removed > sum(surplus.get(user, 0) for user in going):
        message = f"A row came to {profile.schema}.{profile.name} while surplus ones were removed."
        raise RowsHeld(message)
    await shapes.require_unchanged(transaction)
    return removed, left


async def _users_referred_to(transaction: Transaction, profile: Shape, key: Reference, users: list[UserId]) -> set[str]:
    if not key.readable:
        return set(users)
    query = profile.sql(_SQL["surplus_referred_to"], ranking=profile.ranking(), **key.fragments)
    return {row["user_id"] for row in await transaction.rows(query, users)}


def why_left(key: Reference) -> str:
    """Say why a user keeps surplus profile rows, and what to do."""
    if not key.readable:
        return (
            f"Our role cannot see what refers to surplus profile rows by {key}, and deleting them would take it along "
            f"or unlink it. Grant it: GRANT SELECT ON {key.child.sql} TO ... (and BYPASSRLS, where row-level security "
            "hides rows)."
        )
    return (
        f"Rows refer to surplus profile rows by {key}, and would be deleted or unlinked with them. Point them at the "
        "oldest profile row of their user; then the next run removes the others."
    )
