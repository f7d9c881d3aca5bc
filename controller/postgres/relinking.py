"""Links set again: rows that stayed refer once more to the rows that are put back.

Decides which of what `linking` has noted is still open: the row that referred is there, its columns are what the
deletion made them, and there is again a row to refer to. What somebody has set otherwise meanwhile is left. Used by
`restoring`, inside of its transaction and after the rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from controller.core.requests import Links
from controller.errors import RequestRefused
from controller.postgres.failures import RowsHeld
from controller.postgres.linking import fragments
from controller.postgres.queries import load, quoted

if TYPE_CHECKING:
    from controller.core.requests import RestoreTerms
    from controller.core.users import UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.references import Reference
    from controller.postgres.shapes import Shapes

_SQL: Final = load("linking")


@dataclass(frozen=True, slots=True)
class Noted:
    """Links by one key of one table, as they were called when the rows were removed."""

    table: str
    child_schema: str
    child: str
    constraint: str
    columns: frozenset[str]
    primary_key: frozenset[str]
    links: int
    first_id: int
    last_id: int


@dataclass(frozen=True, slots=True)
class Relinking:
    """The links to one user's rows, set again."""

    transaction: Transaction
    user_id: UserId
    terms: RestoreTerms
    schema: str
    shapes: Shapes
    restored: Counter[str] = field(default_factory=Counter, init=False)
    left: Counter[str] = field(default_factory=Counter, init=False)
    skipped: Counter[str] = field(default_factory=Counter, init=False)

    async def relink(self) -> Links:
        """Set what can be set.

        Raises:
            RequestRefused: the database does not take one of them, and conflicts are not skipped.
        """
        for row in await self.transaction.rows(_SQL["links_of"], self.schema, self.user_id):
            noted = Noted(
                row["table_name"], row["child_schema"], row["child_table"], row["constraint_name"],
                frozenset(row["columns"]), frozenset(row["primary_key"]), row["links"], row["first_id"], row["last_id"],
            )  # fmt: skip
            if self.terms.wants(noted.table):
                await self._relink(noted)
        return Links(dict(+self.restored), dict(+self.left), dict(+self.skipped))

    async def _relink(self, noted: Noted) -> None:
        key = self._key(noted)
        if key is None:
            self.left[self._name(noted.child_schema, noted.child)] += noted.links
            return
        name = self._name(key.child.schema, key.child.table)
        if await self._may_set(key):
            before = self.restored[name] + self.skipped[name]
            await self._set(key, noted, name)
            done = self.restored[name] + self.skipped[name] - before
            self.left[name] += noted.links - done
        elif self.terms.skips_conflicts:
            self.skipped[name] += noted.links
        else:
            raise _not_permitted(key)

    def _key(self, noted: Noted) -> Reference | None:
        """Find the key as it is now: by its table, its columns and what it refers to; its name may be another."""
        names = [self.terms.renamed.get(noted.child, noted.child), noted.child]
        parent = self.terms.renamed.get(noted.table, noted.table)
        keys = [
            key
            for key in self.shapes.references.keys
            if key.child.schema == noted.child_schema
            and key.child.table in names
            and self.shapes.of(key.parent_oid).name == parent
            and {child for child, _ in key.columns} == noted.columns
            and set(key.primary_key) == noted.primary_key
        ]
        # Of several the table of the new name, and the key of the old one.
        keys.sort(key=lambda key: (names.index(key.child.table), key.name != noted.constraint))
        return keys[0] if keys else None

    async def _may_set(self, key: Reference) -> bool:
        columns = [child for child, _ in key.columns]
        return key.readable and await self.transaction.value(_SQL["may_set"], key.child.sql, columns)

    async def _set(self, key: Reference, noted: Noted, name: str) -> None:
        """Set them at once; where conflicts are skipped, by halves around what the database does not take."""
        query = _SQL["set_links"].sql(fragments=fragments(key))
        try:
            async with self.transaction.savepoint():
                self.restored[name] += await self.transaction.value(
                    query, self.schema, self.user_id, noted.table, noted.child_schema, noted.child, noted.constraint,
                    noted.first_id, noted.last_id,
                )  # fmt: skip
        except RowsHeld as held:
            if not self.terms.skips_conflicts:
                raise _not_taken(key, held) from held
            if noted.first_id == noted.last_id:
                self.skipped[name] += 1
                return
            middle = (noted.first_id + noted.last_id) // 2
            await self._set(key, replace(noted, last_id=middle), name)
            await self._set(key, replace(noted, first_id=middle + 1), name)

    def _name(self, schema: str, table: str) -> str:
        return table if schema == self.schema else f"{schema}.{table}"


_REMEDY: Final = "or leave such links as they are: --on-conflict skip."


def _not_permitted(key: Reference) -> RequestRefused:
    columns = ", ".join(quoted(child) for child, _ in key.columns)
    return RequestRefused(
        f"Rows of {key.child} referred to rows of the user by {key}, and our role may not set that again. Nothing was "
        f"put back. Grant it: GRANT SELECT, UPDATE ({columns}) ON {key.child.sql} TO ..., {_REMEDY}"
    )


def _not_taken(key: Reference, held: RowsHeld) -> RequestRefused:
    what = f"the constraint {held.constraint}" if held.constraint else str(held).removesuffix(".")
    return RequestRefused(
        f"A row of {key.child} cannot refer again to a row that is to be put back, by {key}: {what}. Nothing was put "
        f"back. Take away what stands in the way, {_REMEDY}"
    )
