"""What was seen of a history: the simulation's own records, beside those of the product.

The log of the database is written by triggers of the simulation; everything else is noted as it happens.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.databases import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from controller.core.targets import Spec
    from controller.core.users import UserId
    from tests.simulation.connections import SimulatedConnection
    from tests.simulation.turns import Turns


@dataclass(frozen=True)
class Entry:
    """One line of the log, in the order of the database; `at` by its clock, `true_at` by the true one."""

    id: int
    actor: str
    xid: int
    what: str
    table: str
    user_id: str | None
    row_id: str
    content: Any
    at: float
    true_at: float


@dataclass
class Listing:
    """What Clerk showed a run: in the listing, and by the filter."""

    users: set[UserId] = field(default_factory=set)
    found: set[UserId] = field(default_factory=set)
    began_at: float = 0.0


@dataclass(frozen=True)
class LookUp:
    """Clerk was asked for one user by id."""

    actor: str
    user_id: UserId
    asked_at: float
    absent: bool


@dataclass(frozen=True)
class Sent:
    """A DELETE was sent for these users."""

    actor: str
    users: frozenset[str]
    at: float


@dataclass(frozen=True)
class Snapshot:
    """All rows that one snapshot showed, and what the log had of removals by then."""

    rows: frozenset[tuple[str, str]]
    deleted: tuple[int, ...]


@dataclass(eq=False)
class Evidence:
    """Of one history."""

    schema: str
    turns: Turns
    random: Random
    specs: dict[str, Spec] = field(default_factory=dict)
    listings: dict[str, Listing] = field(default_factory=dict)
    look_ups: list[LookUp] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    absorbed: dict[str, list[str]] = field(default_factory=dict)
    told: dict[tuple[UserId, str], float] = field(default_factory=dict)
    refused: dict[UserId, float] = field(default_factory=dict)
    """Whom Clerk refused to delete, and when first."""
    answered_deleted: set[UserId] = field(default_factory=set)
    """Who asked for his own deletion and was told that it is done."""
    jumps: list[tuple[float, float]] = field(default_factory=list)
    """When the database's clock jumped, and how far."""
    used_up: dict[str, float] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)
    chores: set[asyncio.Task[None]] = field(default_factory=set)

    def begin_listing(self, actor: str) -> Listing:
        self.listings[actor] = Listing(began_at=self.turns.loop.time())
        return self.listings[actor]

    def note_found(self, actor: str, found: Iterable[UserId]) -> None:
        if actor in self.listings:
            self.listings[actor].found |= set(found)

    def note_look_up(self, actor: str, user_id: UserId, asked_at: float, *, absent: bool) -> None:
        self.look_ups.append(LookUp(actor, user_id, asked_at, absent))

    def note_sent(self, actor: str, query: str, arguments: tuple[object, ...]) -> None:
        """Note the DELETEs on the application's tables, before they wait for their turn."""
        if f'DELETE FROM "{self.schema}"' in query:
            texts = [
                text for argument in arguments for text in (argument if isinstance(argument, list) else [argument])
            ]
            users = frozenset(str(text) for text in texts if str(text).startswith("user_"))
            self.sent.append(Sent(actor, users, self.turns.loop.time()))

    async def note_done(self, connection: SimulatedConnection, query: str) -> None:
        """Look at the tables now and then, rather in the middle of a removal."""
        removing = f'DELETE FROM "{self.schema}"' in query
        if self.random.random() < (0.3 if removing else 0.004):
            await self.observe(connection)

    async def observe(self, connection: SimulatedConnection) -> None:
        """Take one snapshot: a single statement has one, as a REPEATABLE READ transaction has."""
        parts = [f"SELECT '{table}' AS t, id::text AS i, 0::bigint AS n FROM {self.schema}.{table}" for table in TABLES]
        parts.append(f"SELECT '', '', id FROM simulation.log WHERE what = 'delete' AND schema_name = '{self.schema}'")
        self.turns.outside += 1
        try:
            rows = await asyncio.shield(asyncio.ensure_future(self._fetch(connection, " UNION ALL ".join(parts))))
        finally:
            self.turns.outside -= 1
        seen = frozenset((row["t"], row["i"]) for row in rows if row["t"])
        self.snapshots.append(Snapshot(seen, tuple(sorted(row["n"] for row in rows if not row["t"]))))

    async def _fetch(self, connection: SimulatedConnection, query: str) -> list[Any]:
        real = await connection.pool.real.get()
        try:
            return list(await real.fetch(query))
        finally:
            connection.pool.real.free.append(real)

    async def read_log(self, real: Any) -> None:
        """Read what the triggers wrote."""
        rows = await real.fetch("SELECT * FROM simulation.log WHERE schema_name = $1 ORDER BY id", self.schema)
        self.log = [
            Entry(
                row["id"], row["actor"], row["xid"], row["what"], row["table_name"] or "", row["user_id"],
                row["row_id"] or "", json.loads(row["content"] or "null"), row["at"], row["true_at"],
            )
            for row in rows
        ]  # fmt: skip
