"""Mapped columns brought in step by a run.

Decides whom Clerk is asked about again before anything of theirs is written: whoever was updated so shortly before the
listing that it may be older than what the row holds. Used by `sweeping`.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from controller.core.outcomes import Updating
from controller.core.ports import Phase

if TYPE_CHECKING:
    from datetime import datetime

    from controller.core.ports import Directory, Run, Watcher

REFUSED = (
    "The database refused values of {} user(s) in mapped columns of the profile table (a constraint, or a trigger of "
    "the application; the log names it): those columns are left as they are, the others are in step."
)


async def update_profiles(run: Run, directory: Directory, watcher: Watcher, since: datetime) -> Updating:
    """Bring all who are behind in step. `since`: who was updated later than this is asked for again."""
    updated = Updating()
    async with aclosing(run.behind()) as batches:
        async for batch in batches:
            doubtful = await run.doubtful(batch, since)
            confirmed = await directory.profiles(doubtful) if doubtful else ()
            updated += await run.update_profiles(batch, confirmed, since)
            watcher.advance(Phase.UPDATE, updated.users)
    return updated
