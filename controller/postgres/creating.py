"""Profile rows inserted, never twice by us, never for a user who is buried.

Decides the form: a unique index settles it; without one the table is locked for the statement, as two who
select and then insert would both insert. Used by `runs` and `inbox`, under the users' locks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from controller.errors import TableUnsupported
from controller.postgres.queries import load, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.users import UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.failures import RowsHeld
    from controller.postgres.shapes import Shape

_SQL: Final = load("changing")
# While we wait for the table, everybody who wants to write to it waits behind us.
TABLE_LOCK_LIMIT: Final = "SET LOCAL lock_timeout = '500ms'"


def byte_order(user_ids: Sequence[UserId]) -> list[UserId]:
    """Return each id once, in the order of its bytes, in which all of us lock."""
    return sorted(set(user_ids), key=str.encode)


async def lock_users(transaction: Transaction, schema: str, user_ids: Sequence[UserId]) -> None:
    """Take the users' locks until the transaction ends."""
    await transaction.rows(_SQL["lock_users"], schema, byte_order(user_ids))


async def lock_free_users(transaction: Transaction, schema: str, user_ids: Sequence[UserId]) -> set[str]:
    """Take the locks that nobody else holds, until the transaction ends; returns whose they are."""
    rows = await transaction.rows(_SQL["lock_free_users"], schema, byte_order(user_ids))
    return {row["user_id"] for row in rows}


async def buried(transaction: Transaction, schema: str, user_ids: Sequence[UserId]) -> set[str]:
    """Return those of the users who have a tombstone."""
    return {row["user_id"] for row in await transaction.rows(_SQL["buried"], schema, list(user_ids))}


async def only_missing(transaction: Transaction, run_id: object, user_ids: Sequence[UserId]) -> set[str]:
    """Return those of the users whom the run found listed and without a profile."""
    return {row["user_id"] for row in await transaction.rows(_SQL["only_missing"], run_id, list(user_ids))}


async def insert_profiles(transaction: Transaction, profile: Shape, user_ids: Sequence[UserId]) -> set[str]:
    """Insert a row for each user who has none; returns for whom. The users' locks are held."""
    columns = [profile.table.user_id_column]
    values = ["u.id"]
    if profile.sets_created_at:
        columns.append(profile.table.created_at_column)
        values.append("clock_timestamp()")
    query = _SQL["insert_profiles_by_index"]
    if not profile.unique_user:
        query = _SQL["insert_profiles_under_lock"]
        await transaction.execute(f"{TABLE_LOCK_LIMIT}; {profile.sql(_SQL['lock_table'])}")
    insert = profile.sql(query, columns=", ".join(map(quoted, columns)), values=", ".join(values))
    return {row["user_id"] for row in await transaction.rows(insert, byte_order(user_ids))}


def unsupported(schema: str, table: str, held: RowsHeld) -> TableUnsupported:
    """Put into words why no profile can be created in a table."""
    name = f"{schema}.{table}"
    if held.column:
        return TableUnsupported(
            f"Profiles cannot be created in {name}: {held.column} may not be NULL and has no default. Give it one: "
            f"ALTER TABLE {quoted(schema)}.{quoted(table)} ALTER COLUMN {quoted(held.column)} SET DEFAULT ...;"
        )
    return TableUnsupported(f"Profiles cannot be created in {name}: {held}")
