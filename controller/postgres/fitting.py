"""Archived rows fitted to their table as it is now: columns dropped, added, computed or of another type since.

Decides whether a value can be read by its present column as what it was; what would be cut, rounded or not read
at all is refused, never approximated. Used by `restoring`, inside of its transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from controller.errors import DatabaseRefused, RequestRefused, TableUnsupported
from controller.postgres.queries import load, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shape

_SQL: Final = load("restoring")
_TEXTUAL: Final = ("text", "character")
_READ_WHOLE: Final = frozenset({"boolean", "uuid", "smallint", "integer", "bigint", "numeric"})
"""Types that read a text as a whole or not at all, whatever they write it as."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Rows of one removal from one table. `layout`: its columns then, None in rows older than layouts."""

    schema: str
    user_id: str
    table: str
    layout_id: int | None
    duplicate: bool
    removed_at: datetime
    rows: int
    first_id: int
    last_id: int
    layout: tuple[Mapping[str, Any], ...]

    def arguments(self) -> tuple[object, ...]:
        """Return what the queries take that read or mark these rows."""
        return (
            self.schema, self.user_id, self.table, self.layout_id, self.duplicate, self.removed_at, self.first_id,
            self.last_id,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table as it is now. `required`: refuses NULL and has no default."""

    name: str
    type: str
    generated: bool
    required: bool
    holds_json: bool
    holds_time: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """How a portion goes into its table. `archived`: its columns and their types then (None: not known)."""

    portion: Portion
    shape: Shape
    columns: tuple[Column, ...]
    archived: Mapping[str, str | None]

    @property
    def table(self) -> str:
        """The table, for people."""
        return f"{self.shape.schema}.{self.shape.name}"

    def filled(self) -> list[Column]:
        """Return the columns that get a value from the archive; the others are left to the server."""
        user_id = self.shape.table.user_id_column
        return [each for each in self.columns if not each.generated and each.name in {*self.archived, user_id}]

    def left(self) -> list[str]:
        """Return the archived columns that the table has no more, or computes."""
        filled = {column.name for column in self.filled()}
        computed = {column["name"] for column in self.portion.layout if column["generated"]}
        return [name for name in self.archived if name not in filled | computed]

    def fragments(self) -> dict[str, str]:
        """Return what `put_back` is made of."""
        filled = self.filled()
        return {
            "columns": ", ".join(quoted(column.name) for column in filled),
            "values": ", ".join(map(self.value, filled)),
            "definitions": ", ".join(map(self.definition, filled)),
        }

    def definition(self, column: Column) -> str:
        """Say as what the archive's JSON is read. In rows with a layout every value is a text."""
        reads_text = column.holds_json and self.portion.layout_id is not None
        return f"{quoted(column.name)} {'text' if reads_text else column.type}"

    def value(self, column: Column) -> str:
        """Return the expression of the column's value."""
        if column.name not in self.archived:
            # The column of the user's id has another name by now, or the row would belong to nobody.
            return f"a.user_id::{column.type}"
        value = f"usersync_row.{quoted(column.name)}"
        return f"{value}::{column.type}" if column.holds_json and self.portion.layout_id is not None else value


async def fit(transaction: Transaction, portion: Portion, shape: Shape) -> Fit:
    """Compare the portion's columns with those of the table.

    Raises:
        RequestRefused: a column cannot be filled, or cannot hold what it held.
    """
    rows = await transaction.rows(_SQL["columns_now"], shape.oid)
    columns = tuple(
        Column(row["name"], row["type"], row["generated"], row["required"], row["holds_json"], row["holds_time"])
        for row in rows
    )
    archived: dict[str, str | None] = {column["name"]: column["type"] for column in portion.layout}
    if portion.layout_id is None:
        names = await transaction.rows(_SQL["legacy_columns"], *portion.arguments())
        archived = {row["name"]: None for row in names}
    fitted = Fit(portion, shape, columns, archived)
    _require_defaults(fitted)
    for column in fitted.filled():
        if column.name in archived and archived[column.name] != column.type:
            await _require_same(transaction, fitted, column)
    return fitted


async def values_left(transaction: Transaction, fitted: Fit) -> list[str]:
    """Return the columns whose values stay in the archive, as there is nowhere to put them."""
    if not fitted.left():
        return []
    rows = await transaction.rows(_SQL["values_left"], *fitted.portion.arguments(), fitted.left())
    return [row["name"] for row in rows]


async def unreadable(transaction: Transaction, fitted: Fit) -> Column | None:
    """Find the column whose type refuses a value that it once held: an enum or a domain was changed."""
    for column in fitted.filled():
        if column.name in fitted.archived and not await _reads(transaction, fitted, column):
            return column
    return None


def not_read(fitted: Fit, column: Column) -> RequestRefused:
    """Put into words that a column does not read what it held."""
    then = fitted.archived[column.name] or "another type"
    return RequestRefused(
        f"{fitted.table}.{column.name} was {then} and is {column.type} now, which does not read some value of the "
        f"user's rows. {_REMEDY}"
    )


_REMEDY = (
    "Nothing was put back. Give the column a type that holds it, at least for the time being, or put back other tables "
    "alone with --table."
)


def _require_defaults(fitted: Fit) -> None:
    filled = {column.name for column in fitted.filled()}
    for column in fitted.columns:
        if column.required and not column.generated and column.name not in filled:
            message = (
                f"{fitted.table}.{column.name} was added since the rows were removed; it may not be NULL and has no "
                f"default, so nothing can stand in it. Nothing was put back. Give it one: ALTER TABLE "
                f"{quoted(fitted.shape.schema)}.{quoted(fitted.shape.name)} ALTER COLUMN {quoted(column.name)} "
                "SET DEFAULT ...;"
            )
            raise RequestRefused(message)


async def _require_same(transaction: Transaction, fitted: Fit, column: Column) -> None:
    """Check that the new type holds what the old one held: as the same text, or as one that leads back to it."""
    if not await _reads(transaction, fitted, column):
        raise not_read(fitted, column)
    if _reads_whole(fitted.archived[column.name], column):
        return
    for alike in await _ways_back(transaction, fitted, column):
        if await _reads_otherwise(transaction, fitted, column, alike) is False:
            return
    message = (
        f"{fitted.table}.{column.name} was {fitted.archived[column.name] or 'another type'} and is {column.type} now, "
        f"which would cut or round some value of the user's rows. {_REMEDY}"
    )
    raise RequestRefused(message)


def _reads_whole(old: str | None, column: Column) -> bool:
    """Whether what is read is all there was, however it is written: a text as a number, json as jsonb."""
    if old is None:
        # Times were archived then by settings that nobody knows any more.
        return column.holds_time
    return (old.startswith(_TEXTUAL) and column.type in _READ_WHOLE) or (old, column.type) == ("json", "jsonb")


async def _ways_back(transaction: Transaction, fitted: Fit, column: Column) -> list[str]:
    """Return conditions under which a value that is written differently is the same."""
    old = fitted.archived[column.name]
    if old is None:
        return ["to_jsonb(usersync_new.value) = usersync_old.json"]
    ways = ["false"]
    try:
        async with transaction.savepoint():
            known = await transaction.value(_SQL["type_known"], old)
    except (DatabaseRefused, TableUnsupported):
        known = False
    if known:
        ways += [
            f"usersync_new.value::{old}::text = usersync_old.text",
            f"usersync_new.value::text::{old}::text = usersync_old.text",
        ]
    return ways


async def _reads(transaction: Transaction, fitted: Fit, column: Column) -> bool:
    fragments = {"definitions": fitted.definition(column), "values": fitted.value(column)}
    try:
        async with transaction.savepoint():
            await transaction.value(_SQL["read_values"].sql(fragments=fragments), *fitted.portion.arguments())
    except (DatabaseRefused, TableUnsupported):
        return False
    return True


async def _reads_otherwise(transaction: Transaction, fitted: Fit, column: Column, alike: str) -> bool | None:
    """Whether some value is another one under the new type; None: it cannot be told, as a way back fails."""
    query = _SQL["read_otherwise"].sql(
        fragments={"definitions": fitted.definition(column), "values": fitted.value(column), "alike": alike}
    )
    try:
        async with transaction.savepoint():
            otherwise: bool = await transaction.value(query, *fitted.portion.arguments(), column.name)
    except (DatabaseRefused, TableUnsupported):
        return None
    return otherwise
