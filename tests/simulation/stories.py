"""One history as it went: the log, sorted by who was removed when, by whom, and on which terms.

Decides nothing about what is right; that is `invariants` and its neighbours.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controller.core.leaving import OWN_REQUEST
from tests.simulation.clerk import INSTANCE
from tests.simulation.histories import CONTROLLERS
from tests.support.databases import TABLES

if TYPE_CHECKING:
    from controller.core.claims import ClaimKind
    from tests.simulation.evidence import Entry, Evidence
    from tests.simulation.world import World

CHAIN = """
SELECT c.position, jsonb_build_array(
    r.id, r.schema_name, r.instance_id, encode(r.user_hash, 'hex'), r.act, r.reason, r.requested_by, r.counted,
    r.approval, r.run_id, r.rows, trunc(extract(epoch FROM r.issued_at) * 1000000)::bigint)::text, c.hash
FROM usersync.receipt_chain AS c LEFT JOIN usersync.receipts AS r ON r.id = c.receipt_id
WHERE c.schema_name = $1 ORDER BY c.position
"""
"""What a link is the hash of, as the product's documentation has it."""


@dataclass
class Removed:
    """What one transaction removed of one user, from the log.

    `goes_on`: a batch of a removal that began before; `on_request`: he had asked for it, or it was so begun.
    """

    user_id: str
    actor: str
    xid: int
    entries: list[Entry]
    approval: str | None
    goes_on: bool = False
    on_request: bool = False

    @property
    def by_run(self) -> bool:
        return actor_name(self.actor) in CONTROLLERS


@dataclass
class Story:
    """The log, sorted: who was removed when, what each run saw, and which sets were held back."""

    world: World
    evidence: Evidence
    removed: list[Removed] = field(default_factory=list)
    begun: list[Removed] = field(default_factory=list)
    """Removals in batches, where they began: buried and counted, perhaps without a row."""
    duplicates: list[Entry] = field(default_factory=list)
    user_of_hash: dict[str, str] = field(default_factory=dict)
    archive: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    live: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    values: list[tuple[Any, ...]] = field(default_factory=list)
    """User id and mapped columns of each profile row in the end."""
    chain: list[tuple[int, str, bytes]] = field(default_factory=list)

    def entries(self, what: str) -> list[Entry]:
        return [entry for entry in self.evidence.log if entry.what == what]

    def claims(self, what: str, *kinds: ClaimKind) -> list[Entry]:
        """Where claims of some kinds began (`claimed`) or ended (`unclaimed`)."""
        wanted = {kind.value for kind in kinds}
        return [entry for entry in self.entries(what) if entry.table in wanted]

    def buried_before(self, entry: Entry, user_id: str | None) -> bool:
        return any(
            other.id < entry.id
            and other.xid != entry.xid
            and self.user_of_hash.get(other.content["user_hash"]) == user_id
            for other in self.entries("tombstones")
        )

    def erased_on_request(self, user_id: str, before: int = 1 << 62) -> bool:
        """Whether the user had been erased on request by then; `before`: the id of an entry."""
        return any(
            entry.id < before
            and (entry.content["act"], entry.content["reason"]) == ("erased", "requested")
            and self.user_of_hash.get(entry.content["user_hash"]) == user_id
            for entry in self.entries("receipts")
        )


def actor_name(actor: str) -> str:
    """The process of an actor: `h1/a#7` is `a`, `h1/w1#9:msg_3` is `w1`."""
    return actor.partition("/")[2].partition("#")[0]


async def read(world: World) -> Story:
    """Gather everything about a history that has ended."""
    schema, evidence = world.schema, world.evidence
    real = await world.real.get()
    world.turns.outside += 1
    try:
        await evidence.read_log(real)
        story = Story(world, evidence)
        for row in await real.fetch("SELECT * FROM usersync.archive WHERE schema_name = $1", schema):
            content = json.loads(row["content"])
            story.archive[content["id"]] = (row["table_name"], row["user_id"], content)
        for table in TABLES:
            for row in await real.fetch(f"SELECT id::text, user_id FROM {schema}.{table}"):
                story.live[row["id"]] = (table, row["user_id"])
        if world.maps:
            query = f"SELECT user_id, first_name, email FROM {schema}.{TABLES[0]} WHERE user_id IS NOT NULL"
            story.values = [tuple(row) for row in await real.fetch(query)]
        story.chain = [tuple(row) for row in await real.fetch(CHAIN, schema)]
        salt = await real.fetchval("SELECT salt FROM usersync.target WHERE schema_name = $1", schema)
    finally:
        world.turns.outside -= 1
        world.real.free.append(real)
    for user in world.everybody:
        digest = hashlib.sha256(salt + (INSTANCE.id + user).encode()).hexdigest()
        story.user_of_hash["\\x" + digest] = user
    _sort(story)
    return story


def _sort(story: Story) -> None:
    """Tell removals of users from surplus profiles: a removal has a receipt in its transaction, or goes on in batches.

    Batches lie between the receipt of their beginning and the one of their end.
    """
    # By the log: what is archived may be erased later.
    story.reasons = {entry.content["content"]["id"]: entry.content["reason"] for entry in story.entries("archive")}
    receipts: dict[tuple[int, str | None], Entry] = {}
    spans: dict[str, list[tuple[int, int, Entry]]] = defaultdict(list)
    for entry in story.entries("receipts"):
        user = story.user_of_hash.get(entry.content["user_hash"])
        receipts[entry.xid, user] = entry
        if entry.content["act"] == "begun":
            spans[str(user)].append((entry.id, 1 << 62, entry))
            story.begun.append(_removed(user, [entry], entry))
        elif spans[str(user)] and spans[str(user)][-1][1] == 1 << 62:
            began, _, beginning = spans[str(user)].pop()
            spans[str(user)].append((began, entry.id, beginning))
    groups: dict[tuple[int, str | None], list[Entry]] = defaultdict(list)
    for entry in story.entries("delete"):
        groups[entry.xid, entry.user_id].append(entry)
    for (xid, user_id), entries in groups.items():
        receipt = receipts.get((xid, user_id))
        batch = [beginning for began, ended, beginning in spans[str(user_id)] if began < entries[0].id < ended]
        reduced = any(story.reasons.get(entry.row_id) == "duplicate" for entry in entries)
        if receipt is not None:
            story.removed.append(_removed(user_id, entries, receipt, goes_on=bool(batch)))
        elif batch and not reduced:
            story.removed.append(_removed(user_id, entries, batch[0], goes_on=True))
        else:
            story.duplicates += entries


def _removed(user_id: str | None, entries: list[Entry], receipt: Entry, *, goes_on: bool = False) -> Removed:
    on_request = receipt.content["requested_by"] == OWN_REQUEST
    first, approval = entries[0], receipt.content["approval"]
    return Removed(str(user_id), first.actor, first.xid, entries, approval, goes_on, on_request)


def count_evidence(story: Story) -> Counter[str]:
    """Count what a history reached."""
    events = [removed for removed in story.removed if not removed.by_run]
    return Counter(
        {
            "users removed by events": len(events),
            "users removed by events, again": sum(
                story.buried_before(removed.entries[0], removed.user_id) for removed in events
            ),
            "users removed on own request": sum(removed.on_request for removed in story.removed),
            "users removed by approval": sum(removed.approval is not None for removed in story.removed),
            "users removed in batches": len(story.begun),
            "batches removed": sum(removed.goes_on for removed in story.removed),
            "surplus profiles removed": len(story.duplicates),
            "mapped columns written": len(story.entries("update")),
            "look-ups": len(story.evidence.look_ups),
        }
    )
