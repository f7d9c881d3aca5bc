"""Users put back: all archived rows of a user, or none.

Decides where the rows go, in which order, and what a conflict with a row of today means; whether Clerk permits it
is `core.requests`'. It is one transaction under the run lock and the user's lock: no run is under way that had
marked him before. Used by `database`.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from controller.core.removals import RemovalTerms
from controller.core.requests import Restored
from controller.core.targets import DeletionPolicy
from controller.errors import RequestRefused
from controller.postgres.creating import lock_users
from controller.postgres.failures import RowsHeld
from controller.postgres.fitting import Fit, Portion, fit, not_read, unreadable, values_left
from controller.postgres.queries import load, quoted
from controller.postgres.receipting import Occasion, issue
from controller.postgres.relinking import Relinking
from controller.postgres.removing import REQUESTED, TEXT_FORM
from controller.postgres.shapes import describe

if TYPE_CHECKING:
    from controller.core.requests import RestoreTerms
    from controller.core.targets import Target
    from controller.core.users import UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shape, Shapes

_SQL: Final = load("restoring")
_CHANGING: Final = load("changing")
_PURGING: Final = load("purging")
RESTORED: Final = "restored"
"""The act on the receipts of who was put back."""
UNIQUE: Final = frozenset({"23505", "23P01"})
"""States of a row that another one excludes: a unique index, an exclusion constraint."""
REFERENCE: Final = "23503"
RETRACED: Final = ("forget_suspect", "forget_held_user")
"""Queries that let a user's absence begin anew."""


class Undone(Exception):
    """The end of a dry run: rolls everything back, and says what it was."""

    def __init__(self, restored: Restored) -> None:
        super().__init__("a dry run")
        self.restored = restored


@dataclass(slots=True)
class Restoring:
    """One user put back, inside of one transaction."""

    transaction: Transaction
    target: Target
    user_id: UserId
    terms: RestoreTerms
    rows: Counter[str] = field(default_factory=Counter, init=False)
    skipped: Counter[str] = field(default_factory=Counter, init=False)
    left: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    others: list[Portion] = field(default_factory=list, init=False)

    async def restore(self) -> Restored:
        """Put the rows back, lift the tombstone, and let nothing take him away again for what was before.

        Raises:
            RequestRefused: it cannot be done as a whole.
            Undone: it was a dry run.
        """
        transaction, schema = self.transaction, self.target.schema
        await lock_users(transaction, schema, [self.user_id])
        # A removal in batches ends where it is; whoever is at it waits for our lock, and finds that.
        await transaction.change(_PURGING["end_unfinished"], schema, self.user_id)
        await transaction.execute(TEXT_FORM)
        shapes = await describe(transaction, self.target)
        portions = await self._portions(shapes)
        await self._defer_references(shapes)
        for portion, shape in portions:
            await self._put_back(await self._fit(portion, shape))
        await self._check_references()
        links = await Relinking(transaction, self.user_id, self.terms, schema, shapes).relink()
        if not portions and not links.restored:
            raise await self._nothing_there()
        lifted = await transaction.change(_SQL["lift_tombstones"], schema, self.user_id, self.terms.requested_by)
        await transaction.change(_SQL["end_claims"], schema, self.user_id, self.terms.lives)
        for query in ("renew_claims", *RETRACED):
            await transaction.change(_SQL[query], schema, self.user_id)
        occasion = Occasion(RESTORED, REQUESTED, self.terms.requested_by)
        await issue(transaction, schema, {self.user_id: dict(self.rows)}, occasion, own_request())
        restored = Restored(dict(self.rows), dict(self.skipped), self.left, lifted > 0, links)
        if self.terms.dry_run:
            raise Undone(restored)
        return restored

    async def _portions(self, shapes: Shapes) -> list[tuple[Portion, Shape]]:
        """Return what is to be put back, parents first, and of one table what was removed first."""
        rows = await self.transaction.rows(_SQL["portions"], self.target.schema, self.user_id, self.terms.duplicates)
        portions = [
            Portion(
                self.target.schema, self.user_id, row["table_name"], row["layout_id"], row["duplicate"],
                row["removed_at"], row["rows"], row["first_id"], row["last_id"], tuple(json.loads(row["columns"])),
            )
            for row in rows
        ]  # fmt: skip
        wanted = [portion for portion in portions if self.terms.wants(portion.table)]
        self.others = [portion for portion in portions if portion not in wanted]
        order = {shape.oid: number for number, shape in enumerate(reversed(shapes.removal_order))}
        placed = [(portion, self._shape(portion.table, shapes)) for portion in wanted]
        return sorted(placed, key=lambda pair: order[pair[1].oid])

    def _shape(self, table: str, shapes: Shapes) -> Shape:
        schema, name = self.target.schema, self.terms.renamed.get(table, table)
        for shape in shapes.tables:
            if shape.name == name:
                return shape
        listed = any(each.name == name for each in self.target.tables)
        what = "does not exist" if listed else "is not in spec.tables"
        message = (
            f"The user's rows of {schema}.{table} cannot be put back: {schema}.{name} {what}. Nothing was put back. If "
            f"the table has another name now, say so with --map {table}=NEW; --table leaves it out."
        )
        raise RequestRefused(message)

    async def _nothing_there(self) -> RequestRefused:
        row = await self.transaction.row(_SQL["left_in_archive"], self.target.schema, self.user_id)
        if self.others:
            tables = ", ".join(sorted({portion.table for portion in self.others}))
            return RequestRefused(
                f"The archive has no rows of the user from {', '.join(self.terms.tables)}, only from {tables}."
            )
        words = ["The archive has no rows of the user that could be put back."]
        if row["restored"]:
            words.append(f"{row['restored']} were put back before.")
        if row["expired"]:
            words.append(f"{row['expired']} are past their retention, and on their way out.")
        if row["duplicates"]:
            words.append(f"{row['duplicates']} are surplus profile rows: --duplicates puts them back.")
        return RequestRefused(" ".join(words))

    async def _fit(self, portion: Portion, shape: Shape) -> Fit:
        fitted = await fit(self.transaction, portion, shape)
        left = await values_left(self.transaction, fitted)
        if left:
            known = self.left.get(shape.name, ())
            self.left[shape.name] = (*known, *(name for name in left if name not in known))
        return fitted

    async def _put_back(self, fitted: Fit) -> None:
        if await self._has_other_profile(fitted):
            if not self.terms.skips_conflicts:
                raise self._second_profile(fitted)
            self.skipped[fitted.shape.name] += fitted.portion.rows
        elif self.terms.skips_conflicts:
            await self._put_back_sparing(fitted)
        else:
            try:
                await self._insert(fitted)
            except RowsHeld as held:
                raise await self._refusal(fitted, held) from held

    async def _has_other_profile(self, fitted: Fit) -> bool:
        """Whether a second profile would come about; a unique index would say so, but need not be there."""
        if fitted.shape.table.role is not self.target.profile.role or fitted.portion.duplicate:
            return False
        there: bool = await self.transaction.value(fitted.shape.sql(_CHANGING["rows_remain"]), [self.user_id])
        return there

    def _second_profile(self, fitted: Fit) -> RequestRefused:
        if self.rows[fitted.shape.name]:
            return RequestRefused(
                f"The archive has profile rows of {fitted.table} from several removals of the user. Nothing was put "
                "back. Of those the first is put back, and the others stay in the archive, with --on-conflict skip."
            )
        return RequestRefused(
            f"The user has a profile row in {fitted.table} already. Nothing was put back. Take that row away, or leave "
            "the archived one where it is: --on-conflict skip."
        )

    async def _put_back_sparing(self, fitted: Fit) -> None:
        """Put back what conflicts with nothing, by halves; what refers to rows of the same table waits for them."""
        waiting: list[Fit] = [fitted]
        while waiting:
            held_up: list[tuple[Fit, RowsHeld]] = []
            before = self.rows[fitted.shape.name]
            for part in waiting:
                await self._put_back_part(part, held_up)
            if held_up and self.rows[fitted.shape.name] == before:
                part, held = held_up[0]
                raise await self._refusal(part, held) from held
            waiting = [part for part, _ in held_up]

    async def _put_back_part(self, part: Fit, held_up: list[tuple[Fit, RowsHeld]]) -> None:
        portion = part.portion
        rows = await self.transaction.value(_SQL["count_portion"], *portion.arguments())
        if not rows:
            return
        part = replace(part, portion=replace(portion, rows=rows))
        try:
            await self._insert(part)
        except RowsHeld as held:
            if held.state not in {*UNIQUE, REFERENCE}:
                raise await self._refusal(part, held) from held
            if rows > 1:
                middle = (portion.first_id + portion.last_id) // 2
                await self._put_back_part(replace(part, portion=replace(portion, last_id=middle)), held_up)
                await self._put_back_part(replace(part, portion=replace(portion, first_id=middle + 1)), held_up)
            elif held.state in UNIQUE:
                self.skipped[part.shape.name] += 1
            else:
                held_up.append((part, held))

    async def _insert(self, fitted: Fit) -> None:
        transaction, portion = self.transaction, fitted.portion
        query = fitted.shape.sql(_SQL["put_back"], **fitted.fragments())
        async with transaction.savepoint():
            rows = await transaction.change(query, *portion.arguments())
        if rows != portion.rows:
            message = (
                f"{portion.rows - rows} of {portion.rows} rows did not arrive in {fitted.table}: a trigger of the "
                "application swallows them. Nothing was put back."
            )
            raise RequestRefused(message)
        await transaction.change(_SQL["mark_restored"], *portion.arguments())
        self.rows[fitted.shape.name] += rows

    async def _refusal(self, fitted: Fit, held: RowsHeld) -> RequestRefused:
        what = f"the constraint {held.constraint}" if held.constraint else str(held).removesuffix(".")
        if held.state in UNIQUE:
            return RequestRefused(
                f"A row of today stands in the way of one to be put back in {fitted.table}: {what}. Nothing was put "
                "back. Take it away, or leave such rows in the archive: --on-conflict skip."
            )
        if held.state == REFERENCE:
            return RequestRefused(
                f"A row to be put back in {fitted.table} refers to one that is not there: {what}. Nothing was put "
                "back. Put that one back first, or leave the table out with --table."
            )
        column = await unreadable(self.transaction, fitted)
        if column is not None:
            return not_read(fitted, column)
        return RequestRefused(f"{fitted.table} does not take a row back: {what}. Nothing was put back.")

    async def _defer_references(self, shapes: Shapes) -> None:
        rows = await self.transaction.rows(_SQL["deferrable_references"], [shape.oid for shape in shapes.tables])
        names = [f"{quoted(row['schema_name'])}.{quoted(row['name'])}" for row in rows]
        if names:
            await self.transaction.execute(f"SET CONSTRAINTS {', '.join(names)} DEFERRED")

    async def _check_references(self) -> None:
        try:
            async with self.transaction.savepoint():
                await self.transaction.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except RowsHeld as held:
            message = f"What is to be put back does not hold together: {held} Nothing was put back."
            raise RequestRefused(message) from held


def own_request() -> RemovalTerms:
    """Return the terms of what a person asks for one user: beyond the limits, and for good."""
    nothing = timedelta()
    return RemovalTerms(DeletionPolicy.ERASE, retention=nothing, window=nothing, permitted=None)
