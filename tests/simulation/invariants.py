"""The promises of usersync, each checked against what was seen of a history.

A model of its own: it counts, ages and matches by the simulation's records and repeats no query of the product. Each
function is one promise and yields a sentence for each time it was broken.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller.core.leaving import OWN_REQUEST
from controller.core.planning import allowance
from controller.core.targets import Action, DeletionPolicy, Limits, expand
from controller.core.users import UserId, parse_user_id
from tests.simulation.announced import PROMISES_OF_EVENTS
from tests.simulation.histories import REPLICAS
from tests.simulation.loop import START
from tests.simulation.mapped import PROMISES_OF_VALUES
from tests.simulation.requested import PROMISES_OF_REQUESTS
from tests.simulation.stories import actor_name
from tests.support.databases import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.evidence import Entry
    from tests.simulation.stories import Removed, Story

PROOF_SECONDS = 300.0
SENT_SECONDS = 70.0
"""How long a DELETE may be on its way: an idle transaction is ended after 60 s, a wait for a lock after 5 s."""
CREATED_MEANWHILE = 600.0
APPROVED_DAYS = 7
TERMS = frozenset({"created", "claimed", "doubted", "held", "older", "present", "recorded", "tombstoned", "updated"})
"""What an event comes to that has had its effect; it may do so once."""


class Broken(AssertionError):
    """A promise was broken."""


def check(story: Story) -> None:
    """Check every promise.

    Raises:
        Broken: with all sentences.
    """
    broken = [f"{promise.__name__}: {sentence}" for promise in PROMISES for sentence in promise(story)]
    if broken:
        raise Broken("\n".join(broken))


def nothing_unforeseen(story: Story) -> Iterator[str]:
    for fault in story.evidence.faults:
        yield f"an error that nobody expected: {fault!r}"


def no_living_user_loses_rows(story: Story) -> Iterator[str]:
    for removed in story.removed:
        died_at = story.world.clerk.gone_at.get(UserId(removed.user_id))
        if died_at is None or removed.entries[0].true_at < died_at:
            yield f"{removed.user_id} lives, and {removed.actor} removed his rows"


def removed_on_a_fresh_proof(story: Story) -> Iterator[str]:
    for removed in story.removed:
        proved = [
            look_up.asked_at
            for look_up in story.evidence.look_ups
            if look_up.absent and look_up.user_id == removed.user_id and look_up.actor == removed.actor
        ]
        for entry in removed.entries:
            sent = [
                each.at
                for each in story.evidence.sent
                if each.actor == removed.actor and removed.user_id in each.users and each.at <= entry.true_at
            ]
            if not sent:
                yield f"nobody knows who deleted {entry}"
            elif not any(0 <= max(sent) - asked_at <= PROOF_SECONDS for asked_at in proved):
                yield f"{removed.actor} deleted rows of {removed.user_id} without a proof of the last 5 minutes"
            elif not any(entry.true_at - asked_at <= PROOF_SECONDS + SENT_SECONDS for asked_at in proved):
                yield f"{removed.actor} deleted rows of {removed.user_id} long after the proof"


@dataclass
class _Absence:
    since: float
    last: float


def runs_honour_grace_and_listing(story: Story) -> Iterator[str]:
    """Absent from consecutive complete listings for the grace period; or buried, or announced."""
    absent: dict[str, _Absence] = {}
    began: dict[str, float] = {}
    age: dict[tuple[str, str], float] = {}
    # The first row of a removal, or where one in batches began.
    firsts = {each.entries[0].id: each for each in (*story.removed, *story.begun) if each.by_run and not each.goes_on}
    for entry in story.evidence.log:
        if entry.what == "runs":
            began[entry.actor] = entry.at
        elif entry.what == "weighed" and entry.actor in began:
            # Not when the absence of one user is forgotten, who left on his own request.
            _weigh(story, entry.actor, began[entry.actor], absent, age)
        elif entry.id in firsts:
            yield from _check_removal(story, entry, UserId(firsts[entry.id].user_id), age)


def _weigh(
    story: Story, actor: str, began: float, absent: dict[str, _Absence], age: dict[tuple[str, str], float]
) -> None:
    listing = story.evidence.listings[actor]
    gap = story.evidence.specs[actor].longest_gap.total_seconds()
    for user in story.world.everybody:
        if user in listing.users | listing.found:
            absent.pop(user, None)
            continue
        before = absent.get(user)
        goes_on = before is not None and 0 <= began - before.last <= gap
        since = before.since if before is not None and goes_on else began
        absent[user] = _Absence(since, began)
        age[actor, user] = began - since


def _check_removal(story: Story, entry: Entry, user: UserId, age: dict[tuple[str, str], float]) -> Iterator[str]:
    actor, evidence = entry.actor, story.evidence
    listing, spec = evidence.listings[actor], evidence.specs[actor]
    if not listing.users:
        yield f"{actor} removed {user} on an empty listing"
    if user in listing.users:
        yield f"{actor} removed {user}, whom it had listed"
    if Action.CLEANUP not in expand(spec.actions):
        yield f"{actor} removed {user} without being asked to clean up"
    # Announced, and proved at the time: only the limits kept him waiting.
    announced = (user, "user.deleted") in evidence.told and any(
        look_up.absent and look_up.user_id == user and actor_name(look_up.actor) in REPLICAS
        for look_up in evidence.look_ups
        if look_up.asked_at <= entry.true_at
    )
    exempt = story.buried_before(entry, user) or announced
    if not exempt and age.get((actor, user), -1) < spec.deletion.grace_period.total_seconds():
        yield f"{actor} removed {user}, absent for {age.get((actor, user))} s only"


def partial_listings_delete_nothing(story: Story) -> Iterator[str]:
    for removed in (*story.removed, *story.begun):
        if not removed.by_run or removed.goes_on:
            continue
        listing = story.evidence.listings[removed.actor]
        for user, created_at in story.world.clerk.users.items():
            is_old = created_at.timestamp() < START.timestamp() + listing.began_at - CREATED_MEANWHILE - 90000
            if is_old and user not in listing.users and user in listing.found:
                yield f"{removed.actor} removed {removed.user_id}, though its listing had hidden {user}"


def events_remove_only_announced(story: Story) -> Iterator[str]:
    for removed in (*story.removed, *story.begun):
        if removed.by_run:
            continue
        told = [at for (user, _), at in story.evidence.told.items() if user == removed.user_id]
        known = any(at <= removed.entries[0].true_at for at in told) or removed.on_request
        if not known and not story.buried_before(removed.entries[0], removed.user_id):
            yield f"{removed.actor} removed {removed.user_id}, of whom no message ever told"


def limits_hold(story: Story) -> Iterator[str]:
    """By distinct users in any window; approved are those of a set that was permitted in time."""
    limits = Limits(users=story.world.history.beginning.limit_users, percent=10)
    base = len({user for _, user in story.world.written.values() if parse_user_id(user) is not None})
    permitted = allowance(limits, max(base, len(story.world.everybody)))
    window = limits.window.total_seconds()
    unapproved: list[tuple[float, str]] = []
    for removed in sorted((*story.removed, *story.begun), key=lambda each: each.entries[-1].id):
        # One in batches is counted where it begins, what a user asks for himself never.
        if removed.approval is not None or removed.goes_on or removed.on_request:
            continue
        at = removed.entries[-1].at
        unapproved.append((at, removed.user_id))
        users = {user for when, user in unapproved if when > at - window}
        if len(users) > permitted:
            yield f"{removed.actor} removed {removed.user_id}, the {len(users)}th within the window of {permitted}"


def approvals_permit_their_set_alone(story: Story) -> Iterator[str]:
    holds = story.entries("approvals")
    for entry in holds:
        content = entry.content
        lines = [content["header"], *sorted(content["set"] or [])]
        if hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest() != content["digest"]:
            yield f"the digest of {entry.actor} is not of the set that it held back"
    for removed in (*story.removed, *story.begun):
        if removed.approval is not None and not removed.goes_on:
            yield from _check_approved(story, removed, holds)


def _check_approved(story: Story, removed: Removed, holds: list[Entry]) -> Iterator[str]:
    entry, spec = removed.entries[0], story.evidence.specs[removed.actor]
    held = [each for each in holds if each.content["digest"] == removed.approval and each.id < entry.id]
    if spec.approval is None or spec.approval.digest != removed.approval:
        yield f"{removed.actor} removed {removed.user_id} by an approval that it was not given"
    if not any(removed.user_id in (each.content["set"] or []) for each in held):
        yield f"{removed.actor} removed {removed.user_id}, who is not of the approved set"
    began = next((e.at for e in story.entries("runs") if e.actor == removed.actor), entry.at)
    if held and began - max(each.at for each in held) > APPROVED_DAYS * 86400 + 1:
        yield f"{removed.actor} used an approval of a set held back too long ago"
    if held and json.loads(held[-1].content["header"])[3] != spec.deletion.policy.value:
        yield f"{removed.actor} used an approval of another policy"
    used_at = story.evidence.used_up.get(str(removed.approval))
    if used_at is not None and entry.true_at > used_at:
        yield f"{removed.actor} used an approval a second time"


def deleted_stays_deleted(story: Story) -> Iterator[str]:
    """Neither a new row, nor a value in one that was written since, or is retained."""
    for entry in (*story.entries("insert"), *story.entries("update")):
        if entry.actor and story.buried_before(entry, entry.user_id):
            yield f"{entry.actor} wrote a profile ({entry.what}) of {entry.user_id}, who was buried before"


def messages_have_one_effect(story: Story) -> Iterator[str]:
    for message, results in story.evidence.absorbed.items():
        if sum(result in TERMS for result in results) > 1:
            yield f"{message} had its effect more than once: {results}"
    # Events that wait at the same time share a transaction, which is told by the message of one of them.
    inserts = [entry for entry in story.entries("insert") if ":msg" in entry.actor]
    counts = Counter((entry.actor.rpartition(":")[2], entry.user_id) for entry in inserts)
    for (message, user), count in counts.items():
        if count > 1:
            yield f"{message} created {count} profiles of {user}"


def profiles_are_created_once(story: Story) -> Iterator[str]:
    """None by us where one stands, whoever wrote it before our statement."""
    profiles: dict[str, set[str]] = defaultdict(set)
    for entry in story.evidence.log:
        if entry.table != TABLES[0] or entry.user_id is None:
            continue
        rows = profiles[entry.user_id]
        if entry.what == "insert":
            if entry.actor and rows:
                yield f"{entry.actor} created a second profile of {entry.user_id}"
            rows.add(entry.row_id)
        elif entry.what == "delete":
            rows.discard(entry.row_id)


def duplicates_leave_the_oldest(story: Story) -> Iterator[str]:
    rows: dict[str, dict[str, Any]] = defaultdict(dict)
    surplus = {entry.id for entry in story.duplicates}
    for entry in story.evidence.log:
        if entry.table != TABLES[0] or entry.user_id is None:
            continue
        if entry.what == "insert":
            rows[entry.user_id][entry.row_id] = entry.content["created_at"]
        elif entry.what == "delete":
            rows[entry.user_id].pop(entry.row_id, None)
            if entry.id not in surplus:
                continue
            kept = rows[entry.user_id].values()
            if not kept:
                yield f"{entry.actor} removed the last profile of {entry.user_id} as a duplicate"
            elif min(kept) > entry.content["created_at"]:
                yield f"{entry.actor} removed an older profile of {entry.user_id} than the one that it kept"
    for entry in story.duplicates:
        if entry.table != TABLES[0]:
            yield f"{entry.actor} deleted a row of {entry.table} of {entry.user_id} without a receipt"


def one_run_at_a_time(story: Story) -> Iterator[str]:
    """Who was taken over writes no more, neither rows of users nor what a run keeps for itself."""
    taken_over: set[str] = set()
    at_work = ""
    for entry in story.evidence.log:
        if entry.what == "runs":
            taken_over.add(at_work)
            at_work = entry.actor
        elif entry.actor and entry.actor in taken_over:
            yield f"{entry.actor} wrote to {entry.table} after {at_work} had taken over"


def only_what_was_asked(story: Story) -> Iterator[str]:
    for entry in story.evidence.log:
        if entry.what not in {"insert", "update", "delete"} or not entry.actor:
            continue
        spec = story.evidence.specs[entry.actor]
        if spec.dry_run or spec.suspend:
            yield f"{entry.actor} wrote, though suspended or in a dry run"
        if entry.what == "delete" and parse_user_id(entry.user_id) is None:
            yield f"{entry.actor} deleted a foreign row: {entry.user_id}"
    for removed in story.removed:
        retains = story.evidence.specs[removed.actor].deletion.policy is DeletionPolicy.RETAIN
        asked = removed.on_request or story.erased_on_request(removed.user_id, removed.entries[0].id)
        if retains and not removed.goes_on and not asked:
            yield f"{removed.actor} deleted rows of {removed.user_id}, which are to be retained"


def nobody_sees_half_a_user(story: Story) -> Iterator[str]:
    entries = {entry.id: entry for entry in story.entries("delete")}
    inserted = {entry.row_id: entry for entry in story.entries("insert")}
    in_batches = {each.user_id for each in story.begun}
    removed = {(each.xid, each.user_id): each for each in story.removed if each.user_id not in in_batches}
    for snapshot in story.evidence.snapshots:
        gone = {
            key: removed[key]
            for key in ((entries[n].xid, entries[n].user_id) for n in snapshot.deleted if n in entries)
            if key in removed
        }
        for removal in gone.values():
            first = removal.entries[0].id
            for _, row_id in snapshot.rows:
                row = inserted[row_id]
                if row.user_id == removal.user_id and row.id < first:
                    yield f"a snapshot shows half of {removal.user_id}"


def nothing_is_lost(story: Story) -> Iterator[str]:
    erased = {
        entry.row_id
        for each in story.removed
        if story.evidence.specs[each.actor].deletion.policy is DeletionPolicy.ERASE
        for entry in each.entries
    }
    wiped = {
        each.user_id
        for each in story.removed
        if story.evidence.specs[each.actor].deletion.policy is DeletionPolicy.ERASE
    }
    wiped |= {
        str(story.user_of_hash.get(entry.content["user_hash"]))
        for entry in story.entries("receipts")
        if entry.content["act"] == "erased"
    }
    for entry in story.entries("insert"):
        if entry.row_id in story.live:
            if entry.row_id in story.archive:
                yield f"row {entry.row_id} is both live and archived"
        elif entry.row_id in story.archive:
            table, user_id, content = story.archive[entry.row_id]
            if (table, user_id, content["note"]) != (entry.table, entry.user_id, entry.content["note"]):
                yield f"row {entry.row_id} was archived as something else"
        elif entry.row_id not in erased and entry.user_id not in wiped:
            yield f"row {entry.row_id} of {entry.user_id} in {entry.table} is lost"


def each_removal_has_its_receipt(story: Story) -> Iterator[str]:
    begun: dict[str, int] = {}
    for entry in story.entries("receipts"):
        user = str(story.user_of_hash.get(entry.content["user_hash"]))
        here = [each for each in story.removed if (each.xid, each.user_id) == (entry.xid, user)]
        began = begun.pop(user, None)
        if entry.content["act"] == "begun":
            begun[user] = min([entry.id, *(each.entries[0].id for each in here)])
        elif began is not None:
            here = [each for each in story.removed if each.user_id == user and began <= each.entries[0].id <= entry.id]
        rows = Counter(each.table for removed in here for each in removed.entries)
        if dict(rows) != {table: count for table, count in entry.content["rows"].items() if count}:
            yield f"the receipt of {user} says {entry.content['rows']}, and {dict(rows)} went"
        unlimited = entry.content["approval"] is not None or entry.content["requested_by"] == OWN_REQUEST
        counted = not unlimited and began is None
        if rows and entry.content["counted"] != counted:
            yield f"the receipt of {user} is counted wrongly"


def receipts_are_chained(story: Story) -> Iterator[str]:
    """Each link is the hash of the one before and of its receipt, and none is missing."""
    link = bytes(32)
    for place, (position, content, kept) in enumerate(story.chain, start=1):
        link = hashlib.sha256(link + content.encode()).digest()
        if position != place or link != kept:
            yield f"link {position} of the chain of receipts does not hold"
    receipts = len(story.entries("receipts"))
    if story.world.at_rest and len(story.chain) != receipts:
        yield f"{len(story.chain)} of {receipts} receipts are chained"


def the_world_converges(story: Story) -> Iterator[str]:
    world = story.world
    if not world.at_rest:
        yield f"the world does not come to rest: {world.last_outcome}"
        return
    last = world.spec().deletion.policy
    per_user: dict[str, Counter[str]] = defaultdict(Counter)
    for table, user_id in story.live.values():
        if user_id is not None:
            per_user[user_id][table] += 1
    for user in world.everybody:
        rows = per_user[user]
        if user in world.clerk.users and rows[TABLES[0]] != 1:
            yield f"{user} lives and has {rows[TABLES[0]]} profiles"
        stays = last is DeletionPolicy.RETAIN and not story.erased_on_request(user)
        if user not in world.clerk.users and rows and not stays:
            yield f"{user} is gone and has rows: {dict(rows)}"
    for row_id, (table, user_id) in world.written.items():
        lives = user_id is None or user_id in world.clerk.users or parse_user_id(user_id) is None
        surplus = table == TABLES[0] and row_id in story.archive
        if lives and row_id not in story.live and not surplus:
            yield f"a row of {user_id} in {table} that the application wrote is gone"


PROMISES = (
    nothing_unforeseen,
    no_living_user_loses_rows,
    removed_on_a_fresh_proof,
    runs_honour_grace_and_listing,
    partial_listings_delete_nothing,
    events_remove_only_announced,
    limits_hold,
    approvals_permit_their_set_alone,
    deleted_stays_deleted,
    messages_have_one_effect,
    profiles_are_created_once,
    duplicates_leave_the_oldest,
    one_run_at_a_time,
    only_what_was_asked,
    nobody_sees_half_a_user,
    nothing_is_lost,
    each_removal_has_its_receipt,
    receipts_are_chained,
    the_world_converges,
    *PROMISES_OF_VALUES,
    *PROMISES_OF_REQUESTS,
    *PROMISES_OF_EVENTS,
)
