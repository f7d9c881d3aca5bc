"""A run by the product itself, in which Clerk answers from this process, at once: what is left is the database's part.

``python -m tests.bench.orphans_ours DATABASE_URL USERS ORPHANS`` prints one line of JSON with its phases in seconds.
A proof of each user is asked for as ever, in batches of 500.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from controller.core.ports import Phase
from controller.core.sweeping import Sweeper
from controller.core.targets import Action, ClerkSource, Deletion, Limits, Spec, Target
from controller.core.users import Environment, Instance, ListedUser, Presence, UserId
from controller.postgres import Database
from controller.postgres.connections import ATTEMPTS, SHORT, Connections
from controller.runtime import SystemClock
from tests.bench.measuring import peak_memory
from tests.bench.ours import Timing
from tests.bench.population import Population, user_id
from tests.support.fakes.unmapped import Unmapped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from controller.core.plans import Plan
    from controller.postgres.connections import Limits as TransactionLimits
    from controller.postgres.connections import Transaction

T = TypeVar("T")

PAGE = 500
INSTANCE = Instance("ins_bench", Environment.PRODUCTION)
SIGNED_UP = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Answering(Unmapped):
    """A `core.ports.Directory` that knows all users but the orphans."""

    population: Population
    gone: frozenset[str]

    async def instance(self) -> Instance:
        return INSTANCE

    async def list_users(self) -> AsyncGenerator[Sequence[ListedUser], None]:
        for start in range(0, self.population.users, PAGE):
            places = range(start, min(start + PAGE, self.population.users))
            yield [
                ListedUser(UserId(user_id(place)), SIGNED_UP) for place in places if not self.population.is_gone(place)
            ]

    async def find(self, user_ids: Sequence[UserId]) -> Mapping[UserId, datetime]:
        return {user: SIGNED_UP for user in user_ids if user not in self.gone}

    async def look_up(self, user_id: UserId) -> Presence:
        return Presence.ABSENT if user_id in self.gone else Presence.PRESENT


@dataclass(frozen=True, slots=True)
class TimedConnections(Connections):
    """Notes how long each transaction took, in seconds, the wait for a connection and every retry included."""

    took: list[float] = field(default_factory=list)

    async def transact(
        self,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        limits: TransactionLimits = SHORT,
        isolation: str = "read_committed",
        attempts: int = ATTEMPTS,
    ) -> T:
        began = time.perf_counter()
        try:
            # Not by super(): a dataclass with slots is made twice.
            return await Connections.transact(self, work, limits=limits, isolation=isolation, attempts=attempts)
        finally:
            self.took.append(time.perf_counter() - began)


@dataclass(slots=True)
class Noting(Timing):
    """Notes too which of the transactions removed: those from the permission to the last batch."""

    took: list[float] = field(default_factory=list)
    first: int = 0
    last: int = 0

    def advance(self, phase: Phase, done: int) -> None:
        Timing.advance(self, phase, done)
        if phase is Phase.REMOVE:
            self.last = len(self.took)

    async def permit(self, plan: Plan) -> bool:
        self.first = len(self.took)
        return await Timing.permit(self, plan)


async def main(database_url: str, population: Population) -> None:
    """Do it and print the figures."""
    spec = Spec(
        "bench/bench",
        clerk=ClerkSource(instance_id=INSTANCE.id),
        actions=(Action.CLEANUP,),
        deletion=Deletion(grace_period=timedelta(), limits=Limits(users=10**9, percent=100)),
    )
    directory, clock = Answering(population, frozenset(population.gone())), SystemClock()
    async with Connections.open(database_url) as connections:
        timed = TimedConnections(connections.pool, connections.where)
        noting = Noting(took=timed.took)
        store = Database(timed, Target(), clock)
        await store.inspect()
        timed.took.clear()
        noting.watch.lap("opening")
        began = time.perf_counter()
        outcome = await Sweeper(directory, store, clock, noting).sweep(spec, holder="bench")
        noting.watch.lap("closing")
        seconds = time.perf_counter() - began
    laps, removed = noting.watch.laps, outcome.changes
    figures = {
        "listing": laps["listing"],
        "diff": laps["diff"] + laps["second look"],
        "removal": laps["apply"],
        "closing": laps["closing"],
        "seconds": seconds,
        "longest": max(timed.took[noting.first : noting.last]),
        "other": max(timed.took[: noting.first] + timed.took[noting.last :]),
        "rows_per_s": removed.rows_removed / laps["apply"],
        "peak_mib": peak_memory(),
    }
    print(json.dumps({**figures, "users": removed.users_removed, "rows": removed.rows_removed}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Population(int(sys.argv[2]), int(sys.argv[3]))))
