"""Users removed: all rows of a user from all tables, or none; archived first, and never without a proof.

Decides whether a proof still holds at the DELETE, which form of it a table permits, and what becomes of a user
whom the database does not let go: he is left whole, the others go on. Used by `runs` and `inbox`, inside of
their transactions and under the users' locks.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from controller.core.targets import DeletionPolicy
from controller.postgres.counting import Bounds, Counting
from controller.postgres.creating import buried, byte_order
from controller.postgres.failures import RowsHeld
from controller.postgres.linking import Linking, erase_links, linking
from controller.postgres.queries import load, quoted
from controller.postgres.receipting import Occasion, issue

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from controller.core.ports import Clock
    from controller.core.proofs import Proof
    from controller.core.removals import RemovalTerms
    from controller.core.users import UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.references import Reference
    from controller.postgres.shapes import Shape, Shapes

T = TypeVar("T")

_SQL: Final = load("changing")
_TARGETS: Final = load("targets")
_INBOX: Final = load("inbox")
ORPHANED: Final = "orphaned"
DELETED: Final = "deleted"
SWEPT: Final = "swept"
DUPLICATE: Final = "duplicate"
REQUESTED: Final = "requested"
"""Reasons in the archive and on tombstones: found by a run, told by an event, written by a token that was still
valid, a surplus profile row, asked for by a person."""
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


class UsersLarge(Exception):
    """Some of the users have too many rows for one transaction, which rolls back; `purging` takes them over."""

    def __init__(self, users: set[str]) -> None:
        """`users`: those of them."""
        super().__init__(f"{len(users)} users have too many rows for one transaction")
        self.users = users


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
    bounds: Bounds = field(default_factory=Bounds)

    async def remove(self, transaction: Transaction, proofs: Sequence[Proof]) -> Rows:
        """Remove the users whose proofs hold; returns them, and the rows that went.

        Raises:
            ProofExpired, RowsMoved: start again, in a new transaction.
            UsersLarge: some of them have too many rows for one transaction.
            RowsTooMany: all of them together have.
            LimitReached: these users would pass the limits.
            TablesChanged: begin again, with a new description.
            RowsHeld: the database keeps some row of some of these users, or a DELETE would reach further than theirs.
        """
        holding = await self.holding(transaction, proofs)
        users = byte_order([proof.user_id for proof in holding])
        rows: Rows = {user: {} for user in users}
        if not users:
            return rows
        if self.terms.policy is DeletionPolicy.RETAIN and (asked := await self._asked_before(transaction, users)):
            # What came back of who has been erased on request is no more to be kept than what there was.
            gone = await self._erasing().remove(transaction, [each for each in holding if each.user_id in asked])
            return gone | await self.remove(transaction, [each for each in holding if each.user_id not in asked])
        retains, unchanged = self.terms.policy is DeletionPolicy.RETAIN, set[str]()
        if retains:
            await self._note_kept_rows(transaction, rows)
            # Whose rows stay, and who was buried before, is as he was: no second receipt, and nothing of the limits.
            unchanged = await buried(transaction, self.schema, users)
        elif large := await self.large_among(transaction, users):
            raise UsersLarge(large)
        await transaction.change(_SQL["bury"], self.schema, users, self.reason)
        if not retains:
            await self._remove_all_rows(transaction, holding, rows)
        erased = await self._erase_who_asked(transaction, users)
        for act, of_act in ((ACTS[self.terms.policy], rows.keys() - erased), (ACTS[DeletionPolicy.ERASE], erased)):
            occasion = Occasion(act, self.reason, self.requested_by, self.run_id)
            changed = {user: tables for user, tables in rows.items() if user in of_act and user not in unchanged}
            if changed:
                await issue(transaction, self.schema, changed, occasion, self.terms)
        await transaction.change(_INBOX["end_claims_of"], self.schema, users, self.reason == REQUESTED)
        if not retains:
            await self.shapes.require_unchanged(transaction)
        return rows

    async def _note_kept_rows(self, transaction: Transaction, rows: Rows) -> None:
        """Name the tables whose rows stay, with none removed: a receipt that names a table counts as a user's."""
        for shape in self.shapes.tables:
            for owner in await transaction.rows(shape.sql(_SQL["owners_among"]), list(rows)):
                rows[owner["user_id"]][shape.name] = 0

    async def holding(self, transaction: Transaction, proofs: Sequence[Proof]) -> list[Proof]:
        """Return the proofs that are of the pinned instance, and young enough."""
        pinned = await transaction.value(_TARGETS["pinned_instance"], self.schema)
        return [proof for proof in proofs if proof.instance_id == pinned and self.holds(proof)]

    def holds(self, proof: Proof) -> bool:
        """Whether the proof is young enough; asked right before each DELETE."""
        return proof.holds(self.clock.elapsed())

    async def large_among(self, transaction: Transaction, users: Sequence[str]) -> set[str]:
        """Return those of the users who cannot leave in one transaction."""
        places_of = self.run_id if self.by_place else None
        return await Counting(self.schema, self.shapes, self.bounds, places_of).large_among(transaction, list(users))

    async def _remove_all_rows(self, transaction: Transaction, holding: Sequence[Proof], rows: Rows) -> None:
        self.refuse_unlisted_cascades()
        users = list(rows)
        await transaction.execute(TEXT_FORM)
        if self.shapes.ordering.defers:
            await transaction.execute(DEFERRED)
        removed_at = await transaction.value(_SQL["time"])
        for shape in self.shapes.removal_order:
            for user, count in (await self.empty(transaction, shape, holding, removed_at)).items():
                rows[user][shape.name] = count
        if self.terms.policy is DeletionPolicy.ERASE:
            await self._erase_archived(transaction, users)
        await self._require_gone(transaction, users)

    async def _erase_who_asked(self, transaction: Transaction, users: list[UserId]) -> set[str]:
        """Keep nothing of rows that came back of users who were erased on request before; returns those users."""
        if self.terms.policy is not DeletionPolicy.ARCHIVE:
            return set()
        if asked := await self._asked_before(transaction, users):
            await self._erase_archived(transaction, list(asked))
        return asked

    async def _asked_before(self, transaction: Transaction, users: list[UserId]) -> set[str]:
        """Return those of the users who have been erased on request."""
        return {row["user_id"] for row in await transaction.rows(_SQL["erased_on_request"], self.schema, users)}

    def _erasing(self) -> Removing:
        """Return the same for good; each user at once, as nobody goes on with batches where rows are to stay."""
        terms = replace(self.terms, policy=DeletionPolicy.ERASE)
        return replace(self, terms=terms, bounds=replace(self.bounds, rows=sys.maxsize // 2))

    async def _erase_archived(self, transaction: Transaction, users: list[str]) -> None:
        await transaction.change(_SQL["erase_archived"], self.schema, users)
        await erase_links(transaction, self.schema, users)

    def refuse_unlisted_cascades(self) -> None:
        """Let nobody go while rows would go along that nobody counts.

        Raises:
            RowsHeld: they would.
        """
        for sentence in self.shapes.references.unlisted_cascades:
            raise RowsHeld(sentence)

    async def empty(
        self, transaction: Transaction, shape: Shape, holding: Sequence[Proof], removed_at: datetime
    ) -> dict[str, int]:
        """Archive and delete all rows of the proved users in one table; returns how many of whom.

        Raises:
            ProofExpired, RowsMoved: start again, in a new transaction.
            RowsHeld: the database keeps some row of some of them, or a DELETE would reach further than theirs.
        """
        users: list[str] = [*byte_order([proof.user_id for proof in holding])]
        links = self._linking(shape, removed_at)
        locked = await self._lock_parents(transaction, shape, links, users)
        noted = await links.note(transaction, users, self.run_id if self._goes_by_place(shape) else None)
        # Right before each DELETE: a lock may have been waited for since.
        if not all(map(self.holds, holding)):
            raise ProofExpired
        removed = await self._remove_rows(transaction, shape, users, removed_at)
        if locked is not None and sum(removed.values()) > locked:
            # Nobody has looked at what refers to a row that came after the look.
            message = f"A row came to {shape.schema}.{shape.name} meanwhile, of a user who was being removed."
            raise RowsHeld(message)
        await links.note_emptied(transaction, noted)
        return removed

    def _linking(self, shape: Shape, removed_at: datetime) -> Linking:
        if self.terms.policy is not DeletionPolicy.ARCHIVE:
            return Linking(shape, (), removed_at, self.terms.retention)
        return linking(self.shapes, shape, removed_at, self.terms.retention)

    async def _lock_parents(
        self, transaction: Transaction, shape: Shape, links: Linking, users: list[str]
    ) -> int | None:
        """Make sure that deleting these users' rows of the table takes along no other row; returns their number.

        The race: somebody inserts a row that refers to one of ours after the look and before the DELETE, which
        would then take it along, or unlink it unnoted. So our rows are locked first, FOR UPDATE: a referring row of
        a transaction under way holds its parent FOR KEY SHARE, we wait for it and see it (each statement of READ
        COMMITTED looks anew); one that comes later waits for our commit, and is refused as its parent is gone.
        None: there is nothing to look for.
        """
        keys = self.shapes.references.cascading_to(shape.oid)
        if not keys and not links.keys:
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
        # Rows that refer to others of the same table: one written since would go along with them, unarchived.
        return self.by_place and goes_by_place(shape) and not self.shapes.references.cascades_to_itself(shape.oid)


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
