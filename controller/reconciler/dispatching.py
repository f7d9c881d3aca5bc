"""Looks at due resources, so many at once, until told to stop; then lets the looks under way end.

Decides nothing of its own: the order is `queue`'s, the due times are `reconciling`'s. Used by `operator`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from controller.reconciler.queue import Key, WorkQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from controller.core.ports import Clock

log = structlog.get_logger(__name__)

LONGEST_WAIT = 600.0
"""Seconds. A look costs one GET, and finds what a lost event or a clock set back would hide."""
AFTER_A_FAULT = 60.0


class Dispatcher:
    """Runs `look` for due keys; `look` returns the seconds until the next one, or None to forget the key."""

    def __init__(self, look: Callable[[Key], Awaitable[float | None]], clock: Clock, *, limit: int) -> None:
        self._look = look
        self._clock = clock
        self._queue = WorkQueue(limit)
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._beat = clock.elapsed()

    @property
    def silence(self) -> float:
        """Seconds since the loop last went round; it does so every minute at least."""
        return self._clock.elapsed() - self._beat

    def add(self, key: Key) -> None:
        """Look at `key` as soon as may be."""
        self._queue.add(key, self._clock.elapsed())
        self._woken.set()

    async def run(self) -> None:
        """Go round until stopped."""
        while not self._stopped:
            self._woken.clear()
            self._beat = now = self._clock.elapsed()
            while (key := self._queue.take(now)) is not None:
                task = asyncio.create_task(self._look_at(key), name=f"look at {key}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            wait = self._queue.wait(now)
            try:
                async with asyncio.timeout(60.0 if wait is None else min(wait, 60.0)):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def drain(self, patience: timedelta) -> None:
        """Take no new key, wait for the looks under way, and break off those that outlast `patience`."""
        self._stopped = True
        self._woken.set()
        if not self._tasks:
            return
        log.info("draining", looks=len(self._tasks), patience_seconds=patience.total_seconds())
        _, late = await asyncio.wait(self._tasks, timeout=patience.total_seconds())
        for task in late:
            # the transaction under way rolls back; the next start finds the run and closes it as failed
            log.warning("look_broken_off", task=task.get_name())
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _look_at(self, key: Key) -> None:
        wait: float | None = AFTER_A_FAULT
        try:
            wait = await self._look(key)
        except Exception:
            # nobody awaits this task: a fault here would end the reconciling of this key without a word
            log.exception("look_failed", resource=str(key))
        finally:
            now = self._clock.elapsed()
            self._queue.done(key, now, None if wait is None else now + min(wait, LONGEST_WAIT))
            self._woken.set()
