"""What one transaction does with the events of a group: message ids, profiles and claims, each set by set.

Decides nothing about a user; that is `core.absorbing`. First the users' locks, in a statement of their own; then the
message ids, of which one that is there already takes its event out; then tombstones, profiles and claims. The shape of
the profile table is read again every few seconds, and for whatever goes alone: what an old one gets wrong, the
server refuses. Used by `inbox`, through `grouping`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from controller.core.claims import ABSORBED
from controller.core.outcomes import Absorbed
from controller.postgres.connections import Limits
from controller.postgres.creating import buried, insert_profiles, lock_free_users, lock_users, unsupported
from controller.postgres.failures import RowsHeld
from controller.postgres.queries import load
from controller.postgres.shapes import describe_profile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from controller.core.claims import ClaimKind
    from controller.core.events import Delivery
    from controller.core.targets import Target
    from controller.core.users import UserId
    from controller.postgres.connections import Connections, Transaction
    from controller.postgres.shapes import Shape

_SQL: Final = load("inbox")
TOGETHER: Final = Limits(timedelta(seconds=5), lock=timedelta(milliseconds=500))
"""Many wait for a group: what cannot be had soon is left to those who want it."""
TOGETHER_ATTEMPTS: Final = 2
ALONE: Final = Limits(timedelta(seconds=30), lock=timedelta(seconds=2))
ALONE_ATTEMPTS: Final = 3
"""Svix takes 15 s as the end of an attempt."""
SHAPE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Errand:
    """What an event asks for: a claim of a kind, due at once or after `holdback`, or without a kind a profile."""

    delivery: Delivery
    user_id: UserId
    kind: ClaimKind | None = None
    holdback: timedelta | None = None


@dataclass(slots=True)
class Recording:
    """Does errands on one target; a `grouping.Transactions`."""

    connections: Connections
    target: Target
    _profile: Shape | None = field(default=None, init=False)
    _read_at: float = field(default=float("-inf"), init=False)

    async def together(self, wishes: Sequence[Errand]) -> list[Absorbed | None]:
        """Do all whose users nobody else works on; None: somebody does.

        Raises:
            UserSyncError: nothing is done, and one of them may be the cause.
        """

        async def record(transaction: Transaction) -> list[Absorbed | None]:
            free = await lock_free_users(transaction, self.target.schema, [errand.user_id for errand in wishes])
            within = [errand for errand in wishes if errand.user_id in free]
            results = iter(await self._record(transaction, within))
            return [next(results) if errand.user_id in free else None for errand in wishes]

        return await self.connections.transact(record, limits=TOGETHER, attempts=TOGETHER_ATTEMPTS)

    async def alone(self, wish: Errand) -> Absorbed:
        """Do one errand, waiting for whoever works on its user."""

        async def record(transaction: Transaction) -> Absorbed:
            # the shape that was remembered may be why it did not go together with others
            self._profile = None
            await lock_users(transaction, self.target.schema, [wish.user_id])
            (result,) = await self._record(transaction, [wish])
            return result

        try:
            return await self.connections.transact(record, limits=ALONE, attempts=ALONE_ATTEMPTS)
        except RowsHeld as held:
            raise unsupported(self.target.schema, self.target.profile.name, held) from held

    async def _record(self, transaction: Transaction, errands: Sequence[Errand]) -> list[Absorbed]:
        """Do errands in the order in which they came; the locks are held. Of one message the first counts."""
        if not errands:
            return []
        first: dict[str, Errand] = {}
        for errand in errands:
            first.setdefault(errand.delivery.message_id, errand)
        new = await self._new(transaction, [errand.delivery for errand in first.values()])
        todo = [errand for message_id, errand in first.items() if message_id in new]
        creating = [errand.user_id for errand in todo if errand.kind is None]
        gone = await buried(transaction, self.target.schema, creating) if creating else set()
        created = await self._create(transaction, [user_id for user_id in creating if user_id not in gone])
        await self._claim(transaction, todo)
        results: list[Absorbed] = []
        for errand in errands:
            is_new = errand.delivery.message_id in new
            new.discard(errand.delivery.message_id)
            results.append(_result(errand, created, gone) if is_new else Absorbed.REPEATED)
            if is_new and errand.kind is None:
                # of two messages about one newcomer, one created him
                created.discard(errand.user_id)
        return results

    async def _new(self, transaction: Transaction, deliveries: Sequence[Delivery]) -> set[str]:
        recorded = await transaction.rows(
            _SQL["record_deliveries"],
            self.target.schema,
            [delivery.message_id for delivery in deliveries],
            [delivery.event_type for delivery in deliveries],
        )
        return {row["message_id"] for row in recorded}

    async def _create(self, transaction: Transaction, user_ids: Sequence[UserId]) -> set[str]:
        if not user_ids:
            return set()
        return await insert_profiles(transaction, await self._shape(transaction), user_ids)

    async def _claim(self, transaction: Transaction, errands: Sequence[Errand]) -> None:
        """Record each claim once; of two on one user that are held back the shorter holdback counts."""
        due: dict[tuple[UserId, str], None] = {}
        held: dict[tuple[UserId, str], timedelta] = {}
        for errand in errands:
            if errand.kind is None:
                continue
            claim = (errand.user_id, errand.kind.value)
            if errand.holdback is None:
                due[claim] = None
            else:
                held[claim] = min(errand.holdback, held.get(claim, errand.holdback))
        if due:
            await transaction.change(_SQL["record_claims"], self.target.schema, *_columns(due))
        if held:
            holdbacks = [f"{holdback.total_seconds():.6f} seconds" for holdback in held.values()]
            await transaction.change(_SQL["record_held_claims"], self.target.schema, *_columns(held), holdbacks)

    async def _shape(self, transaction: Transaction) -> Shape:
        """Return the profile table as it is, or was some seconds ago."""
        if self._profile is None or time.monotonic() - self._read_at > SHAPE_SECONDS:
            self._profile = await describe_profile(transaction, self.target)
            self._read_at = time.monotonic()
        return self._profile


def _result(errand: Errand, created: set[str], gone: set[str]) -> Absorbed:
    if errand.kind is not None:
        return ABSORBED[errand.kind]
    if errand.user_id in gone:
        return Absorbed.TOMBSTONED
    return Absorbed.CREATED if errand.user_id in created else Absorbed.PRESENT


def _columns(claims: Iterable[tuple[UserId, str]]) -> tuple[list[UserId], list[str]]:
    pairs = list(claims)
    return [user_id for user_id, _ in pairs], [kind for _, kind in pairs]
