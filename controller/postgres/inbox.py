"""Events and claims: message id and effect in one transaction, each under its user's lock.

Decides nothing about a user; that is `core.absorbing`. Events that wait at the same time share a transaction
(`grouping`, `recording`). It does not take the run lock: the users' locks order
events and runs. Used by `database`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from controller.core.absorbing import LONGEST_DELAY, SECOND_SWEEP_DELAY
from controller.core.claims import Backlog, Claim, ClaimKind
from controller.core.leaving import OWN_REQUEST
from controller.core.outcomes import Absorbed, Removal
from controller.core.removals import RemovalTerms
from controller.core.users import UserId
from controller.postgres import leaving
from controller.postgres.connections import LONG, Connections
from controller.postgres.counting import Bounds
from controller.postgres.creating import buried, insert_profiles, lock_users, unsupported
from controller.postgres.expiring import expire_some
from controller.postgres.failures import RowsHeld
from controller.postgres.grouping import Grouping
from controller.postgres.purging import Purging, any_unfinished
from controller.postgres.queries import load
from controller.postgres.receipting import RECENT, LimitReached, chain, permitted_to_events
from controller.postgres.recording import Errand, Recording
from controller.postgres.removing import (
    DELETED,
    REQUESTED,
    SWEPT,
    ProofExpired,
    Removing,
    UsersLarge,
    any_rows,
    count_rows,
)
from controller.postgres.restoring import own_request
from controller.postgres.shapes import describe, describe_profile
from controller.postgres.updating import Writing, describe_writing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from controller.core.events import Delivery
    from controller.core.ports import Clock
    from controller.core.proofs import Proof
    from controller.core.receipts import Receipt
    from controller.core.targets import Deletion, Target
    from controller.core.users import Profile
    from controller.postgres.connections import Transaction

T = TypeVar("T")

log = structlog.get_logger(__name__)

_SQL: Final = load("inbox")
EVENT: Final = "user.deleted event"
"""On whose request, in receipts."""
KINDS: Final = [kind.value for kind in ClaimKind]
"""Those that we know: while a newer version is rolled out, its claims of other kinds are left to it."""


class ClaimEnded(Exception):
    """The claim stands no more; the transaction rolls back."""


@dataclass(slots=True)
class PostgresInbox:
    """A `core.ports.Inbox` of one target."""

    connections: Connections
    target: Target
    clock: Clock
    bounds: Bounds = field(default_factory=Bounds)
    _grouping: Grouping[Errand, Absorbed] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Let events be committed in groups."""
        self._grouping = Grouping(Recording(self.connections, self.target))

    async def create_profile(self, delivery: Delivery, user_id: UserId) -> Absorbed:
        """Insert one profile row under the user's lock, unless buried, there, or repeated."""
        return await self._grouping.fulfil(Errand(delivery, user_id))

    async def update_profile(self, delivery: Delivery, profile: Profile, *, inserts: bool) -> Absorbed:
        """Bring mapped columns in step with an event, or insert the row; where in doubt, store the intent to ask."""
        user_id = profile.user_id

        async def update(transaction: Transaction, *, sparing: bool = False) -> Absorbed:
            await lock_users(transaction, self.target.schema, [user_id])
            if not await self._is_new(transaction, delivery):
                return Absorbed.REPEATED
            if await buried(transaction, self.target.schema, [user_id]):
                return Absorbed.TOMBSTONED
            writing = await self._writing(transaction, sparing=sparing)
            absorbed = await writing.keep_in_step(transaction, profile, confirmed=False, inserts=inserts)
            if absorbed is Absorbed.DOUBTED:
                await transaction.change(
                    _SQL["record_claims"], self.target.schema, [user_id], [ClaimKind.REFRESH.value]
                )
            return absorbed

        return await self._sparing(update)

    async def record_claim(
        self, delivery: Delivery, user_id: UserId, kind: ClaimKind, holdback: timedelta | None = None
    ) -> Absorbed:
        """Store the durable intent to settle this user, at once or after the holdback."""
        return await self._grouping.fulfil(Errand(delivery, user_id, kind, holdback))

    async def finish_recording(self) -> None:
        """Take no more events, and return when those taken are committed or refused."""
        await self._grouping.close()

    async def take_claims(self, limit: int, lease: timedelta) -> Sequence[Claim]:
        """Take due claims, oldest first; nobody else gets them before `lease` is over."""

        async def take(transaction: Transaction) -> list[Claim]:
            await transaction.change(_SQL["bound_holdbacks"], self.target.schema)
            rows = await transaction.rows(_SQL["take_claims"], self.target.schema, limit, lease, LONGEST_DELAY, KINDS)
            return [
                Claim(
                    row["id"],
                    UserId(row["user_id"]),
                    ClaimKind(row["kind"]),
                    row["attempts"],
                    row["present_answers"],
                    row["renewals"],
                )
                for row in sorted(rows, key=lambda row: (row["was_due_at"], row["id"]))
            ]

        return await self.connections.transact(take)

    async def next_claim_due(self) -> timedelta | None:
        """Return how long until a claim is due, or None if there is none."""

        async def look(transaction: Transaction) -> timedelta | None:
            due_in: timedelta | None = await transaction.value(_SQL["next_claim_due"], self.target.schema, KINDS)
            return due_in

        return await self.connections.transact(look)

    async def backlog(self) -> Backlog:
        """Count the claims, and say how long the oldest has been overdue."""

        async def look(transaction: Transaction) -> Backlog:
            rows = await transaction.rows(_SQL["count_claims"], self.target.schema, KINDS)
            return Backlog(
                {ClaimKind(row["kind"]): row["waiting"] for row in rows},
                held_back=sum(row["held_back"] for row in rows),
                oldest=max((row["oldest"] for row in rows if row["oldest"]), default=timedelta()),
            )

        return await self.connections.transact(look)

    async def expire_some(self) -> bool:
        """Delete a small batch of what is past its time."""
        return await self.connections.transact(lambda transaction: expire_some(transaction, self.target.schema))

    async def settle_by_removal(self, claim: Claim, proof: Proof, deletion: Deletion) -> Removal:
        """Tombstone, archive, delete, and end the user's claims, in one transaction.

        A user with too many rows for one is removed in batches, as many as one proof permits.
        """
        if proof.user_id != claim.user_id:
            return Removal(users_left=1)
        try:
            removal = await self._remove(claim, proof, deletion)
        except (ClaimEnded, ProofExpired):
            return Removal(users_left=1)
        except LimitReached:
            log.warning("claim_beyond_limits", claim=claim.id)
            return Removal(users_left=1, limit_reached=True)
        except RowsHeld as held:
            log.warning("user_left", reason=str(held))
            log.debug("user_left", user_id=claim.user_id)
            return Removal(users_left=1)
        await self.connections.transact(lambda transaction: chain(transaction, self.target.schema, looks_back=RECENT))
        return removal

    async def _remove(self, claim: Claim, proof: Proof, deletion: Deletion) -> Removal:
        async def remove(transaction: Transaction) -> Removal:
            removing = await self._removing(transaction, claim, deletion)
            if await self._left_before(transaction, claim, removing):
                return Removal(users=1)
            gone = await removing.remove(transaction, [proof])
            if not gone:
                return Removal(users_left=1)
            if removing.reason == REQUESTED:
                await leaving.forget_traces(transaction, removing.schema, claim.user_id)
            if removing.reason != SWEPT:
                await transaction.change(_SQL["record_second_sweeps"], removing.schema, list(gone), SECOND_SWEEP_DELAY)
            return Removal(1, count_rows(gone))

        async def begin(transaction: Transaction) -> tuple[Purging, Removal]:
            purging = Purging(await self._removing(transaction, claim, deletion), proof)
            return purging, await purging.begin(transaction)

        try:
            return await self.connections.transact(remove, limits=LONG)
        except UsersLarge:
            purging, begun = await self.connections.transact(begin, limits=LONG)
        if begun.users_left:
            return begun
        return replace(begun, users_unfinished=0) + await purging.go_on(self.connections.transact)

    async def _removing(self, transaction: Transaction, claim: Claim, deletion: Deletion) -> Removing:
        """Lock the claim's user, and say on what terms he may be removed.

        Raises:
            ClaimEnded: the claim has been settled, or its user put back, since it was taken.
        """
        schema = self.target.schema
        await lock_users(transaction, schema, [claim.user_id])
        if not await transaction.value(_SQL["claim_stands"], claim.id):
            raise ClaimEnded
        shapes = await describe(transaction, self.target)
        swept = claim.kind is ClaimKind.SECOND_SWEEP
        if await leaving.on_own_request(transaction, schema, claim):
            reason = SWEPT if swept else REQUESTED
            return Removing(schema, shapes, self.clock, own_request(), reason, OWN_REQUEST, bounds=self.bounds)
        permitted = await permitted_to_events(transaction, schema, deletion.limits, shapes.profile)
        terms = RemovalTerms.of(deletion, permitted)
        return Removing(schema, shapes, self.clock, terms, SWEPT if swept else DELETED, EVENT, bounds=self.bounds)

    async def _left_before(self, transaction: Transaction, claim: Claim, removing: Removing) -> bool:
        """End an event about a user who left on his own request: he has his receipt, and nothing is left of him."""
        if removing.reason != DELETED:
            return False
        if await leaving.receipt_of_request(transaction, removing.schema, claim.user_id) is None:
            return False
        if await any_rows(transaction, removing.shapes, [claim.user_id]):
            return False
        await transaction.change(_SQL["end_claim"], claim.id)
        return True

    async def is_unfinished(self, user_id: UserId) -> bool:
        """Whether the user's removal in batches has begun and not ended."""
        return await self.connections.transact(
            lambda transaction: any_unfinished(transaction, self.target.schema, [user_id])
        )

    async def is_held_back(self, user_id: UserId) -> bool:
        """Whether a deletion of the user is recorded whose holdback is not over."""

        async def look(transaction: Transaction) -> bool:
            held: bool = await transaction.value(_SQL["in_holdback"], self.target.schema, user_id)
            return held

        return await self.connections.transact(look)

    async def go_on_later(self, claim: Claim) -> None:
        """Let the claim be due at once, to whoever takes it, without counting an attempt."""

        async def release(transaction: Transaction) -> None:
            await transaction.change(_SQL["postpone_claim"], claim.id, timedelta(), 0, 0)

        await self.connections.transact(release)

    async def is_swept(self, claim: Claim) -> bool:
        """End a second sweep if no row of its user has come back."""

        async def look(transaction: Transaction) -> bool:
            await lock_users(transaction, self.target.schema, [claim.user_id])
            shapes = await describe(transaction, self.target)
            # Whose rows came back in great number, and are all gone but for the end of it, is not swept yet.
            if await any_unfinished(transaction, self.target.schema, [claim.user_id]):
                return False
            if await any_rows(transaction, shapes, [claim.user_id]):
                return False
            await transaction.change(_SQL["end_claim"], claim.id)
            return True

        return await self.connections.transact(look, limits=LONG)

    async def hold_claim(self, claim: Claim, delay: timedelta) -> None:
        """Let the claim wait for the limits, by the database's clock."""

        async def hold(transaction: Transaction) -> None:
            await transaction.change(_SQL["hold_claim"], claim.id, delay)

        await self.connections.transact(hold)

    async def settle_by_creation(self, claim: Claim) -> bool:
        """Insert the profile row if it is missing and the user not buried, and end the claim unless begun anew."""

        async def create(transaction: Transaction) -> bool:
            await lock_users(transaction, self.target.schema, [claim.user_id])
            if not await self._end_unless_renewed(transaction, claim):
                return False
            if await buried(transaction, self.target.schema, [claim.user_id]):
                return False
            return await self._insert(transaction, claim.user_id)

        return await self._creating(create)

    async def settle_by_update(self, claim: Claim, profile: Profile, *, inserts: bool = True) -> bool:
        """Bring the row in step with what Clerk, asked by id, says, and end the claim unless it was begun anew.

        Whose claim stands no more asked Clerk before somebody else did, who has written that.
        """

        async def update(transaction: Transaction, *, sparing: bool = False) -> bool:
            await lock_users(transaction, self.target.schema, [claim.user_id])
            if not await self._end_unless_renewed(transaction, claim):
                return False
            if await buried(transaction, self.target.schema, [claim.user_id]):
                return False
            writing = await self._writing(transaction, sparing=sparing)
            absorbed = await writing.keep_in_step(transaction, profile, confirmed=True, inserts=inserts)
            return absorbed in {Absorbed.CREATED, Absorbed.UPDATED}

        return await self._sparing(update)

    async def _end_unless_renewed(self, transaction: Transaction, claim: Claim) -> bool:
        """End the claim, or let one that a new message began anew be due at once; False if it stands no more."""
        if await transaction.change(_SQL["end_unrenewed_claim"], claim.id, claim.renewals):
            return True
        return await transaction.change(_SQL["hasten_claim"], claim.id) == 1

    async def postpone_claim(self, claim: Claim, delay: timedelta, *, answered_present: bool) -> None:
        """Let the claim be due again after `delay`, by the database's clock."""

        async def postpone(transaction: Transaction) -> None:
            counted = (0, 1) if answered_present else (1, 0)
            await transaction.change(_SQL["postpone_claim"], claim.id, delay, *counted)

        await self.connections.transact(postpone)

    async def discard_claim(self, claim: Claim) -> None:
        """End the claim without touching a row; one that was begun anew meanwhile stays."""

        async def discard(transaction: Transaction) -> None:
            await transaction.change(_SQL["discard_claim"], claim.id, claim.present_answers, claim.renewals)

        await self.connections.transact(discard)

    async def request_removal(self, user_id: UserId, lease: timedelta) -> Claim | None:
        """Store a user's own request, taken for `lease`; None if he is gone on his own request already."""
        return await self.connections.transact(
            lambda transaction: leaving.request_removal(transaction, self.target.schema, user_id, lease)
        )

    async def receipt_of_request(self, user_id: UserId) -> Receipt | None:
        """Return the receipt of a user who is gone on his own request, wholly."""
        return await self.connections.transact(
            lambda transaction: leaving.linked_receipt(transaction, self.target.schema, user_id)
        )

    async def keep_request(self, claim: Claim) -> None:
        """Note that Clerk has deleted the user: from now on his own request is not lifted."""
        await self.connections.transact(lambda transaction: leaving.keep_request(transaction, claim))

    async def lift_request(self, claim: Claim) -> bool:
        """End a user's own request; False, and it stands, where Clerk has deleted him or he is buried."""
        return await self.connections.transact(
            lambda transaction: leaving.lift_request(transaction, self.target.schema, claim)
        )

    async def _creating(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        try:
            return await self.connections.transact(work)
        except RowsHeld as held:
            raise unsupported(self.target.schema, self.target.profile.name, held) from held

    async def _sparing(self, work: Callable[..., Awaitable[T]]) -> T:
        """Do the work; where the database refuses a value, again without what it refuses."""
        try:
            return await self.connections.transact(work)
        except RowsHeld:
            return await self._creating(partial(work, sparing=True))

    async def _insert(self, transaction: Transaction, user_id: UserId) -> bool:
        return bool(await insert_profiles(transaction, await describe_profile(transaction, self.target), [user_id]))

    async def _writing(self, transaction: Transaction, *, sparing: bool) -> Writing:
        writing = await describe_writing(transaction, await describe_profile(transaction, self.target))
        if writing is None:
            message = "values of users without a column that is mapped"
            raise ValueError(message)
        return replace(writing, sparing=sparing)

    async def _is_new(self, transaction: Transaction, delivery: Delivery) -> bool:
        recorded = await transaction.rows(
            _SQL["record_deliveries"], self.target.schema, [delivery.message_id], [delivery.event_type]
        )
        return bool(recorded)
