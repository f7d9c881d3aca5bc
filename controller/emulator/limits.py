"""How many requests came, and how many more the instance bears.

Decides when a request is one too many; never answers it. Times are seconds of a clock that only rises,
given by the caller. Used by the HTTP API, and read by tests of a client's share of the limit.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING

from controller.core.users import Environment

if TYPE_CHECKING:
    from controller.emulator.faults import Endpoint

WINDOW = 10.0
"""Seconds."""

REQUESTS_PER_WINDOW = {Environment.PRODUCTION: 1000, Environment.DEVELOPMENT: 100}
"""Clerk's documentation, "System limits"."""


class RequestCounter:
    """Every request that arrived, refused or not, by endpoint; and the busiest window of 10 s."""

    def __init__(self) -> None:
        """Start from zero."""
        self.by_endpoint: Counter[Endpoint] = Counter()
        self.peak = 0
        self._recent: deque[float] = deque()

    @property
    def total(self) -> int:
        """All requests, of all endpoints."""
        return self.by_endpoint.total()

    def count(self, endpoint: Endpoint, now: float) -> None:
        """Count one request."""
        self.by_endpoint[endpoint] += 1
        self._recent.append(now)
        while self._recent[0] <= now - WINDOW:
            self._recent.popleft()
        self.peak = max(self.peak, len(self._recent))

    def reset(self) -> None:
        """Forget everything."""
        self.by_endpoint.clear()
        self._recent.clear()
        self.peak = 0


class RateLimiter:
    """The instance's limit over any window of 10 s; who passes it is shut out from that endpoint.

    Stricter than fixed windows would be: a client that keeps to this keeps to either.
    """

    def __init__(self, limit: int | None) -> None:
        """`limit`: requests per window; None switches the limit off."""
        self.limit = limit
        self._admitted: deque[float] = deque()
        self._shut_until: dict[Endpoint, float] = {}

    def admit(self, endpoint: Endpoint, now: float) -> int | None:
        """Return None to let the request pass, else the whole seconds after which to try again."""
        if self.limit is None:
            return None
        until = self._shut_until.get(endpoint, 0.0)
        if now < until:
            return math.ceil(until - now)
        while self._admitted and self._admitted[0] <= now - WINDOW:
            self._admitted.popleft()
        if len(self._admitted) < self.limit:
            self._admitted.append(now)
            return None
        wait = max(1, math.ceil(self._admitted[0] + WINDOW - now) if self._admitted else 1)
        self._shut_until[endpoint] = now + wait
        return wait
