"""What the core needs from the outside: Clerk, the database, a clock, and somebody who watches.

`clerk` implements `Directory`; `postgres` implements `Store`, `Run` and `Inbox`; tests have fakes that
pass the same contract tests. Every method may raise the transient and permanent errors of
`controller.errors`; only what is special is named here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from controller.core.securing import Guarded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime, timedelta

    from controller.core.approving import HeldSet, SetDigest
    from controller.core.claims import Backlog, Claim, ClaimKind
    from controller.core.drift import Drift
    from controller.core.events import Delivery
    from controller.core.outcomes import Absorbed, Closing, Outcome, Reduction, Removal, Updating
    from controller.core.plans import Plan
    from controller.core.proofs import Proof
    from controller.core.receipts import Receipt
    from controller.core.removals import RemovalTerms
    from controller.core.suspects import Suspects, Terms
    from controller.core.targets import Approval, Deletion, Policy
    from controller.core.users import Instance, ListedUser, Presence, Profile, UserId


class Clock(Protocol):
    """Time, so that tests can hold it."""

    def now(self) -> datetime:
        """Wall clock, aware, UTC."""

    def elapsed(self) -> float:
        """Seconds since some point; never goes back, and goes on while the machine sleeps."""


class Directory(Protocol):
    """Clerk, through one secret key."""

    async def instance(self) -> Instance:
        """Return the instance of the key. A key cannot change its instance, so this may be remembered."""

    def list_users(self) -> AsyncGenerator[Sequence[ListedUser], None]:
        """Yield every user once, in pages, in any order.

        An iteration that ends without an error was complete and consistent. Requests run ahead of it, so
        whoever may leave it early closes it (`contextlib.aclosing`).

        Raises:
            ListingIncomplete: duplicate id, broken order, short page, fewer users than Clerk counts.
        """

    async def find(self, user_ids: Sequence[UserId]) -> Mapping[UserId, datetime]:
        """Look again, by the `user_id` filter: those of `user_ids` that exist, with `created_at`."""

    async def look_up(self, user_id: UserId) -> Presence:
        """Ask for one user by id.

        Raises:
            ClerkAnswerOdd: neither this user nor the one 404 that proves absence.
        """

    @property
    def maps(self) -> bool:
        """Whether columns are mapped; if not, nothing below is asked."""

    async def profiles(self, user_ids: Sequence[UserId]) -> Sequence[Profile]:
        """Look again, by the `user_id` filter: what is mapped of those of `user_ids` who exist."""

    async def profile(self, user_id: UserId) -> Profile | None:
        """Ask for one user by id; None is the one 404 that proves absence.

        Raises:
            ClerkAnswerOdd: neither this user nor that 404.
        """


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is to be known of the target before a run; `warnings` are sentences for people.

    `unlisted_cascades`: sentences too, one for each foreign key that would delete rows of a table that is not
    listed along with a user's; while there is one, nobody is removed. `unnoted_links`: one for each key by which rows
    that stay lose what refers to a removed user's, so that no restore brings it back.
    """

    missing_tables: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unlisted_cascades: tuple[str, ...] = ()
    unnoted_links: tuple[str, ...] = ()


class Store(Guarded, Protocol):
    """The database of one target."""

    async def inspect(self) -> Inspection:
        """Check role, tables and columns.

        Raises:
            SchemaMissing, RoleSeesNotAll, TableUnsupported.
        """

    async def pinned_instance(self) -> str | None:
        """Return the instance id that this target belongs to, or None before first contact."""

    async def pin_instance(self, instance: Instance) -> None:
        """Pin the target to `instance`, once.

        Raises:
            WrongInstance: it is pinned to another one.
        """

    async def sample_user_ids(self, limit: int) -> Sequence[UserId]:
        """Return up to `limit` distinct ids of Clerk's form that have rows, spread over the table."""

    def begin_run(self, label: RunLabel) -> AbstractAsyncContextManager[Run]:
        """Take the lock, open the audit row, keep the heartbeat; release and close at the end.

        An error that leaves the block is written to the audit as the run's failure.

        Raises:
            TargetBusy: another run holds the lock and its heart beats.
        """


@dataclass(frozen=True, slots=True)
class RunLabel:
    """What the audit says of a run: whose, what, and by which program."""

    resource: str
    policy: Policy
    instance: Instance
    holder: str


class Run(Protocol):
    """One run under the lock. Every writing method raises `LockLost` once it was taken over."""

    @property
    def id(self) -> str:
        """The uuid of the audit row."""

    async def record_listed(self, user_ids: Sequence[UserId]) -> None:
        """Add a page of the listing (or users found by the second look) to the desired set."""

    async def record_values(self, profiles: Sequence[Profile]) -> None:
        """Add what is mapped of listed users; only where columns are mapped."""

    async def observe(self) -> Drift:
        """Compare the desired set with the tables; may be called again after changes.

        Raises:
            ListingIncomplete: the recorded ids are not all there any more (the table is unlogged).
        """

    def missing(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the listed, not tombstoned users without a profile row, in batches, in byte order."""

    def orphaned(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the users with rows who are not in the desired set, in batches, in byte order."""

    async def weigh(self, terms: Terms, approval: Approval | None, header: str) -> tuple[Suspects, str | None]:
        """Note the orphaned as suspects, by the database's clock, and set apart who is due and who is approved.

        Only for a complete listing that nothing contradicts. What is set apart stays as it is until the run
        ends. The second answer says why `approval` permits nobody, if it does not.
        """

    def due(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the users who are due and not approved, in batches, in byte order."""

    def approved(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the users who are due and approved, in batches, in byte order."""

    async def hold(self, digest: SetDigest) -> HeldSet:
        """Store the users who are due as a set that waits for a person, under its digest."""

    async def approve(self, approval: Approval) -> None:
        """Record who permitted the set, before anybody of it is removed."""

    async def use_up(self, approval: Approval) -> None:
        """Record that the set was removed: it permits nobody any more."""

    def duplicated(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the users with more than one profile row, in batches, in byte order."""

    async def create_profiles(self, user_ids: Sequence[UserId]) -> int:
        """Insert missing profile rows; returns how many. Never for a tombstoned user, never twice."""

    def outdated(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the listed users whose mapped columns differ, in batches, in byte order."""

    def behind(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the outdated, and those whose columns are in step but noted as of an earlier version."""

    async def doubtful(self, user_ids: Sequence[UserId], since: datetime) -> Sequence[UserId]:
        """Return those who were updated since then, in the very millisecond whose values the row should hold.

        The listing may have been written before all of that millisecond had happened.
        """

    async def update_profiles(
        self, user_ids: Sequence[UserId], confirmed: Sequence[Profile], since: datetime
    ) -> Updating:
        """Bring the mapped columns of these users in step, never with values older than those noted.

        `confirmed`: what Clerk said, asked again, of those who are `doubtful`; the others of them are left.
        """

    def misfits(self) -> Sequence[str]:
        """Say in sentences which values of Clerk's did not fit their columns; those columns are left as they are."""

    async def remove_users(self, proofs: Sequence[Proof], terms: RemovalTerms) -> Removal:
        """Tombstone, archive and delete all rows of these users, all of a user or nothing, with a receipt each.

        A proof that has expired, or is of another instance than the pinned one, leaves its user; a batch that
        would pass the limits leaves all of them. Users with very many rows are buried and begun, and reported as
        unfinished.
        """

    def unfinished(self) -> AsyncGenerator[Sequence[UserId], None]:
        """Yield the users whose removal in batches has begun, here or elsewhere, and not ended."""

    async def go_on(self, proof: Proof, terms: RemovalTerms) -> Removal:
        """Remove batches of an unfinished user for some seconds, with a receipt at the end.

        The answer says whether he is gone (or was, by somebody else), unfinished still, or left. Unfinished means
        that it went forward, so that asking again comes to an end.
        """

    async def reduce_duplicates(self, user_ids: Sequence[UserId]) -> Reduction:
        """Archive and delete all but the oldest profile row of each user.

        A user is left whose surplus rows are referred to by rows that would be deleted or unlinked with them.
        """

    async def finish(self, outcome: Outcome) -> Closing:
        """Close the audit row with what the run came to, and chain the receipts."""


class Inbox(Protocol):
    """The database as the webhook service uses it; message id and effect in one transaction."""

    async def create_profile(self, delivery: Delivery, user_id: UserId) -> Absorbed:
        """Insert one profile row under the user's lock, unless tombstoned, there, or repeated."""

    async def update_profile(self, delivery: Delivery, profile: Profile, *, inserts: bool) -> Absorbed:
        """Bring mapped columns in step with an event, unless tombstoned, later, or repeated; `inserts` a missing row.

        Where it cannot be told who is later, or a row is missing and not to be inserted unasked, the intent to ask
        Clerk is stored: DOUBTED.
        """

    async def record_claim(
        self, delivery: Delivery, user_id: UserId, kind: ClaimKind, holdback: timedelta | None = None
    ) -> Absorbed:
        """Store the durable intent to settle this user; `core.absorbing.ABSORBED` of the kind, or REPEATED.

        Due at once, or after `holdback` by the database's clock, which another message about the user does not begin
        anew, nor a clock that is set back prolong.
        """

    async def take_claims(self, limit: int, lease: timedelta) -> Sequence[Claim]:
        """Take due claims, oldest first; nobody else gets them before `lease` is over."""

    async def next_claim_due(self) -> timedelta | None:
        """Return how long until a claim is due (zero: one is), or None if there is none."""

    async def backlog(self) -> Backlog:
        """Count the claims, and say how long the oldest has been overdue."""

    async def expire_some(self) -> bool:
        """Delete a small batch of archived rows past their retention and of deliveries of 90 days ago.

        The answer says whether there may be more; it is no while another process is at it.
        """

    async def settle_by_removal(self, claim: Claim, proof: Proof, deletion: Deletion) -> Removal:
        """Tombstone, archive, delete, and end the claim, in one transaction.

        A proof that does not hold leaves user and claim as they are, and so do limits that it would pass. A user
        with very many rows may be unfinished after some seconds; the claim stays.
        """

    async def is_unfinished(self, user_id: UserId) -> bool:
        """Whether the user's removal in batches has begun and not ended."""

    async def is_held_back(self, user_id: UserId) -> bool:
        """Whether a deletion of the user is recorded whose holdback is not over, by the database's clock."""

    async def go_on_later(self, claim: Claim) -> None:
        """Let the claim be due at once, to whoever takes it, without counting an attempt."""

    async def is_swept(self, claim: Claim) -> bool:
        """End a second sweep if no row of its user has come back; False if one has."""

    async def hold_claim(self, claim: Claim, delay: timedelta) -> None:
        """Let the claim wait for the limits, and be due again after `delay`, by the database's clock."""

    async def settle_by_creation(self, claim: Claim) -> bool:
        """Insert the profile row if it is missing and not tombstoned, and end the claim.

        A claim that a new message began anew meanwhile stays: it may tell of the user's end.
        """

    async def settle_by_update(self, claim: Claim, profile: Profile, *, inserts: bool = True) -> bool:
        """Bring the row in step with what Clerk, asked by id, says, and end the claim; `inserts` a missing row.

        Never for a tombstoned user. A claim that a new message began anew meanwhile stays.
        """

    async def postpone_claim(self, claim: Claim, delay: timedelta, *, answered_present: bool) -> None:
        """Let the claim be due again after `delay`, by the database's clock."""

    async def discard_claim(self, claim: Claim) -> None:
        """End the claim without touching a row. One that a new message began anew meanwhile stays."""

    async def request_removal(self, user_id: UserId, lease: timedelta) -> Claim | None:
        """Store a user's own request, taken by the caller for `lease`; the same one if it waits already.

        None: he is gone on his own request already, and `receipt_of_request` has the receipt.
        """

    async def receipt_of_request(self, user_id: UserId) -> Receipt | None:
        """Return the receipt of a user who is gone on his own request, wholly."""

    async def keep_request(self, claim: Claim) -> None:
        """Note that Clerk has deleted the user: from now on his own request is not lifted."""

    async def lift_request(self, claim: Claim) -> bool:
        """End a user's own request; False, and it stands, where Clerk has deleted him or he is buried."""


class Phase(Enum):
    """Where a run is, for progress."""

    LIST = "listing Clerk's users"
    OBSERVE = "comparing with the database"
    SECOND_LOOK = "looking again for missing users"
    CREATE = "creating profiles"
    UPDATE = "updating profiles"
    REMOVE = "removing users"
    REDUCE = "removing duplicate profiles"


class Watcher(Protocol):
    """Who watches a run: a terminal, a log, a test."""

    def advance(self, phase: Phase, done: int) -> None:
        """Note that `done` users (not rows) of the phase are through so far."""

    def show(self, kind: str, user_ids: Sequence[UserId]) -> None:
        """Hear the ids of a kind of drift, such as `missing` or `orphaned`. Asked for only if `shows`."""

    @property
    def shows(self) -> bool:
        """Whether `show` is wanted; it costs a walk over all ids."""

    async def permit(self, plan: Plan) -> bool:
        """Answer whether a plan that deletes may be applied; asked once, before the first change."""


@dataclass(slots=True)
class Unwatched:
    """Nobody watches: everything the policy permits is permitted."""

    shows: bool = field(default=False, init=False)

    def advance(self, phase: Phase, done: int) -> None:
        """Ignore it."""

    def show(self, kind: str, user_ids: Sequence[UserId]) -> None:
        """Ignore it."""

    async def permit(self, plan: Plan) -> bool:
        """Permit: limits and proofs have been applied by then."""
        del plan
        return True
