"""The audit row of a run: opened with it, closed with it, or by the next one.

Decides nothing; writes what a run came to, or why it failed, and forgets its working rows. Used by `runs`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from controller.errors import UserSyncError
from controller.postgres.connections import LONG
from controller.postgres.queries import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from controller.core.ports import RunLabel
    from controller.postgres.connections import Transaction
    from controller.postgres.locking import RunLock

log = structlog.get_logger(__name__)

_SQL: Final = load("runs")
CLOSING_SECONDS: Final = 15.0
UNFINISHED: Final = ("Unfinished", "The run ended without a report.")


async def open_audit(transaction: Transaction, lock: RunLock, label: RunLabel) -> None:
    """Close what a killed run left open, and open ours."""
    interrupted = await transaction.rows(_SQL["close_interrupted_runs"], lock.schema, lock.run_id)
    if interrupted:
        log.warning("interrupted_run_closed", runs=[str(row["id"]) for row in interrupted])
        await _forget(transaction, [row["id"] for row in interrupted])
    await transaction.change(
        _SQL["open_run"], lock.run_id, lock.schema, label.resource, label.holder, label.instance.id,
        sorted(action.value for action in label.policy.actions), label.policy.dry_run,
    )  # fmt: skip


async def _forget(transaction: Transaction, run_ids: Sequence[UUID]) -> None:
    for query in ("forget_listed", "forget_drifted", "forget_places", "forget_listed_values", "forget_owed_values"):
        # As texts: for an array of uuid asyncpg would ask for the type, and set `jit` for the session.
        await transaction.change(_SQL[query], [str(run_id) for run_id in run_ids])


async def close_audit(lock: RunLock, failure: tuple[str, str] | None) -> None:
    """Write the failure (reason, message), forget the working rows, and give the lock back.

    Best effort: what cannot be done now the next run does, and the run's own error must not be hidden.
    """

    async def close(transaction: Transaction) -> None:
        if failure is not None:
            await transaction.change(_SQL["fail_run"], lock.run_id, *failure)
        await _forget(transaction, [lock.run_id])
        await lock.release_in(transaction)

    if lock.lost:
        return
    try:
        async with asyncio.timeout(CLOSING_SECONDS):
            await lock.transact(close, limits=LONG)
    except (UserSyncError, TimeoutError) as error:
        log.warning("run_not_closed", run_id=str(lock.run_id), error=str(error))


def failure_of(error: BaseException) -> tuple[str, str]:
    """Return the reason and the message that the audit keeps."""
    if isinstance(error, UserSyncError):
        return error.reason, str(error)
    if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
        return "Interrupted", "The process was told to end in the middle of the run."
    return type(error).__name__, "An error that nobody expected; the log has it."
