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
from controller.postgres.queries import load, quoted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from uuid import UUID

    from controller.core.ports import Clock
    from controller.core.proofs import Proof
    from controller.core.users import UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.references import Reference
    from controller.postgres.shapes import Shape, Shapes

T = TypeVar("T")

_SQL: Final = load("changing")
_TARGETS: Final = load("targets")
ORPHANED: Final = "orphaned"
DELETED: Final = "deleted"
DUPLICATE: Final = "duplicate"
"""Reasons in the archive and on tombstones: found by a run, told by an event, a surplus profile row."""

DEFERRED: Final = "SET CONSTRAINTS ALL DEFERRED"
"""For this transaction: checks of NO ACTION that can wait do; a cascade and RESTRICT never wait."""
_LOCK_AND_REACH: Final = {
    False: ("lock_parents", "cascade_reaches"),
    True: ("lock_parents_by_place", "cascade_reaches_by_place"),
}


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
            RowsHeld: the database keeps some row of some of these users, or a DELETE would reach further than theirs.
        """
        for sentence in self.shapes.references.unlisted_cascades:
            raise RowsHeld(sentence)
        pinned = await transaction.value(_TARGETS["pinned_instance"], self.schema)
        holding = [proof for proof in proofs if proof.instance_id == pinned and self._holds(proof)]
        users = byte_order([proof.user_id for proof in holding])
        if not users:
            return set(), 0
        await transaction.change(_SQL["bury"], self.schema, users, self.reason)
        if self.shapes.ordering.defers:
            await transaction.execute(DEFERRED)
        rows = 0
        for shape in self.shapes.removal_order:
            locked = await self._lock_parents(transaction, shape, users)
            # Right before each DELETE: a lock may have been waited for since.
            if not all(map(self._holds, holding)):
                raise ProofExpired
            removed = await self._remove_rows(transaction, shape, users)
            if locked is not None and removed > locked:
                # Nobody has looked at what refers to a row that came after the look.
                message = f"A row came to {shape.schema}.{shape.name} meanwhile, of a user who was being removed."
                raise RowsHeld(message)
            rows += removed
        await self._require_gone(transaction, users)
        return set(users), rows

    def _holds(self, proof: Proof) -> bool:
        return proof.holds(self.clock.elapsed())

    async def _lock_parents(self, transaction: Transaction, shape: Shape, users: list[UserId]) -> int | None:
        """Make sure that deleting these users' rows of the table takes along no other row; returns their number.

        The race: somebody inserts a row that refers to one of ours after the look and before the DELETE, which
        would then take it along. So our rows are locked first, FOR UPDATE: a referring row of a transaction under
        way holds its parent FOR KEY SHARE, we wait for it and see it (each statement of READ COMMITTED looks anew);
        one that comes later waits for our commit, and is refused as its parent is gone. None: nothing cascades.
        """
        keys = self.shapes.references.cascading_to(shape.oid)
        if not keys:
            return None
        by_place = self._goes_by_place(shape)
        arguments = (self.run_id, shape.name, users) if by_place else (users,)
        lock, reach = _LOCK_AND_REACH[by_place]
        locked: int = await transaction.value(shape.sql(_SQL[lock]), *arguments)
        for key in keys:
            child_user_id = quoted(self.shapes.of(key.child_oid).table.user_id_column)
            query = shape.sql(_SQL[reach], child_user_id=child_user_id, **key.fragments)
            self._judge(key, own=await transaction.value(query, *arguments))
        return locked

    def _judge(self, key: Reference, *, own: bool | None) -> None:
        """Refuse a cascade to somebody else's rows, and one to rows of these users that are not archived yet."""
        if own is None or (own and key.to_itself):
            return
        if not own:
            message = (
                f"Rows that are not this user's would go along, by {key}. Delete them or point them elsewhere, or "
                "change the key; then the next attempt removes the user."
            )
            raise RowsHeld(message)
        if self.by_place:
            raise RowsMoved
        message = f"Rows of {key.child} would go along before they are archived, by {key}, which is part of a cycle."
        raise RowsHeld(message)

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
        # Rows that refer to others of the same table: one written since would go along with them, unarchived.
        return self.by_place and goes_by_place(shape) and not self.shapes.references.cascades_to_itself(shape.oid)


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


async def reduce_duplicates(
    transaction: Transaction, shapes: Shapes, users: Sequence[UserId], run_id: UUID
) -> tuple[int, Mapping[Reference, set[str]]]:
    """Archive and delete all but the first profile row of each user; the users' locks are held.

    Returns how many rows went, and by key the users who keep theirs, as a row that refers to a surplus one would
    be deleted or unlinked with it: these users live, and so does what they own.

    Raises:
        RowsHeld: the database keeps some row, or one came after the look.
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
    query = profile.sql(_SQL["reduce_duplicates"], ranking=profile.ranking())
    removed = await transaction.change(query, profile.schema, profile.name, going, DUPLICATE, run_id)
    if keys and removed > sum(surplus.get(user, 0) for user in going):
        message = f"A row came to {profile.schema}.{profile.name} while surplus ones were removed."
        raise RowsHeld(message)
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
