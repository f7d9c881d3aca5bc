"""Which resource is looked at next: a keyed queue with due times and a limit on how many at once.

Pure: no clock of its own, no tasks. One key never runs twice at once; what happens to a key while it runs makes it
due again afterwards. Used by `dispatching`.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import NamedTuple


class Key(NamedTuple):
    """One resource."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(slots=True)
class WorkQueue:
    """All times are seconds of one clock that never goes back."""

    limit: int
    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, int, Key]] = field(default_factory=list)
    _running: set[Key] = field(default_factory=set)
    _again: set[Key] = field(default_factory=set)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def running(self) -> int:
        """How many keys are being looked at."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many keys have a due time."""
        return len(self._due)

    def add(self, key: Key, at: float) -> None:
        """Make `key` due at `at`, or earlier if it is so already; while it runs, at once afterwards."""
        if key in self._running:
            self._again.add(key)
        elif at < self._due.get(key, float("inf")):
            self._schedule(key, at)

    def take(self, now: float) -> Key | None:
        """Return a due key and count it as running; None if none is due or the limit is reached."""
        if len(self._running) >= self.limit:
            return None
        self._tidy()
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._running.add(key)
        return key

    def done(self, key: Key, now: float, due: float | None) -> None:
        """End the run of `key`; it is due again at `due`, never for None, and now if something happened meanwhile."""
        self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._schedule(key, now)
        elif due is not None:
            self._schedule(key, due)

    def wait(self, now: float) -> float | None:
        """Return the seconds until a key can be taken; None if only another event or a finished run brings one."""
        if len(self._running) >= self.limit:
            return None
        self._tidy()
        return max(0.0, self._heap[0][0] - now) if self._heap else None

    def _schedule(self, key: Key, at: float) -> None:
        self._due[key] = at
        heapq.heappush(self._heap, (at, next(self._order), key))

    def _tidy(self) -> None:
        """Drop entries that an earlier due time has replaced."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
