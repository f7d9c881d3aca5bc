"""One full sync by the product itself, as the controller does it.

``python -m tests.bench.ours CLERK_URL KEY DATABASE_URL [values]`` prints one line of JSON with its phases in seconds.
`apply` includes the proof of each user by a look-up of his own, which the naive way does not have, under Clerk's rate
limit. With `values` three columns of the profile table are mapped.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from controller.core.mapping import MappedColumn, parse_field
from controller.core.ports import Phase, Unwatched
from controller.core.targets import DEFAULT_TABLES, Action, ClerkSource, Deletion, Limits, Spec, Target
from controller.runtime import open_sweeper
from controller.settings import ClerkURLs, Credentials
from tests.bench.measuring import Stopwatch, peak_memory

if TYPE_CHECKING:
    from controller.core.plans import Plan

LAPS = {
    Phase.LIST: "listing",
    Phase.OBSERVE: "diff",
    Phase.SECOND_LOOK: "second look",
    Phase.CREATE: "apply",
    Phase.UPDATE: "update",
    Phase.REMOVE: "apply",
    Phase.REDUCE: "apply",
}


MAPPED = tuple(
    MappedColumn(column, parsed)
    for column, source in (("email", "primaryEmailAddress"), ("name", "fullName"), ("plan", "publicMetadata.plan"))
    if (parsed := parse_field(source)) is not None
)


@dataclass(slots=True)
class Timing(Unwatched):
    """Books the time since the last sign of life to the phase that gives the next one."""

    watch: Stopwatch = field(default_factory=Stopwatch)

    def advance(self, phase: Phase, done: int) -> None:
        """Book it; the start of an observation still belongs to what went before."""
        if phase is not Phase.OBSERVE or done:
            self.watch.lap(LAPS[phase])

    async def permit(self, plan: Plan) -> bool:
        """Permit, and let the planning count as diff."""
        del plan
        self.watch.lap("diff")
        return True


async def main(url: str, key: str, database_url: str, values: str = "") -> None:
    """Do it and print the figures."""
    profile = replace(DEFAULT_TABLES[0], values=MAPPED if values else ())
    spec = Spec(
        "bench/bench",
        clerk=ClerkSource(api_url=url, rate_limit_share=100),
        target=Target(tables=(profile, *DEFAULT_TABLES[1:])),
        actions=(Action.FULL_SYNC,),
        deletion=Deletion(grace_period=timedelta(), limits=Limits(users=10**9, percent=100)),
    )
    timing = Timing()
    async with open_sweeper(
        spec, Credentials(key, database_url), ClerkURLs(allow_insecure=True), watcher=timing
    ) as sweeper:
        timing.watch.lap("opening")
        outcome = await sweeper.sweep(spec, holder="bench")
    timing.watch.lap("closing")
    found = outcome.found
    print(
        json.dumps(
            {
                **timing.watch.laps,
                "peak_mib": peak_memory(),
                "missing": found.missing,
                "orphaned": found.orphaned,
                "duplicates": found.duplicates,
                "outdated": found.outdated,
                "remaining": outcome.remaining.total,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
