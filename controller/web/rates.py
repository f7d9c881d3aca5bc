"""How often one user may ask; remembered for a bounded number of users.

Decides nothing else. Times are seconds of a clock that only rises, given by the caller. Used by `account_deletion`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass(slots=True)
class Rates:
    """`burst` requests at once, and one more each `every` seconds; of `remembered` users, the latest to ask."""

    burst: int = 10
    every: float = 6.0
    remembered: int = 10_000
    _free_at: OrderedDict[Hashable, float] = field(default_factory=OrderedDict, init=False)
    """When all requests of a user would have been paid for."""

    def take(self, user: Hashable, now: float) -> float:
        """Count a request; return the seconds to wait instead, or 0 where it may pass."""
        free_at = max(self._free_at.get(user, now), now)
        wait = free_at + self.every - now - self.burst * self.every
        if wait > 0:
            return wait
        self._free_at[user] = free_at + self.every
        self._free_at.move_to_end(user)
        if len(self._free_at) > self.remembered:
            self._free_at.popitem(last=False)
        return 0.0
