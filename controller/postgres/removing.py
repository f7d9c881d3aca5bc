"""Users removed: all rows of a user from all tables, or none; archived first, and never without a proof.

Decides whether a proof still holds at the DELETE, which form of it a table permits, and what becomes of a user
whom the database does not let go: he is left whole, the others go on. Used by `runs` and `inbox`, inside of
their transactions and under the users' locks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from controller.core.targets import DeletionPolicy
from controller.postgres.creating import byte_order
from controller.postgres.failures import RowsHeld
from controller.postgres.queries import load
from controller.postgres.receipting import Occasion, issue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from controller.core.ports import Clock
    from controller.core.proofs import Proof
    from controller.core.removals import RemovalTerms
    from controller.core.users import UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shape, Shapes

T = TypeVar("T")

_SQL: Final = load("changing")
_TARGETS: Final = load("targets")
_INBOX: Final = load("inbox")
ORPHANED: Final = "orphaned"
DELETED: Final = "deleted"
SWEPT: Final = "swept"
DUPLICATE: Final = "duplicate"
"""Reasons in the archive and on tombstones: found by a run, told by an event, written by a token that was still
valid, a surplus profile row."""
# What a value is written as must not depend on settings of role or database: it is read again to be put back.
TEXT_FORM: Final = (
    "SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL timezone = 'UTC'; "
    "SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'"
)
ACTS: Final = {
    DeletionPolicy.ARCHIVE: "archived",
    DeletionPolicy.ERASE: "erased",
    DeletionPolicy.RETAIN: "retained",
}
"""Acts on receipts."""

Rows = dict[str, dict[str, int]]
"""How many rows of which user went from which table."""


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
    terms: RemovalTerms
    reason: str
    requested_by: str
    run_id: UUID | None = None
    by_place: bool = False

    async def remove(self, transaction: Transaction, proofs: Sequence[Proof]) -> Rows:
        """Remove the users whose proofs hold; returns them, and the rows that went.

        Raises:
            ProofExpired, RowsMoved: start again, in a new transaction.
            LimitReached: these users would pass the limits.
            RowsHeld: the database keeps some row of some of these users.
        """
        pinned = await transaction.value(_TARGETS["pinned_instance"], self.schema)
        holding = [proof for proof in proofs if proof.instance_id == pinned and self._holds(proof)]
        users = byte_order([proof.user_id for proof in holding])
        rows: Rows = {user: {} for user in users}
        if not users:
            return rows
        await transaction.change(_SQL["bury"], self.schema, users, self.reason)
        if self.terms.policy is not DeletionPolicy.RETAIN:
            await self._remove_all_rows(transaction, holding, rows)
        occasion = Occasion(ACTS[self.terms.policy], self.reason, self.requested_by, self.run_id)
        await issue(transaction, self.schema, rows, occasion, self.terms)
        await transaction.change(_INBOX["end_claims_of"], self.schema, users)
        return rows

    async def _remove_all_rows(self, transaction: Transaction, holding: Sequence[Proof], rows: Rows) -> None:
        users = list(rows)
        await transaction.execute(TEXT_FORM)
        removed_at = await transaction.value(_SQL["time"])
        for shape in self.shapes.removal_order:
            # Right before each DELETE: a lock may have been waited for since.
            if not all(map(self._holds, holding)):
                raise ProofExpired
            for user, count in (await self._remove_rows(transaction, shape, users, removed_at)).items():
                rows[user][shape.name] = count
        if self.terms.policy is DeletionPolicy.ERASE:
            await transaction.change(_SQL["erase_archived"], self.schema, users)
        await self._require_gone(transaction, users)

    def _holds(self, proof: Proof) -> bool:
        return proof.holds(self.clock.elapsed())

    async def _remove_rows(
        self, transaction: Transaction, shape: Shape, users: list[str], removed_at: datetime
    ) -> dict[str, int]:
        by_place = self._goes_by_place(shape)
        suffix = "_by_place" if by_place else ""
        expected = await transaction.value(_SQL["count_places"], self.run_id, shape.name, users) if by_place else None
        arguments: tuple[object, ...]
        if self.terms.policy is DeletionPolicy.ERASE:
            query, arguments = "erase_rows", (users, shape.name, self.run_id) if by_place else (users,)
        else:
            query, arguments = "archive_rows", await self._archiving(transaction, shape, users, removed_at)
        found = await transaction.rows(shape.sql(_SQL[query + suffix], **shape.content()), *arguments)
        removed = {row["user_id"]: row["rows"] for row in found}
        if expected is not None and sum(removed.values()) != expected:
            raise RowsMoved
        return removed

    async def _archiving(
        self, transaction: Transaction, shape: Shape, users: list[str], removed_at: datetime
    ) -> tuple[object, ...]:
        layout = await layout_of(transaction, shape)
        return (self.schema, shape.name, users, self.reason, self.run_id, layout, removed_at, self.terms.retention)

    async def _require_gone(self, transaction: Transaction, users: list[str]) -> None:
        """A trigger can swallow a DELETE without an error; half a user must not be committed for that."""
        for shape in self.shapes.tables:
            # By place the count has shown it, and another scan of the table would cost what the places save.
            if not self._goes_by_place(shape) and await transaction.value(shape.sql(_SQL["rows_remain"]), users):
                message = f"Rows of {shape.schema}.{shape.name} stay where they are: a trigger prevents their deletion."
                raise RowsHeld(message)

    def _goes_by_place(self, shape: Shape) -> bool:
        return self.by_place and goes_by_place(shape)


async def any_rows(transaction: Transaction, shapes: Shapes, users: Sequence[str]) -> bool:
    """Whether any of these users has a row in any table."""
    for shape in shapes.tables:
        if await transaction.value(shape.sql(_SQL["rows_remain"]), list(users)):
            return True
    return False


def count_rows(rows: Rows) -> int:
    """How many rows went, of all users and tables."""
    return sum(sum(tables.values()) for tables in rows.values())


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


async def layout_of(transaction: Transaction, shape: Shape) -> int:
    """Return the number of the table's present layout, which is kept for whoever puts its rows back."""
    await transaction.change(_SQL["add_layout"], shape.schema, shape.name, shape.layout)
    number: int = await transaction.value(_SQL["find_layout"], shape.schema, shape.name, shape.layout)
    return number


async def reduce_duplicates(
    transaction: Transaction, profile: Shape, users: Sequence[UserId], run_id: UUID, retention: timedelta
) -> int:
    """Archive and delete all but the first profile row of each user; returns rows. The users' locks are held."""
    await transaction.execute(TEXT_FORM)
    await transaction.value(profile.sql(_SQL["lock_rows"]), byte_order(users))
    query = profile.sql(_SQL["reduce_duplicates"], ranking=profile.ranking(), **profile.content())
    layout, now = await layout_of(transaction, profile), await transaction.value(_SQL["time"])
    return await transaction.change(
        query, profile.schema, profile.name, byte_order(users), DUPLICATE, run_id, layout, now, retention
    )


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
