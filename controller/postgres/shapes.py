"""The listed tables as the catalogue of the server describes them.

Decides which form of a statement a table permits (an index on the user id, a unique one, rows that can be
found by their place) and in which order tables are emptied. Read afresh for each transaction that removes rows, and
compared before it commits. Used by the other modules of this package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from controller.core.targets import Role, Table
from controller.errors import DatabaseRefused, RoleSeesNotAll, TablesMissing, TableUnsupported
from controller.postgres.failures import ContendedTransaction
from controller.postgres.queries import literal, load, quoted
from controller.postgres.references import Ordering, References, read_references

if TYPE_CHECKING:
    from controller.core.targets import Target
    from controller.postgres.connections import Transaction
    from controller.postgres.queries import Query

_SQL: Final = load("targets")
_TABLE_KINDS: Final = frozenset({"r", "p"})
"""`relkind` of tables and of partitioned ones."""
NAMED_AT_MOST: Final = 10
"""Tables named in one sentence."""
_OTHER_KINDS: Final = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence"}


class TablesChanged(ContendedTransaction):
    """A migration of the application came in between; the transaction rolls back and begins again."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One existing table of the target.

    - `indexed`: some index begins with the user id; `unique_user`: one is on it alone, unique, at once.
    - `sets_created_at`: an insert has to give the time, as the column has no default.
    - `required`: other columns that refuse NULL and have no default.
    - `layout`: all columns as JSON, a list of {name, type, generated}, in their order.
    """

    table: Table
    schema: str
    oid: int
    indexed: bool
    unique_user: bool
    has_created_at: bool
    sets_created_at: bool
    primary_key: tuple[str, ...]
    required: tuple[str, ...]
    layout: str

    @property
    def name(self) -> str:
        """The name of the table."""
        return self.table.name

    def sql(self, query: Query, **fragments: str) -> str:
        """Return the query for this table."""
        return query.sql(
            fragments=fragments, schema=self.schema, table=self.table.name, user_id=self.table.user_id_column
        )

    def content(self) -> dict[str, str]:
        """Return the fragments `names` and `texts`: the columns, and each value as PostgreSQL writes it."""
        columns = [column["name"] for column in json.loads(self.layout)]
        return {
            "names": ", ".join(map(literal, columns)),
            "texts": ", ".join(f"usersync_row.{quoted(column)}::text" for column in columns),
        }

    def ranking(self) -> str:
        """Return the order in which rows of one user go from the one to keep to the last to keep."""
        created_at = [f"usersync_row.{quoted(self.table.created_at_column)} NULLS LAST"] if self.has_created_at else []
        key = [f"usersync_row.{quoted(column)}" for column in self.primary_key]
        return ", ".join([*created_at, *key, "usersync_row.tableoid", "usersync_row.ctid"])


@dataclass(frozen=True, slots=True)
class Shapes:
    """The tables of a target that are there, in the order of the spec, and the foreign keys that point at them."""

    target: Target
    tables: tuple[Shape, ...]
    missing_tables: tuple[str, ...]
    references: References
    ordering: Ordering

    @property
    def profile(self) -> Shape | None:
        """The profile table, if it is there."""
        return next((shape for shape in self.tables if shape.table.role is Role.PROFILE), None)

    @property
    def removal_order(self) -> tuple[Shape, ...]:
        """The tables in the order in which they are emptied: children first."""
        return tuple(self.of(oid) for oid in self.ordering.oids)

    def of(self, oid: int) -> Shape:
        """Return the listed table of that oid."""
        return next(shape for shape in self.tables if shape.oid == oid)

    async def renewed(self, transaction: Transaction) -> Shapes:
        """Describe the tables anew, for a transaction that is to remove rows.

        Raises:
            TableUnsupported: one came or went since, so that some rows of a user would stay.
        """
        shapes = await describe(transaction, self.target)
        changed = sorted({*shapes.missing_tables} ^ {*self.missing_tables})
        if changed:
            message = (
                f"{', '.join(changed[:NAMED_AT_MOST])} of schema {self.target.schema} came or went while users were "
                "removed. No more of them are; the next run goes on."
            )
            raise TableUnsupported(message)
        return shapes

    async def require_unchanged(self, transaction: Transaction) -> None:
        """Make sure that the tables still are what they were described as; called behind the last DELETE.

        A column that was added since is not in the archive, and a foreign key that was may have taken rows along.
        From its DELETE on a table is locked against both, so what is not seen here comes after our commit.

        Raises:
            TablesChanged: begin again, with a new description.
        """
        if await describe(transaction, self.target) != self:
            message = f"Tables of schema {self.target.schema} were changed while rows of them were removed."
            raise TablesChanged(message)


async def describe(transaction: Transaction, target: Target) -> Shapes:
    """Read the tables of `target` from the catalogue.

    Raises:
        TablesMissing: none of them is there.
        TableUnsupported: something of that name is no table, or its column cannot hold Clerk's ids.
        RoleSeesNotAll: row-level security would hide rows from our role.
        DatabaseRefused: our role may not read a table.
    """
    rows = await transaction.rows(
        _SQL["describe_tables"],
        target.schema,
        [table.name for table in target.tables],
        [table.user_id_column for table in target.tables],
        [table.created_at_column for table in target.tables],
    )
    described = {row["name"]: row for row in rows}
    if not described:
        raise _none_there(target)
    shapes = tuple(
        _shape(table, target.schema, described[table.name]) for table in target.tables if table.name in described
    )
    references = await read_references(transaction, [shape.oid for shape in shapes])
    # Data before profile where nothing else is said: that is how applications refer.
    listed = sorted(shapes, key=lambda shape: shape.table.role is Role.PROFILE)
    missing = tuple(table.name for table in target.tables if table.name not in described)
    return Shapes(target, shapes, missing, references, references.order([shape.oid for shape in listed]))


def _none_there(target: Target) -> TablesMissing:
    names = [table.name for table in target.tables]
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return TablesMissing(
        f"None of the listed tables is in schema {target.schema}: {', '.join(names[:NAMED_AT_MOST])}{more}. Is it the "
        "right database? If it is, correct spec.database.schema or spec.tables, or create the tables."
    )


def _shape(table: Table, schema: str, row: Any) -> Shape:
    name = f"{schema}.{table.name}"
    if row["kind"] not in _TABLE_KINDS:
        message = f"{name} is {_OTHER_KINDS.get(row['kind'], 'no table')}; name the table in spec.tables."
        raise TableUnsupported(message)
    if row["foreign_part"] is not None:
        message = (
            f"{name} has a part on another server, the foreign table {row['foreign_part']}: what is removed there is "
            "not in one transaction with the rest. Detach it (ALTER TABLE ... DETACH PARTITION, or NO INHERIT)."
        )
        raise TableUnsupported(message)
    if row["wider_heir"] is not None:
        message = (
            f"{name} has an heir with columns of its own, {row['wider_heir']}: they would be lost with each row that "
            f"is removed. Give {name} these columns too, or let the heir stand alone (ALTER TABLE ... NO INHERIT) and "
            "list it in spec.tables."
        )
        raise TableUnsupported(message)
    if not row["readable"]:
        message = (
            f"Our role may not read {name}. Grant it: GRANT USAGE ON SCHEMA {quoted(schema)} TO ...; "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {quoted(schema)}.{quoted(table.name)} TO ..."
        )
        raise DatabaseRefused(message)
    if row["hidden"]:
        message = (
            f"Row-level security of {name} hides rows from our role, so users would look as if they had none. Use a "
            "role that owns the table (without FORCE ROW LEVEL SECURITY) or has BYPASSRLS (on Supabase: postgres)."
        )
        raise RoleSeesNotAll(message)
    _check_user_id(name, table.user_id_column, row)
    return Shape(
        table, schema, row["oid"], row["indexed"], row["unique_user"], row["has_created_at"],
        row["sets_created_at"], tuple(row["primary_key"]), tuple(row["required"]), row["columns"],
    )  # fmt: skip


def _check_user_id(name: str, column: str, row: Any) -> None:
    if not row["has_user_id"]:
        message = f"{name} has no column {column}; set userIdColumn of this table in spec.tables."
        raise TableUnsupported(message)
    if row["user_id_type"] == "uuid":
        message = (
            f"{name}.{column} is of type uuid, which cannot hold Clerk's ids (user_...): change it to text, or name "
            "the column that holds them in userIdColumn."
        )
        raise TableUnsupported(message)
    if not row["holds_text"]:
        message = f"{name}.{column} is of type {row['user_id_type']}; Clerk's ids need text or varchar."
        raise TableUnsupported(message)
    if not row["deterministic"]:
        message = (
            f"{name}.{column} has a nondeterministic collation, by which different ids can be equal; Clerk's ids "
            "differ by upper and lower case. Give the column a deterministic one."
        )
        raise TableUnsupported(message)


async def describe_profile(transaction: Transaction, target: Target) -> Shape:
    """Look at the profile table, without which nothing can be created.

    Raises:
        TableUnsupported: it does not exist, or as `describe`.
    """
    profile = (await describe(transaction, target)).profile
    if profile is None:
        message = f"The profile table {target.schema}.{target.profile.name} does not exist; create it."
        raise TableUnsupported(message)
    return profile
