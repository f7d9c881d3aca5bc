"""When a request to Clerk may leave: never more than a share of the instance's limit in any 10 s.

`RequestWindow` decides, pure and on times given by the caller; `Limiter` waits. A request holds its place
from before it leaves until 10 s after its answer is in. It reaches Clerk somewhere between the two, so
however long anything is under way, Clerk never counts more than the limit in any window of 10 s; a window
over departures alone would promise that of our side only. Used by `transport`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from controller.core.users import Environment
from controller.errors import ClerkUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from controller.core.ports import Clock

REQUESTS_PER_WINDOW = {Environment.PRODUCTION: 1000, Environment.DEVELOPMENT: 100}
"""Per instance and 10 s: Clerk's documentation, "System limits". All clients of the instance share it."""

WINDOW = 10.0
"""Seconds."""


def requests_allowed(environment: Environment, share: float) -> int:
    """Return how many requests per window are `share` (0 < share <= 1) of the limit; one at the least.

    Raises:
        ValueError: the share is out of bounds.
    """
    if not 0 < share <= 1:
        message = f"the share of Clerk's rate limit is {share}; it must be above 0 and at most 1"
        raise ValueError(message)
    # Rounded before cutting: 0.29 of 100 is 28.999999999999996.
    return max(1, math.floor(round(REQUESTS_PER_WINDOW[environment] * share, 6)))


class RequestWindow:
    """The places that the share allows. All times are seconds of one clock that never goes back."""

    def __init__(self, limit: int) -> None:
        """`limit`: requests in any `WINDOW`."""
        self.limit = limit
        self._under_way = 0
        self._ended: deque[float] = deque()
        self._blocked_until = -math.inf

    def take(self, now: float) -> float:
        """Take a place and return 0.0, or take none and return for how long there is none.

        `math.inf`: every place is held by a request under way, so the next `end` decides.
        """
        while self._ended and self._ended[0] + WINDOW <= now:
            self._ended.popleft()
        blocked = self.blocked(now)
        if self._under_way + len(self._ended) < self.limit:
            if not blocked:
                self._under_way += 1
            return blocked
        if not self._ended:
            return math.inf
        return max(blocked, self._ended[0] + WINDOW - now)

    def end(self, now: float) -> None:
        """Note that the answer of a request that had a place is in, or will never be read."""
        self._under_way -= 1
        self._ended.append(now)

    def block(self, until: float) -> None:
        """Give no place before `until`; an earlier time than one given before changes nothing."""
        self._blocked_until = max(self._blocked_until, until)

    def blocked(self, now: float) -> float:
        """Return for how many seconds more no place is given."""
        return max(0.0, self._blocked_until - now)


class Limiter:
    """Lets requests through one window, first come first served."""

    def __init__(self, limit: int, clock: Clock, *, patience: timedelta) -> None:
        """`patience`: a block longer than this is not waited for."""
        self._window = RequestWindow(limit)
        self._clock = clock
        self._patience = patience
        self._queue = asyncio.Lock()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None, None]:
        """Hold a place for one request.

        Raises:
            ClerkUnavailable: Clerk has asked for silence for longer than our patience.
        """
        async with self._queue:
            while delay := self._window.take(self._clock.elapsed()):
                self._refuse_long_block()
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if math.isinf(delay) else delay):
                        await self._changed.wait()
        try:
            yield
        finally:
            # A cancelled request may have reached Clerk too.
            self._window.end(self._clock.elapsed())
            self._changed.set()

    def block(self, wait: timedelta) -> None:
        """Let no request leave for this long: Clerk asked for it."""
        self._window.block(self._clock.elapsed() + wait.total_seconds())
        self._changed.set()

    def _refuse_long_block(self) -> None:
        blocked = timedelta(seconds=self._window.blocked(self._clock.elapsed()))
        if blocked > self._patience:
            message = f"Clerk asked to be left alone for another {math.ceil(blocked.total_seconds())} s (rate limit)."
            raise ClerkUnavailable(message, retry_after=blocked)
