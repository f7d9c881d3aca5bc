"""What a service does for a resource besides its events: reports what waits, and lets go what is past its time.

Decides when, and how little of it at once: deliveries must not be kept for ever where no run is there to purge them,
and no event may wait for that. An outage is survived in silence, for the worker speaks of it. Used by `endpoints`.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from controller.errors import UserSyncError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.core.ports import Inbox
    from controller.core.targets import Spec
    from controller.web.metrics import Metrics

log = structlog.get_logger(__name__)

BATCHES = 50
"""At most, each time: with the pauses some seconds, and with the next times more than 10 million rows a day."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How often: `report` what waits, `purge`; `pause` between two batches of a purge."""

    report: timedelta = timedelta(seconds=15)
    purge: timedelta = timedelta(minutes=10)
    pause: timedelta = timedelta(seconds=0.2)


class Keeper:
    """Keeps one resource until cancelled. It purges while `is_idle`, and never while suspended or in a dry run."""

    def __init__(self, spec: Spec, inbox: Inbox, metrics: Metrics, upkeep: Upkeep, is_idle: Callable[[], bool]) -> None:
        self._spec = spec
        self._inbox = inbox
        self._metrics = metrics
        self._upkeep = upkeep
        self._is_idle = is_idle
        self._log = log.bind(resource=spec.name)

    async def run(self) -> None:
        """Report and purge, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat(self._report, self._upkeep.report))
                if not (self._spec.suspend or self._spec.dry_run):
                    group.create_task(self._repeat(self._purge, self._upkeep.purge))
        finally:
            self._metrics.forget(self._spec.name)

    async def _repeat(self, act: Callable[[], Awaitable[None]], every: timedelta) -> None:
        while True:
            try:
                await act()
            except UserSyncError as error:
                self._log.debug("upkeep_failed", reason=error.reason, error=str(error))
            except Exception:  # noqa: BLE001 - the entry point of the upkeep
                # a fault of ours here must neither end what else is kept nor be silent
                self._log.exception("upkeep_failed")
            # keeps replicas apart
            await asyncio.sleep(every.total_seconds() * random.uniform(0.8, 1.2))  # noqa: S311 - hides nothing

    async def _report(self) -> None:
        self._metrics.show_backlog(self._spec.name, await self._inbox.backlog())

    async def _purge(self) -> None:
        for _ in range(BATCHES):
            if self._is_idle() and not await self._inbox.expire_some():
                return
            await asyncio.sleep(self._upkeep.pause.total_seconds())
