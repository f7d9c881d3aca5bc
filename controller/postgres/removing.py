"""Users removed: all rows of a user from all tables, or none; archived first, and never without a proof.

Decides whether a proof still holds at the DELETE, which form of it a table permits, and what becomes of a user
whom the database does not let go: he is left whole, the others go on. Used by `runs` and `inbox`, inside of
their transactions and under the users' locks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from controller.postgres.creating import byte_order
from controller.postgres.failures import RowsHeld
from controller.postgres.queries import load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

    from controller.core.ports import Clock
    from controller.core.proofs import Proof
    from controller.core.users import UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shape, Shapes

T = TypeVar("T")

_SQL: Final = load("changing")
_TARGETS: Final = load("targets")
ORPHANED: Final = "orphaned"
DELETED: Final = "deleted"
DUPLICATE: Final = "duplicate"
"""Reasons in the archive and on tombstones: found by a run, told by an event, a surplus profile row."""


class ProofExpired(Exception):
    """A proof grew too old between the locks and the DELETE; the transaction rolls back."""


class RowsMoved(Exception):
    """A row is not where the run's scan saw it; the transaction rolls back and searches by user id."""


@dataclass(frozen=True, slots=True)
class Removing:
    """What removals of one run, or of one event, have in common.

    `by_place`: tables without an index whose orphans' rows the run has looked up by their place.
    """

    schema: str
    shapes: Shapes
    clock: Clock
    reason: str
    run_id: UUID | None = None
    by_place: bool = False

    async def remove(self, transaction: Transaction, proofs: Sequence[Proof]) -> tuple[set[UserId], int]:
        """Remove the users whose proofs hold; returns them, and how many rows went.

        Raises:
            ProofExpired, RowsMoved: start again, in a new transaction.
            RowsHeld: the database keeps some row of some of these users.
        """
        pinned = await transaction.value(_TARGETS["pinned_instance"], self.schema)
        holding = [proof for proof in proofs if proof.instance_id == pinned and self._holds(proof)]
        users = byte_order([proof.user_id for proof in holding])
        if not users:
            return set(), 0
        await transaction.change(_SQL["bury"], self.schema, users, self.reason)
        rows = 0
        for shape in self.shapes.removal_order:
            # Right before each DELETE: a lock may have been waited for since.
            if not all(map(self._holds, holding)):
                raise ProofExpired
            rows += await self._remove_rows(transaction, shape, users)
        await self._require_gone(transaction, users)
        return set(users), rows

    def _holds(self, proof: Proof) -> bool:
        return proof.holds(self.clock.elapsed())

    async def _remove_rows(self, transaction: Transaction, shape: Shape, users: list[UserId]) -> int:
        arguments = (self.schema, shape.name, users, self.reason, self.run_id)
        if not self._goes_by_place(shape):
            return await transaction.change(shape.sql(_SQL["remove_rows"]), *arguments)
        expected = await transaction.value(_SQL["count_places"], self.run_id, shape.name, users)
        removed = await transaction.change(shape.sql(_SQL["remove_rows_by_place"]), *arguments)
        if removed != expected:
            raise RowsMoved
        return removed

    async def _require_gone(self, transaction: Transaction, users: list[UserId]) -> None:
        """A trigger can swallow a DELETE without an error; half a user must not be committed for that."""
        for shape in self.shapes.tables:
            # By place the count has shown it, and another scan of the table would cost what the places save.
            if not self._goes_by_place(shape) and await transaction.value(shape.sql(_SQL["rows_remain"]), users):
                message = f"Rows of {shape.schema}.{shape.name} stay where they are: a trigger prevents their deletion."
                raise RowsHeld(message)

    def _goes_by_place(self, shape: Shape) -> bool:
        return self.by_place and goes_by_place(shape)


def goes_by_place(shape: Shape) -> bool:
    """Whether rows of the table are better found by their place."""
    return not shape.indexed


async def collect_places(transaction: Transaction, run_id: UUID, shape: Shape) -> None:
    """Note where the rows of the run's orphans lie: one scan of the table."""
    await transaction.change(shape.sql(_SQL["collect_places"]), run_id, shape.name)


async def all_orphaned(transaction: Transaction, run_id: UUID, users: Sequence[UserId]) -> bool:
    """Whether the run's observation found all of these users orphaned, so that their places were noted."""
    wanted = set(users)
    rows = await transaction.rows(_SQL["only_orphaned"], run_id, list(wanted))
    return len(rows) == len(wanted)


async def reduce_duplicates(transaction: Transaction, profile: Shape, users: Sequence[UserId], run_id: UUID) -> int:
    """Archive and delete all but the first profile row of each user; returns rows. The users' locks are held."""
    await transaction.value(profile.sql(_SQL["lock_rows"]), byte_order(users))
    query = profile.sql(_SQL["reduce_duplicates"], ranking=profile.ranking())
    return await transaction.change(query, profile.schema, profile.name, byte_order(users), DUPLICATE, run_id)


async def by_halves(
    users: Sequence[T],
    attempt: Callable[[Sequence[T]], Awaitable[None]],
    give_up: Callable[[T, RowsHeld], None],
) -> None:
    """Attempt all at once, and by halves where the database holds somebody, until it is clear who it is."""
    try:
        await attempt(users)
    except RowsHeld as held:
        if len(users) == 1:
            give_up(users[0], held)
            return
        middle = len(users) // 2
        await by_halves(users[:middle], attempt, give_up)
        await by_halves(users[middle:], attempt, give_up)
