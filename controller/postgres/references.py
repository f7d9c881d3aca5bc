"""The foreign keys that point at the listed tables, and what a DELETE would set off through them.

Decides which keys take rows along that nobody counts or archives, in which order tables are emptied, and where
a key stands in the way of a user's removal. Never deletes. Used by `shapes`, `inspecting`, `removing` and `linking`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Final

from controller.postgres.queries import load, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from controller.postgres.connections import Transaction

_SQL: Final = load("targets")


class OnDelete(Enum):
    """What happens to a row when the row that it refers to is deleted; the values are the catalogue's."""

    NO_ACTION = "a"
    RESTRICT = "r"
    CASCADE = "c"
    SET_NULL = "n"
    SET_DEFAULT = "d"

    @property
    def words(self) -> str:
        """The action as SQL writes it."""
        return f"ON DELETE {self.name.replace('_', ' ')}"


TOUCHING: Final = frozenset({OnDelete.CASCADE, OnDelete.SET_NULL, OnDelete.SET_DEFAULT})
"""Actions that change or delete the row that refers, without an error."""
UNLINKING: Final = frozenset({OnDelete.SET_NULL, OnDelete.SET_DEFAULT})
"""Actions that leave the row that refers, and take the reference from it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A table as the key names it: the listed one, or a part of it (a partition, an heir)."""

    schema: str
    table: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.schema}.{self.table}"

    @property
    def sql(self) -> str:
        """Quoted, for a statement."""
        return f"{quoted(self.schema)}.{quoted(self.table)}"


@dataclass(frozen=True, slots=True)
class Reference:
    """One foreign key from rows of `child` to rows of `parent`.

    - `parent_oid`: of the listed table; `child_oid` too where the child is `listed`, else its own.
    - `columns`: pairs of a child's column and the parent's; `matching`: their comparison as SQL, by the
      operators of the key, of `usersync_child` and `usersync_parent`; `types`: of the child's columns.
    - `readable`: our role sees all rows of the child.
    - `primary_key`: its columns in the child, if it has one; `locating`: comparison as SQL of `usersync_child` and the
      `primary_key` of `usersync_link`.
    """

    name: str
    child_oid: int
    parent_oid: int
    child: Place
    parent: Place
    listed: bool
    columns: tuple[tuple[str, str], ...]
    matching: str
    on_delete: OnDelete
    deferrable: bool
    readable: bool
    types: tuple[str, ...] = ()
    primary_key: tuple[str, ...] = ()
    locating: str = ""

    @property
    def to_itself(self) -> bool:
        """Whether it joins rows of one listed table."""
        return self.child_oid == self.parent_oid

    @property
    def cascades(self) -> bool:
        """Whether rows that refer go along with the row that they refer to."""
        return self.on_delete is OnDelete.CASCADE

    @property
    def unlinks(self) -> bool:
        """Whether rows that refer stay, without what referred."""
        return self.on_delete in UNLINKING

    @property
    def notable(self) -> bool:
        """Whether what refers can be noted, and found again after the deletion."""
        return self.readable and bool(self.primary_key) and not self._moves_primary_key

    @property
    def _moves_primary_key(self) -> bool:
        columns = {child for child, _ in self.columns}
        return self.on_delete is OnDelete.SET_DEFAULT and not columns.isdisjoint(self.primary_key)

    @property
    def why_unnoted(self) -> str:
        """Say why what refers cannot be noted, and what to do."""
        if not self.readable:
            return f"our role does not see all rows of {self.child}: GRANT SELECT ON {self.child.sql} TO ..."
        if not self.primary_key:
            return f"{self.child} has no primary key by which to find its rows again: add one"
        return (
            f"the key has columns of the primary key of {self.child}, which becomes another one: change one of the two"
        )

    @property
    def fragments(self) -> dict[str, str]:
        """What a statement about rows that refer by this key is put together from."""
        return {"child": self.child.sql, "parent": self.parent.sql, "matching": self.matching}

    def __str__(self) -> str:
        """For people: the key, its tables, its action."""
        return f"the foreign key {self.name} of {self.child} to {self.parent} ({self.on_delete.words})"


@dataclass(frozen=True, slots=True)
class References:
    """The keys that point at listed tables."""

    keys: tuple[Reference, ...] = ()

    @property
    def unlisted_cascades(self) -> tuple[str, ...]:
        """Say of each cascade into a table that is not listed what it would do, and what to do."""
        return tuple(_of_cascade(key) for key in self.keys if key.cascades and not key.listed)

    def cascading_to(self, parent_oid: int) -> tuple[Reference, ...]:
        """Return the keys from listed tables by which a DELETE in the listed table `parent_oid` goes on."""
        return tuple(key for key in self.keys if key.listed and key.cascades and key.parent_oid == parent_oid)

    def unlinking(self, parent_oid: int) -> tuple[Reference, ...]:
        """Return the keys of all tables by which a DELETE in `parent_oid` takes references that can be noted."""
        return tuple(key for key in self.keys if key.unlinks and key.notable and key.parent_oid == parent_oid)

    @property
    def unnoted_links(self) -> tuple[str, ...]:
        """Say of each key that takes references which cannot be noted why, and what to do."""
        return tuple(
            f"By {key} rows lose what refers, and {key.why_unnoted}."
            for key in self.keys
            if key.unlinks and not key.notable
        )

    def touching(self, parent_oid: int) -> tuple[Reference, ...]:
        """Return the keys of all tables by which a DELETE in `parent_oid` silently changes or deletes rows."""
        return tuple(key for key in self.keys if key.on_delete in TOUCHING and key.parent_oid == parent_oid)

    def cascades_to_itself(self, oid: int) -> bool:
        """Whether a DELETE in the listed table goes on within it."""
        return any(key.to_itself for key in self.cascading_to(oid))

    def order(self, oids: Sequence[int]) -> Ordering:
        """Order the listed tables so that a row goes before the rows that it refers to.

        Where the keys make a cycle, those stand back that harm least: first keys whose check can wait for the
        end of the transaction, then those that only unlink a row. A cycle of the others has no order: that of
        `oids` stands, and the server, or our own look at the cascades, has the last word.
        """
        edges = [key for key in self.keys if key.listed and not key.to_itself]
        waits = [key for key in edges if key.on_delete is OnDelete.NO_ACTION and key.deferrable]
        unlinks = [key for key in edges if key.unlinks]
        obeyed = edges
        for ignored in ([], waits, [*waits, *unlinks]):
            obeyed = [key for key in edges if key not in ignored]
            order = _children_first(oids, obeyed)
            if order is not None:
                return Ordering(order, defers=bool(ignored))
        return Ordering(tuple(oids), defers=True, cycle=_cycle(oids, obeyed))


@dataclass(frozen=True, slots=True)
class Ordering:
    """In which order tables are emptied.

    `defers`: the checks that can wait have to wait for the end of the transaction; `cycle`: the keys among
    which there is no order, of which one would have to be deferrable.
    """

    oids: tuple[int, ...]
    defers: bool = False
    cycle: tuple[Reference, ...] = ()


async def read_references(transaction: Transaction, oids: Sequence[int]) -> References:
    """Read from the catalogue the keys that point at the tables `oids`, from wherever."""
    return References(tuple(_reference(row) for row in await transaction.rows(_SQL["references_to"], oids)))


def _reference(row: Any) -> Reference:
    return Reference(
        name=row["name"],
        child_oid=row["child_oid"],
        parent_oid=row["parent_oid"],
        child=Place(row["child_schema"], row["child"]),
        parent=Place(row["parent_schema"], row["parent"]),
        listed=row["listed"],
        columns=tuple(zip(row["child_columns"], row["parent_columns"], strict=True)),
        matching=row["matching"],
        on_delete=OnDelete(row["on_delete"]),
        deferrable=row["deferrable"],
        readable=row["readable"],
        types=tuple(row["types"]),
        primary_key=tuple(row["primary_key"]),
        locating=row["locating"],
    )


def _children_first(oids: Sequence[int], keys: Iterable[Reference]) -> tuple[int, ...] | None:
    children: dict[int, set[int]] = {oid: set() for oid in oids}
    for key in keys:
        children[key.parent_oid].add(key.child_oid)
    try:
        return tuple(TopologicalSorter(children).static_order())
    except CycleError:
        return None


def _cycle(oids: Sequence[int], keys: Sequence[Reference]) -> tuple[Reference, ...]:
    """Return the keys of one cycle: what it does not need falls away."""
    on_cycle = list(keys)
    for key in keys:
        without = [other for other in on_cycle if other is not key]
        if _children_first(oids, without) is None:
            on_cycle = without
    return tuple(on_cycle)


def _of_cascade(key: Reference) -> str:
    return (
        f"The foreign key {key.name} deletes rows of {key.child} along with those of {key.parent} (ON DELETE CASCADE), "
        f"and {key.child} is not in spec.tables: they would be neither counted nor archived, so nobody is removed. "
        f"List {key.child.table} in spec.tables, with the column of its users; if it has none, change the key to "
        "ON DELETE NO ACTION."
    )
