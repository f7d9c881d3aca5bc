"""How many rows users have, as far as it matters: whether they can leave in one transaction.

Decides who is too large for that. Never reads more rows of a user than it takes to know. Used by `removing`, in
its transactions and under the users' locks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from controller.postgres.queries import load

if TYPE_CHECKING:
    from uuid import UUID

    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shape, Shapes

_SQL: Final = load("purging")


class RowsTooMany(Exception):
    """These users have too many rows for one transaction, which rolls back; by halves they have fewer."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one transaction may remove.

    - `rows`: of one user, from all tables together; who has more leaves in batches.
    - `batch`: rows of one table in each of those.
    - `slice`: how long batches follow each other before Clerk is asked again; well within a claim's lease, and no
      longer than a service takes to end.
    - `together`: of all users who leave in one transaction, where there are several.
    """

    rows: int = 50_000
    batch: int = 10_000
    slice: timedelta = timedelta(seconds=8)
    together: int = 100_000


@dataclass(frozen=True, slots=True)
class Counting:
    """Whose rows are counted. `places_of`: the run that noted the places of these users' rows, if one has."""

    schema: str
    shapes: Shapes
    bounds: Bounds
    places_of: UUID | None = None

    async def large_among(self, transaction: Transaction, users: list[str]) -> set[str]:
        """Return those who have more rows than the bound, or whose removal in batches has begun.

        Nobody is large where the foreign keys make a cycle: its tables can be emptied only in one transaction.

        Raises:
            RowsTooMany: nobody has too many, and all together have.
        """
        begun = await transaction.rows(_SQL["unfinished_among"], self.schema, users)
        if self.shapes.ordering.defers:
            return {row["user_id"] for row in begun}
        rows: Counter[str] = Counter()
        for shape in self.shapes.tables:
            rows.update(await self._count(transaction, shape, users))
        large = {row["user_id"] for row in begun} | {user for user in rows if rows[user] > self.bounds.rows}
        if not large and len(users) > 1 and rows.total() > self.bounds.together:
            raise RowsTooMany
        return large

    async def _count(self, transaction: Transaction, shape: Shape, users: list[str]) -> dict[str, int]:
        if shape.indexed:
            found = await transaction.rows(shape.sql(_SQL["count_rows"]), users, self.bounds.rows + 1)
        elif self.places_of is not None:
            found = await transaction.rows(_SQL["count_places"], self.places_of, shape.name, users)
        else:
            found = await transaction.rows(shape.sql(_SQL["count_rows_by_scan"]), users)
        return {row["user_id"]: row["rows"] for row in found}
