"""Mapped columns written: with a new profile row, or over what a row holds, never over something later.

Decides the form of the statements, and what becomes of values that the database refuses: the columns concerned are
left, the others are written. Who may be written over whom is `core.mapping.judge`. Used by `runs` and `inbox`, in
their transactions and under the users' locks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from controller.core.mapping import Verdict, judge
from controller.core.outcomes import Absorbed
from controller.postgres.columns import EPOCH, LEFT, Columns, array_literal, copied, describe_columns
from controller.postgres.creating import TABLE_LOCK_LIMIT
from controller.postgres.failures import RowsHeld
from controller.postgres.queries import load, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from controller.core.users import Profile, UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shape

log = structlog.get_logger(__name__)

_SQL: Final = load("updating")
_CHANGING: Final = load("changing")
# Of tables that a run has just filled the server has no statistics: it takes them to be empty, and would read what was
# listed once for each user of the other side.
PLANNER_SETTINGS: Final = "SET LOCAL enable_mergejoin = off; SET LOCAL enable_nestloop = off"
OUTDATED: Final = ("outdated",)
REFUTED: Final = _SQL["refuted"].sql()
BEHIND: Final = ("outdated", "behind")


@dataclass(frozen=True, slots=True)
class Owed:
    """What is to be written of one user; `known`: the version noted of his row.

    `refuted`: that is later than what is listed, and yet not of the time of the listing.
    """

    user_id: UserId
    updated_at: int
    fields: tuple[str | None, ...]
    known: int | None = None
    refuted: bool = False

    def is_settled(self, since: datetime) -> bool:
        """Whether it may be written as it was listed: everything of its millisecond had happened by then.

        Also where the row is noted as of another version, or none: then the versions tell which is later. Unless that
        one is refuted.
        """
        return not self.refuted and self._is_told_apart(since)

    def _is_told_apart(self, since: datetime) -> bool:
        return self.updated_at != self.known or self.updated_at < (since - EPOCH) // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Writing:
    """The profile table and its mapped columns.

    `sparing`: for one user alone, of whom the database has refused a value: column by column.
    """

    shape: Shape
    columns: Columns
    sparing: bool = False

    async def insert(self, transaction: Transaction, owed: Sequence[Owed]) -> set[str]:
        """Insert rows with their values, for users who have none; returns whose. Their version is noted.

        Raises:
            RowsHeld: a row is refused; in the sparing form, even with what it cannot do without alone.
        """
        if self.sparing:
            return {each.user_id for each in owed if await self._insert_sparing(transaction, each)}
        by_columns: defaultdict[tuple[int, ...], list[Owed]] = defaultdict(list)
        for each in owed:
            by_columns[self.columns.filled(each.fields)].append(each)
        inserted: set[str] = set()
        for places, alike in by_columns.items():
            inserted |= await self._insert_alike(transaction, places, alike)
        await self.note(transaction, [each for each in owed if each.user_id in inserted])
        return inserted

    async def update(self, transaction: Transaction, owed: Sequence[Owed]) -> set[str]:
        """Write over rows that differ; returns whose. The version is noted of all.

        Raises:
            RowsHeld: a row is refused; never in the sparing form.
        """
        if not owed:
            return set()
        if refuted := [each.user_id for each in owed if each.refuted and each.known is None]:
            await transaction.change(_SQL["forget_versions"], self.shape.schema, refuted)
        if self.sparing:
            updated: set[str] = {each.user_id for each in owed if await self._update_sparing(transaction, each)}
        else:
            query = self.sql("update_profiles", assignments=self.columns.assignments)
            updated = {row["user_id"] for row in await transaction.rows(query, *_arguments(owed))}
        await self.note(transaction, owed)
        return updated

    async def note(self, transaction: Transaction, owed: Sequence[Owed]) -> None:
        """Note the version of the users' rows, which never goes back."""
        if owed:
            user_ids, versions = [each.user_id for each in owed], [each.updated_at for each in owed]
            await transaction.change(_SQL["raise_versions"], self.shape.schema, user_ids, versions)

    async def keep_in_step(
        self, transaction: Transaction, profile: Profile, *, confirmed: bool, inserts: bool
    ) -> Absorbed:
        """Do with what Clerk says of one user what may be done with it; DOUBTED: nothing was done.

        Raises:
            RowsHeld: as `insert`.
        """
        misfits = Counter[str]()
        owed = Owed(profile.user_id, profile.updated_at, tuple(self.columns.fields(profile, misfits)))
        row = await transaction.row(
            self.sql("standing"), self.shape.schema, profile.user_id, array_literal(owed.fields)
        )
        verdict = judge(profile.updated_at, row["known"], differs=row["differs"], confirmed=confirmed)
        if verdict is Verdict.WRITE:
            for words in self.columns.misfits(misfits):
                log.warning("value_left", reason=words)
        match verdict:
            case Verdict.OLDER:
                return Absorbed.OLDER
            case Verdict.DOUBT:
                return Absorbed.DOUBTED
            case Verdict.WRITE if row["differs"] is None and not inserts:
                return Absorbed.DOUBTED
            case Verdict.IN_STEP:
                await self.note(transaction, [owed])
                return Absorbed.PRESENT
            case Verdict.WRITE if row["differs"] is None:
                return Absorbed.CREATED if await self.insert(transaction, [owed]) else Absorbed.PRESENT
            case Verdict.WRITE:
                await self.update(transaction, [owed])
                return Absorbed.UPDATED

    def due(self, owed: Owed, confirmed: Profile | None, since: datetime) -> Owed | None:
        """Return what may be written of a listed user; of one in doubt, what Clerk, asked again, has confirmed."""
        if not owed.is_settled(since):
            if confirmed is None:
                return None
            fields = tuple(self.columns.fields(confirmed))
            owed = replace(owed, updated_at=confirmed.updated_at, fields=fields)
        if owed.refuted and owed.known is not None and owed.updated_at < owed.known:
            # Listed and asked for by id, Clerk has never heard of the version that is noted.
            return replace(owed, known=None)
        verdict = judge(owed.updated_at, owed.known, differs=True, confirmed=True)
        return owed if verdict is Verdict.WRITE else None

    def sql(self, query: str, **fragments: str) -> str:
        """Return a query for this table."""
        return self.shape.sql(_SQL[query], differs=self.columns.differs, refuted=REFUTED, **fragments)

    def may_spare(self, held: RowsHeld) -> bool:
        """Whether leaving mapped columns out can help against the refusal."""
        return held.column is None or held.column in {column.name for column in self.columns.all}

    async def _insert_alike(self, transaction: Transaction, places: tuple[int, ...], owed: Sequence[Owed]) -> set[str]:
        shape = self.shape
        filled = [(shape.table.user_id_column, "u.id")]
        if shape.sets_created_at:
            filled.append((shape.table.created_at_column, "clock_timestamp()"))
        filled += self.columns.values(places)
        query = _SQL["insert_with_values_by_index"]
        if not shape.unique_user:
            query = _SQL["insert_with_values_under_lock"]
            await transaction.execute(f"{TABLE_LOCK_LIMIT}; {shape.sql(_CHANGING['lock_table'])}")
        insert = shape.sql(
            query,
            columns=", ".join(quoted(name) for name, _ in filled),
            values=", ".join(expression for _, expression in filled),
        )
        return {row["user_id"] for row in await transaction.rows(insert, *_arguments(owed))}

    async def _insert_sparing(self, transaction: Transaction, owed: Owed) -> bool:
        required = [
            field if column.required else LEFT for column, field in zip(self.columns.all, owed.fields, strict=True)
        ]
        bare = replace(owed, fields=tuple(required))
        inserted = await self._insert_alike(transaction, self.columns.filled(bare.fields), [bare])
        if inserted:
            await self._update_sparing(transaction, owed)
            await self.note(transaction, [owed])
        return bool(inserted)

    async def _update_sparing(self, transaction: Transaction, owed: Owed) -> bool:
        updated, query = False, self.sql("update_profiles", assignments=self.columns.assignments)
        for place in self.columns.filled(owed.fields):
            alone = tuple(field if at == place else LEFT for at, field in enumerate(owed.fields, start=1))
            try:
                async with transaction.savepoint():
                    rows = await transaction.rows(query, *_arguments([replace(owed, fields=alone)]))
                updated = updated or bool(rows)
            except RowsHeld as held:
                log.warning("value_left", column=self.columns.all[place - 1].name, reason=str(held))
                log.debug("value_left", user_id=owed.user_id)
        return updated


async def describe_writing(transaction: Transaction, profile: Shape | None) -> Writing | None:
    """Look at the mapped columns; None where none is mapped, or there is no profile table.

    Raises:
        TableUnsupported: one does not exist, or its type cannot hold what is mapped.
    """
    columns = None if profile is None else await describe_columns(transaction, profile)
    return None if profile is None or columns is None else Writing(profile, columns)


async def record_values(transaction: Transaction, run_id: UUID, owed: Sequence[Owed]) -> None:
    """Add a page to what Clerk said of its users."""
    lines = [f"{run_id}\t{each.user_id}\t{each.updated_at}\t{copied(array_literal(each.fields))}\n" for each in owed]
    columns = ("run_id", "user_id", "updated_at", "fields")
    await transaction.copy("listed_values", columns, "".join(lines).encode())


async def note_owed(transaction: Transaction, run_id: UUID, writing: Writing) -> int:
    """Set apart whose values are to be written, after an observation; returns how many users are outdated."""
    await transaction.change(_SQL["forget_owed"], run_id)
    await transaction.execute(PLANNER_SETTINGS)
    await transaction.change(_SQL["owe_missing"], run_id)
    await transaction.change(writing.sql("owe_others"), run_id, writing.shape.schema)
    await transaction.change(_SQL["drop_superseded"], run_id)
    outdated: int = await transaction.value(_SQL["count_outdated"], run_id)
    return outdated


async def forget_strangers(transaction: Transaction, run_id: UUID, writing: Writing) -> None:
    """Forget the versions of whoever is not listed and has no row; of one who lives nevertheless, Clerk is asked again.

    As long as there is a row its version guards it: who signed up during the listing is not listed either.
    """
    await transaction.execute(PLANNER_SETTINGS)
    await transaction.change(writing.sql("forget_strangers"), run_id, writing.shape.schema)


async def owed_page(
    transaction: Transaction, run_id: UUID, kinds: Sequence[str], after: str, size: int
) -> list[UserId]:
    """Return the next users of some kinds in byte order, beginning behind `after`."""
    rows = await transaction.rows(_SQL["owed_page"], run_id, list(kinds), after, size)
    return [row["user_id"] for row in rows]


async def owed_among(transaction: Transaction, run_id: UUID, schema: str, user_ids: Sequence[UserId]) -> list[Owed]:
    """Return what is to be written of those of the users of whom something is, in byte order."""
    query = _SQL["owed_among"].sql(fragments={"refuted": REFUTED})
    rows = await transaction.rows(query, run_id, schema, list(user_ids))
    found = [
        Owed(row["user_id"], row["updated_at"], tuple(row["fields"]), row["known"], bool(row["refuted"]))
        for row in rows
    ]
    return sorted(found, key=lambda each: each.user_id.encode())


def _arguments(owed: Sequence[Owed]) -> tuple[list[str], list[str]]:
    return [each.user_id for each in owed], [array_literal(each.fields) for each in owed]
