"""What is past its time goes: archived rows at their expiry, deliveries and finished runs after 90 days.

Decides how much of it at once: small batches, each in a transaction of its own under the fence, and no more of
them in one run than `BATCHES`; the next run goes on. It never makes a run fail that has done its work. Used by
`runs`, after the report.
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
BATCH: Final = 1000
BATCHES: Final = 100
"""For each kind: 100,000 rows a run are some seconds, and keep up with a million of rows and of webhooks a day."""


async def purge(lock: RunLock) -> None:
    """Delete what has expired of this target; what is left, or cannot be deleted now, waits for the next run."""
    try:
        for kind in ("archive", "deliveries", "runs"):
            await _purge(lock, _SQL[f"expire_{kind}"])
    except UserSyncError as error:
        log.warning("not_purged", run_id=str(lock.run_id), error=str(error))


async def _purge(lock: RunLock, query: Query) -> None:
    async def batch(transaction: Transaction) -> int:
        return await transaction.change(query, lock.schema, BATCH)

    for _ in range(BATCHES):
        if await lock.transact(batch) < BATCH:
            return
