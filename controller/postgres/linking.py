"""Links of rows that stay to rows that are removed: noted before the server empties them, and forgotten in time.

A foreign key with ON DELETE SET NULL or SET DEFAULT leaves the row that refers, and takes the reference from it: of
another user's row, or of a table that is not listed. Decides what is noted of it, with the removal, so that
`relinking` can set it again. Reads rows that stay, never changes them. Used by `removing`, `purging` and `expiring`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from controller.core.users import CLERK_ID_PATTERN
from controller.postgres.queries import literal, load, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from controller.postgres.connections import Transaction
    from controller.postgres.references import Reference
    from controller.postgres.shapes import Shape, Shapes

_SQL: Final = load("linking")
_NAMED: Final = CLERK_ID_PATTERN.strip("^$")
"""An id of Clerk's anywhere in a text."""


@dataclass(frozen=True, slots=True)
class Place:
    """Rows of one table, by where they lie: in one part of it, a partition or the table itself."""

    part: int
    places: Sequence[str]


@dataclass(frozen=True, slots=True)
class Locked:
    """Rows of one user that are locked, and about to be deleted; `last`: the place of the last one found."""

    picked: int
    last: str | None
    place: Place


@dataclass(frozen=True, slots=True)
class Linking:
    """The links to rows of one table, for one removal. `keys`: what takes them; none: nothing is to be done."""

    shape: Shape
    keys: tuple[Reference, ...]
    removed_at: datetime
    retention: timedelta

    async def note(self, transaction: Transaction, users: list[str], places_of: UUID | None = None) -> int:
        """Note what refers to the users' rows, which are locked: all, or those at the places that a run noted."""
        if places_of is None:
            return await self._note(transaction, "note_links", users)
        return await self._note(transaction, "note_links_by_place", users, places_of)

    async def note_batch(self, transaction: Transaction, user: str, place: Place) -> int:
        """Note what refers to these rows of the user, which are locked."""
        return await self._note(transaction, "note_links_of_batch", [user], place.part, place.places)

    async def _note(self, transaction: Transaction, query: str, users: list[str], *more: object) -> int:
        noted = 0
        for key in self.keys:
            sql = self.shape.sql(_SQL[query], child_owner=self._owner(key), **fragments(key))
            noted += await transaction.change(
                sql, self.shape.schema, users, self.shape.name, key.child.schema, key.child.table, key.name,
                self.removed_at, self.retention, *more,
            )  # fmt: skip
        return noted

    def _owner(self, key: Reference) -> str:
        """Return whose row refers, where it may go in the same DELETE, being one of the same table."""
        return f"usersync_child.{quoted(self.shape.table.user_id_column)}::text" if key.to_itself else "NULL::text"

    async def note_emptied(self, transaction: Transaction, noted: int) -> None:
        """After the DELETE: note what it made of so many links, and forget those that it did not touch."""
        if not noted:
            return
        for key in self.keys:
            noted -= await transaction.change(
                _SQL["note_emptied"].sql(fragments=fragments(key)), self.shape.schema, key.child.schema,
                key.child.table, key.name, _NAMED,
            )  # fmt: skip
        if noted:
            await transaction.change(_SQL["forget_untouched"], self.shape.schema)


async def lock_batch(transaction: Transaction, shape: Shape, user: str, limit: int, after: str | None) -> Locked:
    """Lock so many rows of the user, those behind the place `after`; of one part of the table."""
    row = await transaction.row(shape.sql(_SQL["lock_batch"]), user, limit, after)
    return Locked(row["picked"], row["last"], Place(row["part"] or 0, row["places"] or ()))


async def archive_places(transaction: Transaction, shape: Shape, place: Place, *archiving: object) -> int:
    """Archive and delete the user's rows at the places; returns how many."""
    query = shape.sql(_SQL["archive_places"], **shape.content())
    removed: int = await transaction.value(query, *archiving, place.part, place.places)
    return removed


def linking(shapes: Shapes, shape: Shape, removed_at: datetime, retention: timedelta) -> Linking:
    """Return what is to be noted when rows of the table are archived."""
    return Linking(shape, shapes.references.unlinking(shape.oid), removed_at, retention)


async def erase_links(transaction: Transaction, schema: str, users: Iterable[str]) -> None:
    """Forget what referred to rows of these users, and what names them."""
    await transaction.change(_SQL["erase_links"], schema, list(users))


async def erase_links_batch(transaction: Transaction, schema: str, user: str, limit: int) -> int:
    """Forget so many of them; returns how many there were."""
    return await transaction.change(_SQL["erase_links_batch"], schema, user, limit)


def fragments(key: Reference) -> dict[str, str]:
    """Return what statements about links by this key are put together from."""
    columns = [child for child, _ in key.columns]
    typed = {
        column: f"(usersync_link.held ->> {literal(column)})::{type_}"
        for column, type_ in zip(columns, key.types, strict=True)
    }
    return {
        **key.fragments,
        "names": ", ".join(map(literal, columns)),
        "texts": _texts(columns),
        "key_names": ", ".join(map(literal, key.primary_key)),
        "key_texts": _texts(key.primary_key),
        "locating": key.locating,
        "unchanged": " AND ".join(map(_unchanged, columns)),
        "held": ", ".join(f"{value} AS {quoted(column)}" for column, value in typed.items()),
        "assignments": ", ".join(f"{quoted(column)} = {value}" for column, value in typed.items()),
    }


def _texts(columns: Iterable[str]) -> str:
    return ", ".join(f"usersync_child.{quoted(column)}::text" for column in columns)


def _unchanged(column: str) -> str:
    """Whether the column is what the deletion made it, or again what it was."""
    now, name = f"usersync_child.{quoted(column)}::text", literal(column)
    return f"({now} IS NOT DISTINCT FROM (usersync_link.became ->> {name}) OR {now} = (usersync_link.held ->> {name}))"
