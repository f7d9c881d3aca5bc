"""A database of one target in memory: store, run and inbox of the core.

Keeps the promises that `controller.core.ports` names (all of a user or nothing, expired proofs leave their
user, a message has one effect), so that a test of the core sees what a real database would end as.
"""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from controller.core import receipts as core_receipts
from controller.core.absorbing import SECOND_SWEEP_DELAY
from controller.core.approving import VALID_FOR, HeldSet, name_after
from controller.core.claims import ABSORBED, Backlog, Claim, ClaimKind
from controller.core.drift import Drift, TableDrift
from controller.core.leaving import FOR_GOOD, OWN_REQUEST
from controller.core.mapping import Verdict, judge
from controller.core.outcomes import Absorbed, Closing, Outcome, Reduction, Removal, Updating
from controller.core.planning import allowance
from controller.core.policies import Mending, Security
from controller.core.ports import Inspection, RunLabel
from controller.core.removals import RemovalTerms
from controller.core.suspects import Suspects
from controller.core.targets import DeletionPolicy, Target
from controller.core.users import Instance, UserId, parse_user_id
from controller.errors import TargetBusy, WrongInstance

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from controller.core.approving import SetDigest
    from controller.core.events import Delivery
    from controller.core.ports import Clock
    from controller.core.proofs import Proof
    from controller.core.suspects import Terms
    from controller.core.targets import Approval, Deletion
    from controller.core.users import Profile
    from controller.errors import UserSyncError

SOME_TIME = datetime(2025, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """One row of any table; `number` is its primary key."""

    user_id: str | None
    number: int
    created_at: datetime | None = SOME_TIME
    values: tuple[Any, ...] = ()


@dataclass
class Suspect:
    """Since when, and until when at least, a user was absent; and of which instance."""

    since: datetime
    last: datetime
    instance: str


@dataclass
class Held:
    """A set that waits: its header and users, since when, and what became of it."""

    header: str
    users: frozenset[UserId]
    since: datetime
    last: datetime
    approved_by: str | None = None
    used: bool = False


@dataclass(frozen=True)
class Receipt:
    """What became of a user, and whether it counts against the limits."""

    user_id: UserId
    act: str
    counted: bool
    issued_at: datetime
    approval: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    requested_by: str = ""


@dataclass
class FakeStore:
    """The tables of one target.

    `unremovable` users have rows that a foreign key holds; `busy`: another run has the lock; `batch`: ids per
    batch; `errors`: by the method's name, what a method of the run raises; who has more than `bound` rows leaves
    by `bite` rows at a time, and is `begun` meanwhile.
    What happened: `archived` (table, row), `tombstones`, `receipts`, `finished` outcomes, `failures` of runs.
    `versions`: of which version the rows' values are; `run_type`: what `begin_run` gives.
    What waits: `suspects`, `held` sets by their digest, `held_claims` and claims `in_holdback` (numbers),
    rows `past_their_time` until they are `expired`.
    """

    clock: Clock
    target: Target = field(default_factory=Target)
    pinned: str | None = None
    inspection: Inspection = field(default_factory=Inspection)
    batch: int = 500
    busy: bool = False
    unremovable: set[UserId] = field(default_factory=set)
    referred_to: set[UserId] = field(default_factory=set)
    errors: dict[str, UserSyncError] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    archived: list[tuple[str, Row]] = field(default_factory=list)
    tombstones: set[UserId] = field(default_factory=set)
    labels: list[RunLabel] = field(default_factory=list)
    finished: list[Outcome] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    delivered: set[str] = field(default_factory=set)
    claims: dict[int, tuple[Claim, datetime]] = field(default_factory=dict)
    held_claims: set[int] = field(default_factory=set)
    kept_requests: set[int] = field(default_factory=set)
    in_holdback: set[int] = field(default_factory=set)
    recorded_at: dict[int, datetime] = field(default_factory=dict)
    past_their_time: int = 0
    expired: int = 0
    suspects: dict[UserId, Suspect] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    bound: int = 50_000
    bite: int = 10_000
    begun: set[UserId] = field(default_factory=set)
    versions: dict[UserId, int] = field(default_factory=dict)
    run_type: Callable[[FakeStore, RunLabel], FakeRun] = lambda store, label: FakeRun(store, label)  # noqa: PLW0108 - defined below
    security: Security = field(default_factory=lambda: Security("public", missing="Nothing of Supabase is here."))
    mended: list[Mending] = field(default_factory=list)
    _numbers: int = 0

    def __post_init__(self) -> None:
        """Make the tables of the target."""
        for table in self.target.tables:
            self.tables.setdefault(table.name, [])

    def add_row(
        self, table: str, user_id: str | None, created_at: datetime | None = SOME_TIME, values: tuple[Any, ...] = ()
    ) -> Row:
        """Insert a row as an application does."""
        nothing = (None,) * len(self.target.mapping) if table == self.target.profile.name else ()
        row = Row(user_id, self.next_number(), created_at, values or nothing)
        self.tables[table].append(row)
        return row

    def add_users(self, *user_ids: UserId) -> None:
        """Give each user one row in every table."""
        for user_id in user_ids:
            for table in self.tables:
                self.add_row(table, user_id)

    def next_number(self) -> int:
        """Return a primary key."""
        self._numbers += 1
        return self._numbers

    def users(self, table: str | None = None) -> set[UserId]:
        """Return the users of Clerk's form with a row in the table, or in any."""
        names = self.tables if table is None else [table]
        ids = (parse_user_id(row.user_id) for name in names for row in self.tables[name])
        return {user_id for user_id in ids if user_id is not None}

    def remove(self, proofs: Iterable[Proof], terms: RemovalTerms, requested_by: str = "") -> Removal:
        """Remove users, each whole or not at all, and all of them or none where the limits would be passed."""
        going: list[UserId] = []
        left = 0
        for proof in proofs:
            held = proof.user_id in self.unremovable or bool(self.inspection.unlisted_cascades)
            held = held and proof.user_id not in self.begun
            if held or proof.instance_id != self.pinned or not proof.holds(self.clock.elapsed()):
                left += 1
            else:
                going.append(proof.user_id)
        retained = self.tombstones - self.asked() if terms.policy is DeletionPolicy.RETAIN else set()
        counted = self.counted(terms.window) | (set(going) & self.users() - retained)
        if terms.permitted is not None and len(counted) > terms.permitted:
            return Removal(users_left=left + len(going), limit_reached=True)
        large = [user_id for user_id in going if self._is_large(user_id, terms)]
        whole = [user_id for user_id in going if user_id not in large]
        rows = sum([self._remove_one(user_id, terms, requested_by) for user_id in whole])
        rows += sum([self._begin(user_id, terms) for user_id in large])
        return Removal(len(whole), rows, left, users_unfinished=len(large))

    def _is_large(self, user_id: UserId, terms: RemovalTerms) -> bool:
        rows = sum(row.user_id == user_id for rows in self.tables.values() for row in rows)
        return terms.policy is not DeletionPolicy.RETAIN and (user_id in self.begun or rows > self.bound)

    def _begin(self, user_id: UserId, terms: RemovalTerms) -> int:
        if user_id in self.begun:
            return 0
        self.begun.add(user_id)
        self.tombstones.add(user_id)
        self.receipts.append(Receipt(user_id, "begun", terms.permitted is not None, self.clock.now(), terms.approval))
        return self._take_away(user_id, self.target.profile.name)

    def go_on_removing(self, proof: Proof) -> Removal:
        """Remove a bite of one table, or end the removal."""
        user_id = proof.user_id
        if user_id not in self.begun:
            return Removal()
        held = user_id in self.unremovable
        if held or proof.instance_id != self.pinned or not proof.holds(self.clock.elapsed()):
            return Removal(users_left=1)
        for table in self.tables:
            rows = self._take_away(user_id, table, self.bite)
            if rows:
                return Removal(rows=rows, users_unfinished=1)
        self.begun.remove(user_id)
        requested = self._request_of(user_id) is not None
        requested_by = OWN_REQUEST if requested else ""
        if requested:
            self.archived = [(table, row) for table, row in self.archived if row.user_id != user_id]
        self.receipts.append(
            Receipt(user_id, "ended", counted=False, issued_at=self.clock.now(), requested_by=requested_by)
        )
        self._end_claims(user_id, requested=requested)
        return Removal(users=1)

    def _end_claims(self, user_id: UserId, *, requested: bool = False) -> None:
        """End them all but his own request, which only being erased on it ends."""
        self.versions.pop(user_id, None)
        self.claims = {
            number: entry
            for number, entry in self.claims.items()
            if entry[0].user_id != user_id or (entry[0].kind is ClaimKind.OWN_REQUEST and not requested)
        }

    def _request_of(self, user_id: UserId) -> Claim | None:
        for claim, _ in self.claims.values():
            if claim.user_id == user_id and claim.kind is ClaimKind.OWN_REQUEST:
                return claim
        return None

    def counted(self, window: timedelta) -> set[UserId]:
        """Return the users who went within the window, and count."""
        since = self.clock.now() - window
        return {receipt.user_id for receipt in self.receipts if receipt.counted and receipt.issued_at > since}

    def asked(self) -> set[UserId]:
        """Return the users who are gone on their own request."""
        return {each.user_id for each in self.receipts if each.requested_by == OWN_REQUEST} & self.tombstones

    def _remove_one(self, user_id: UserId, terms: RemovalTerms, requested_by: str = "") -> int:
        if terms.policy is DeletionPolicy.RETAIN and user_id in self.asked():
            terms = replace(terms, policy=DeletionPolicy.ERASE)
        retains = terms.policy is DeletionPolicy.RETAIN
        if retains and user_id in self.tombstones:
            self._end_claims(user_id)
            return 0
        self.tombstones.add(user_id)
        owns = user_id in self.users()
        taken = {} if retains else {name: self._take_away(user_id, name) for name in self.tables}
        rows = sum(taken.values())
        if terms.policy is DeletionPolicy.ERASE:
            self.archived = [(table, row) for table, row in self.archived if row.user_id != user_id]
        counted = terms.permitted is not None and owns
        self.receipts.append(
            Receipt(
                user_id, terms.policy.value, counted, self.clock.now(), terms.approval,
                {name: number for name, number in taken.items() if number}, requested_by,
            )
        )  # fmt: skip
        self._end_claims(user_id, requested=bool(requested_by))
        return rows

    def _take_away(self, user_id: UserId, table: str, most: int | None = None) -> int:
        going = [row for row in self.tables[table] if row.user_id == user_id][:most]
        self.archived += [(table, row) for row in going]
        self.tables[table] = [row for row in self.tables[table] if row not in going]
        return len(going)

    def insert_profile(self, user_id: UserId, values: tuple[Any, ...] = ()) -> bool:
        """Insert a profile row unless there is one or a tombstone."""
        profile = self.target.profile.name
        if user_id in self.tombstones or user_id in self.users(profile):
            return False
        self.add_row(profile, user_id, self.clock.now(), values)
        return True

    def set_values(self, user_id: UserId, values: tuple[Any, ...]) -> None:
        """Set the mapped columns of a user, as anybody can."""
        name = self.target.profile.name
        self.tables[name] = [
            replace(row, values=values) if row.user_id == user_id else row for row in self.tables[name]
        ]

    def differs(self, profile: Profile) -> bool | None:
        """Whether a row of the user holds other values; None: he has none."""
        own = [row for row in self.tables[self.target.profile.name] if row.user_id == profile.user_id]
        return any(row.values != profile.values for row in own) if own else None

    def keep_in_step(self, profile: Profile, *, confirmed: bool, inserts: bool = True) -> Absorbed:
        """Do with what Clerk says of one user what may be done with it."""
        user_id, differs = profile.user_id, self.differs(profile)
        verdict = judge(profile.updated_at, self.versions.get(user_id), differs=differs, confirmed=confirmed)
        if verdict in {Verdict.OLDER, Verdict.DOUBT}:
            return Absorbed.OLDER if verdict is Verdict.OLDER else Absorbed.DOUBTED
        if differs is None and not inserts:
            return Absorbed.DOUBTED
        self.versions[user_id] = max(profile.updated_at, self.versions.get(user_id, 0))
        if differs is None:
            self.insert_profile(user_id, profile.values)
            return Absorbed.CREATED
        self.set_values(user_id, profile.values)
        return Absorbed.UPDATED if differs else Absorbed.PRESENT

    async def inspect(self) -> Inspection:
        return self.inspection

    async def read_security(self) -> Security:
        """What the test has set."""
        if (error := self.errors.get("read_security")) is not None:
            raise error
        return self.security

    async def mend_security(self, mending: Mending) -> None:
        """Note it."""
        self.mended.append(mending)
        if (error := self.errors.get("mend_security")) is not None:
            raise error

    async def pinned_instance(self) -> str | None:
        return self.pinned

    async def pin_instance(self, instance: Instance) -> None:
        if self.pinned not in {None, instance.id}:
            message = f"the target is pinned to {self.pinned}"
            raise WrongInstance(message)
        self.pinned = instance.id

    async def sample_user_ids(self, limit: int) -> Sequence[UserId]:
        ids = sorted(self.users())
        return ids[:: max(1, -(-len(ids) // limit))]

    @asynccontextmanager
    async def begin_run(self, label: RunLabel) -> AsyncGenerator[FakeRun, None]:
        if self.busy:
            message = "another run is at work"
            raise TargetBusy(message)
        self.labels.append(label)
        try:
            yield self.run_type(self, label)
        except BaseException as error:
            self.failures.append(error)
            raise

    async def create_profile(self, delivery: Delivery, user_id: UserId) -> Absorbed:
        if not self._is_new(delivery):
            return Absorbed.REPEATED
        if user_id in self.tombstones:
            return Absorbed.TOMBSTONED
        return Absorbed.CREATED if self.insert_profile(user_id) else Absorbed.PRESENT

    async def update_profile(self, delivery: Delivery, profile: Profile, *, inserts: bool) -> Absorbed:
        if not self._is_new(delivery):
            return Absorbed.REPEATED
        if profile.user_id in self.tombstones:
            return Absorbed.TOMBSTONED
        absorbed = self.keep_in_step(profile, confirmed=False, inserts=inserts)
        if absorbed is Absorbed.DOUBTED:
            self._claim(profile.user_id, ClaimKind.REFRESH)
        return absorbed

    async def record_claim(
        self, delivery: Delivery, user_id: UserId, kind: ClaimKind, holdback: timedelta | None = None
    ) -> Absorbed:
        if not self._is_new(delivery):
            return Absorbed.REPEATED
        self._claim(user_id, kind, holdback)
        return ABSORBED[kind]

    def _claim(self, user_id: UserId, kind: ClaimKind, holdback: timedelta | None = None) -> None:
        due = self.clock.now() + (holdback or timedelta())
        known = [(claim, at) for claim, at in self.claims.values() if (claim.user_id, claim.kind) == (user_id, kind)]
        number, due = (known[0][0].id, min(known[0][1], due)) if known else (self.next_number(), due)
        renewals = known[0][0].renewals + 1 if known else 0
        self.claims[number] = (Claim(number, user_id, kind, 0, 0, renewals), due)
        self.recorded_at.setdefault(number, self.clock.now())
        if holdback is not None and not known:
            self.in_holdback.add(number)

    def _is_new(self, delivery: Delivery) -> bool:
        if delivery.message_id in self.delivered:
            return False
        self.delivered.add(delivery.message_id)
        return True

    async def take_claims(self, limit: int, lease: timedelta) -> Sequence[Claim]:
        now = self.clock.now()
        due = sorted((at, claim.id) for claim, at in self.claims.values() if at <= now)[:limit]
        taken = [self.claims[number][0] for _, number in due]
        for claim in taken:
            self.claims[claim.id] = (claim, now + lease)
            if claim.id in self.in_holdback:
                self.in_holdback.remove(claim.id)
                self.recorded_at[claim.id] = now
        return taken

    async def next_claim_due(self) -> timedelta | None:
        times = [at for _, at in self.claims.values()]
        return max(timedelta(), min(times) - self.clock.now()) if times else None

    async def backlog(self) -> Backlog:
        claims = [claim for claim, _ in self.claims.values()]
        overdue = [
            self.recorded_at[claim.id]
            for claim in claims
            if claim.kind is not ClaimKind.SECOND_SWEEP and claim.id not in self.in_holdback | self.held_claims
        ]
        return Backlog(
            Counter(claim.kind for claim in claims),
            held_back=len(self.held_claims & set(self.claims)),
            oldest=max((self.clock.now() - at for at in overdue), default=timedelta()),
        )

    async def expire_some(self) -> bool:
        self.expired += min(self.past_their_time, 1000)
        self.past_their_time -= min(self.past_their_time, 1000)
        return self.past_their_time > 0

    async def settle_by_removal(self, claim: Claim, proof: Proof, deletion: Deletion) -> Removal:
        if claim.id not in self.claims:
            return Removal(users_left=1)
        left = await self.receipt_of_request(claim.user_id) is not None
        if left and claim.kind is not ClaimKind.SECOND_SWEEP and claim.user_id not in self.users():
            del self.claims[claim.id]
            return Removal(users=1)
        if self._request_of(claim.user_id) or (left and claim.kind is ClaimKind.SECOND_SWEEP):
            terms, requested_by = RemovalTerms.of(FOR_GOOD, None), OWN_REQUEST
        else:
            base = len(self.users() | self.counted(deletion.limits.window))
            terms, requested_by = RemovalTerms.of(deletion, allowance(deletion.limits, base)), ""
        removal = self.remove([proof], terms, requested_by)
        if removal.users_unfinished:
            removal = replace(removal, users_unfinished=0) + self.go_on_removing(proof)
        if removal.users and claim.kind is not ClaimKind.SECOND_SWEEP:
            sweep = Claim(self.next_number(), claim.user_id, ClaimKind.SECOND_SWEEP, attempts=0, present_answers=0)
            self.claims[sweep.id] = (sweep, self.clock.now() + SECOND_SWEEP_DELAY)
        return removal

    async def is_unfinished(self, user_id: UserId) -> bool:
        return user_id in self.begun

    async def is_held_back(self, user_id: UserId) -> bool:
        held = [self.claims[number] for number in self.in_holdback & set(self.claims)]
        return any(claim.user_id == user_id and due > self.clock.now() for claim, due in held)

    async def go_on_later(self, claim: Claim) -> None:
        self.claims[claim.id] = (claim, self.clock.now())

    async def is_swept(self, claim: Claim) -> bool:
        if claim.user_id in self.users() | self.begun:
            return False
        del self.claims[claim.id]
        return True

    async def hold_claim(self, claim: Claim, delay: timedelta) -> None:
        self.held_claims.add(claim.id)
        self.claims[claim.id] = (claim, self.clock.now() + delay)

    async def settle_by_creation(self, claim: Claim) -> bool:
        self._end_unless_renewed(claim)
        return self.insert_profile(claim.user_id)

    async def settle_by_update(self, claim: Claim, profile: Profile, *, inserts: bool = True) -> bool:
        if claim.id not in self.claims:
            return False
        self._end_unless_renewed(claim)
        if claim.user_id in self.tombstones:
            return False
        return self.keep_in_step(profile, confirmed=True, inserts=inserts) in {Absorbed.CREATED, Absorbed.UPDATED}

    def _end_unless_renewed(self, claim: Claim) -> None:
        standing, _ = self.claims.pop(claim.id)
        if standing.renewals != claim.renewals:
            self.claims[claim.id] = (standing, self.clock.now())

    async def postpone_claim(self, claim: Claim, delay: timedelta, *, answered_present: bool) -> None:
        if answered_present:
            later = replace(claim, present_answers=claim.present_answers + 1)
        else:
            later = replace(claim, attempts=claim.attempts + 1)
        self.claims[claim.id] = (later, self.clock.now() + delay)

    async def discard_claim(self, claim: Claim) -> None:
        standing, _ = self.claims[claim.id]
        if (standing.present_answers, standing.renewals) == (claim.present_answers, claim.renewals):
            del self.claims[claim.id]

    async def request_removal(self, user_id: UserId, lease: timedelta) -> Claim | None:
        if await self.receipt_of_request(user_id) is not None:
            return None
        known = self._request_of(user_id)
        number = known.id if known else self.next_number()
        claim = Claim(number, user_id, ClaimKind.OWN_REQUEST, attempts=0, present_answers=0)
        self.claims[number] = (claim, self.clock.now() + lease)
        return claim

    async def receipt_of_request(self, user_id: UserId) -> core_receipts.Receipt | None:
        if user_id not in self.tombstones:
            return None
        for number, each in enumerate(self.receipts, start=1):
            if each.user_id == user_id and each.requested_by == OWN_REQUEST:
                return core_receipts.Receipt(
                    position=number, act="erased", reason="requested", requested_by=each.requested_by,
                    issued_at=each.issued_at, counted=each.counted, approval=None, run_id=None, rows=each.rows,
                    user_hash="00" * 32, link="00" * 32,
                )  # fmt: skip
        return None

    async def keep_request(self, claim: Claim) -> None:
        self.kept_requests.add(claim.id)

    async def lift_request(self, claim: Claim) -> bool:
        if claim.user_id in self.tombstones or claim.id in self.kept_requests:
            return False
        return self.claims.pop(claim.id, None) is not None


@dataclass
class FakeRun:
    """One run of a `FakeStore`."""

    store: FakeStore
    label: RunLabel
    listed: set[UserId] = field(default_factory=set)
    values: dict[UserId, Profile] = field(default_factory=dict)
    due_users: set[UserId] = field(default_factory=set)
    approved_users: set[UserId] = field(default_factory=set)
    started_at: datetime = field(init=False)
    id: str = "11111111-2222-3333-4444-555555555555"

    def __post_init__(self) -> None:
        """Begin by the database's clock."""
        self.started_at = self.store.clock.now()

    async def record_listed(self, user_ids: Sequence[UserId]) -> None:
        self._may_raise("record_listed")
        self.listed.update(user_ids)

    async def record_values(self, profiles: Sequence[Profile]) -> None:
        for profile in profiles:
            known = self.values.get(profile.user_id)
            if known is None or known.updated_at <= profile.updated_at:
                self.values[profile.user_id] = profile

    async def observe(self) -> Drift:
        self._may_raise("observe")
        store, profile = self.store, self.store.target.profile.name
        with_rows, with_profile = store.users(), store.users(profile)
        surplus = {user_id: rows - 1 for user_id, rows in self._profile_rows().items() if rows > 1}
        foreign = {row.user_id for rows in store.tables.values() for row in rows if row.user_id}
        return Drift(
            clerk_users=len(self.listed),
            users_with_rows=len(with_rows),
            synced=len(self.listed & with_profile),
            missing=len(self._missing()),
            outdated=len(self._owed(behind=False)),
            clerk_only=len(self.listed - with_rows),
            orphaned=len(self._orphaned()),
            retained=len(with_rows - self.listed - self._orphaned()),
            duplicates=sum(surplus.values()),
            duplicated_users=len(surplus),
            foreign=len(foreign - with_rows),
            tables=tuple(self._table_drift(name) for name in store.tables),
        )

    def _table_drift(self, name: str) -> TableDrift:
        rows = [(row, parse_user_id(row.user_id)) for row in self.store.tables[name]]
        orphaned = sum(user_id is not None and user_id not in self.listed for _, user_id in rows)
        return TableDrift(name, len(rows), len(self.store.users(name) & self.listed), orphaned)

    def _profile_rows(self) -> Counter[UserId]:
        ids = (parse_user_id(row.user_id) for row in self.store.tables[self.store.target.profile.name])
        return Counter(user_id for user_id in ids if user_id is not None)

    def _missing(self) -> set[UserId]:
        return self.listed - self.store.users(self.store.target.profile.name) - self.store.tombstones

    def _orphaned(self) -> set[UserId]:
        orphaned = self.store.users() - self.listed
        retains = self.label.policy.deletion.policy is DeletionPolicy.RETAIN
        return orphaned - (self.store.tombstones - self.store.asked()) if retains else orphaned

    async def missing(self) -> AsyncGenerator[Sequence[UserId], None]:
        for batch in self._batches(self._missing()):
            yield batch

    def _owed(self, *, behind: bool) -> set[UserId]:
        """Whose columns differ and, with `behind`, whose version is noted as an earlier one."""
        versions = self.store.versions
        return {
            user_id
            for user_id, profile in self.values.items()
            if user_id not in self.store.tombstones
            and profile.updated_at >= versions.get(user_id, 0)
            and (differs := self.store.differs(profile)) is not None
            and (differs or (behind and user_id in versions and versions[user_id] < profile.updated_at))
        }

    async def outdated(self) -> AsyncGenerator[Sequence[UserId], None]:
        for batch in self._batches(self._owed(behind=False)):
            yield batch

    async def behind(self) -> AsyncGenerator[Sequence[UserId], None]:
        for batch in self._batches(self._owed(behind=True)):
            yield batch

    async def doubtful(self, user_ids: Sequence[UserId], since: datetime) -> Sequence[UserId]:
        return [user_id for user_id in user_ids if not self._is_settled(user_id, since)]

    def _is_settled(self, user_id: UserId, since: datetime) -> bool:
        updated_at = self.values[user_id].updated_at
        return updated_at != self.store.versions.get(user_id) or updated_at < since.timestamp() * 1000

    async def update_profiles(
        self, user_ids: Sequence[UserId], confirmed: Sequence[Profile], since: datetime
    ) -> Updating:
        self._may_raise("update_profiles")
        fresh = {profile.user_id: profile for profile in confirmed}
        updated = 0
        for user_id in user_ids:
            profile = self.values[user_id] if self._is_settled(user_id, since) else fresh.get(user_id)
            if profile is not None and user_id not in self.store.tombstones:
                updated += self.store.keep_in_step(profile, confirmed=True) is Absorbed.UPDATED
        return Updating(updated)

    def misfits(self) -> Sequence[str]:
        return []

    async def orphaned(self) -> AsyncGenerator[Sequence[UserId], None]:
        for batch in self._batches(self._orphaned()):
            yield batch

    async def weigh(self, terms: Terms, approval: Approval | None, header: str) -> tuple[Suspects, str | None]:
        self._may_raise("weigh")
        store, start, instance = self.store, self.started_at, self.label.instance.id
        orphaned = self._orphaned()
        store.suspects = {user_id: suspect for user_id, suspect in store.suspects.items() if user_id in orphaned}
        for user_id in orphaned:
            known = store.suspects.get(user_id)
            if known and known.instance == instance and timedelta() <= start - known.last <= terms.longest_gap:
                known.last = start
            else:
                store.suspects[user_id] = Suspect(start, start, instance)
        announced = {store.claims[number][0].user_id for number in store.held_claims & set(store.claims)}
        old = {user for user, suspect in store.suspects.items() if start - suspect.since >= terms.grace_period}
        in_holdback = [store.claims[number] for number in store.in_holdback & set(store.claims)]
        waiting_for = {claim.user_id for claim, at in in_holdback if at > store.clock.now()}
        self.due_users = orphaned & ((old - waiting_for) | store.tombstones | announced)
        for held in store.held.values():
            held.users &= self.due_users
        permits, refusal = self._permits(approval, header)
        self.approved_users = self.due_users & permits
        self.due_users -= self.approved_users
        counted = store.counted(terms.window)
        waiting = len(orphaned - self.due_users - self.approved_users)
        suspects = Suspects(
            len(self.due_users), len(self.due_users & counted), waiting, len(counted), 0, len(self.approved_users)
        )
        return suspects, refusal

    def _permits(self, approval: Approval | None, header: str) -> tuple[frozenset[UserId], str | None]:
        if approval is None:
            return frozenset(), None
        held = self.store.held.get(approval.digest)
        if held is None or held.used or held.header != header or held.last < self.store.clock.now() - VALID_FOR:
            return frozenset(), "The approval is of no effect."
        return held.users, None

    async def due(self) -> AsyncGenerator[Sequence[UserId], None]:
        for batch in self._batches(self.due_users):
            yield batch

    async def approved(self) -> AsyncGenerator[Sequence[UserId], None]:
        for batch in self._batches(self.approved_users):
            yield batch

    async def hold(self, digest: SetDigest) -> HeldSet:
        now, name = self.store.clock.now(), digest.hexdigest()
        while name in self.store.held and self.store.held[name].used:
            name = name_after(name)
        known = self.store.held.get(name)
        since = known.since if known else now
        self.store.held[name] = Held(digest.header, frozenset(self.due_users), since, now)
        return HeldSet(name, len(self.due_users), since, known is not None)

    async def approve(self, approval: Approval) -> None:
        held = self.store.held[approval.digest]
        held.approved_by = held.approved_by or approval.given_by

    async def use_up(self, approval: Approval) -> None:
        self.store.held[approval.digest].used = True

    async def duplicated(self) -> AsyncGenerator[Sequence[UserId], None]:
        for batch in self._batches(user_id for user_id, rows in self._profile_rows().items() if rows > 1):
            yield batch

    def _batches(self, user_ids: Iterable[UserId]) -> list[list[UserId]]:
        ordered, size = sorted(user_ids), self.store.batch
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    async def create_profiles(self, user_ids: Sequence[UserId]) -> int:
        self._may_raise("create_profiles")
        created = 0
        for user_id in user_ids:
            profile = self.values.get(user_id)
            inserted = self.store.insert_profile(user_id, () if profile is None else profile.values)
            if inserted and profile is not None:
                self.store.versions[user_id] = profile.updated_at
            created += inserted
        return created

    async def remove_users(self, proofs: Sequence[Proof], terms: RemovalTerms) -> Removal:
        self._may_raise("remove_users")
        return self.store.remove(proofs, terms)

    async def unfinished(self) -> AsyncGenerator[Sequence[UserId], None]:
        for batch in self._batches(self.store.begun):
            yield batch

    async def go_on(self, proof: Proof, terms: RemovalTerms) -> Removal:
        del terms
        self._may_raise("go_on")
        return self.store.go_on_removing(proof)

    async def reduce_duplicates(self, user_ids: Sequence[UserId]) -> Reduction:
        self._may_raise("reduce_duplicates")
        profile = self.store.target.profile.name
        surplus: set[Row] = set()
        for user_id in set(user_ids) - self.store.referred_to:
            own = [row for row in self.store.tables[profile] if row.user_id == user_id]
            own.sort(key=lambda row: (row.created_at is None, row.created_at or SOME_TIME, row.number))
            surplus.update(own[1:])
        self.store.archived += [(profile, row) for row in sorted(surplus, key=lambda row: row.number)]
        self.store.tables[profile] = [row for row in self.store.tables[profile] if row not in surplus]
        return Reduction(len(surplus), len(self.store.referred_to.intersection(user_ids)))

    async def finish(self, outcome: Outcome) -> Closing:
        self.store.finished.append(outcome)
        held = self.store.held_claims & set(self.store.claims)
        return Closing(len(self.store.receipts), None, len(held))

    def _may_raise(self, method: str) -> None:
        if method in self.store.errors:
            raise self.store.errors[method]
