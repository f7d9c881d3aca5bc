"""What is past its time goes: archived rows, noted links, deliveries, audited runs, unapproved sets, second sweeps.

Decides how much of it at once: small batches, each in a transaction of its own, in a run under the fence, and no more
of them in one run than `BATCHES`; the next run goes on. It never makes a run fail that has done its work. Used by
`runs`, after the report, and by `inbox`, since webhooks may be served where nothing runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from controller.errors import UserSyncError
from controller.postgres.queries import load

if TYPE_CHECKING:
    from controller.postgres.connections import Transaction
    from controller.postgres.locking import RunLock
    from controller.postgres.queries import Query

log = structlog.get_logger(__name__)

_SQL: Final = load("expiring")
_KEPT: Final = ("archive", "links", "deliveries")
"""What is there without runs, too."""
BATCH: Final = 1000
BATCHES: Final = 100
"""For each kind: 100,000 rows a run are some seconds, and keep up with a million of rows and of webhooks a day."""


async def purge(lock: RunLock) -> None:
    """Delete what has expired of this target; what is left, or cannot be deleted now, waits for the next run."""
    try:
        for kind in (*_KEPT, "runs", "approvals", "second_sweeps"):
            await _purge(lock, _SQL[f"expire_{kind}"])
    except UserSyncError as error:
        log.warning("not_purged", run_id=str(lock.run_id), error=str(error))


async def _purge(lock: RunLock, query: Query) -> None:
    async def batch(transaction: Transaction) -> int:
        return await transaction.change(query, lock.schema, BATCH)

    for _ in range(BATCHES):
        if await lock.transact(batch) < BATCH:
            return


async def expire_some(transaction: Transaction, schema: str) -> bool:
    """Delete one batch of archived rows, one of links and one of deliveries; whether there may be more.

    Beside another who is at it, nothing. Runs are left to runs.
    """
    if not await transaction.value(_SQL["may_expire"], schema):
        return False
    gone = [await transaction.change(_SQL[f"expire_{kind}"], schema, BATCH) for kind in _KEPT]
    return BATCH in gone
