"""A batch of users done at once, and by halves where it is too much, or somebody cannot be done, until it is clear who.

Decides who is given up: users whose rows a constraint, a trigger or another session keeps. Used by `runs`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from controller.postgres.connections import ATTEMPTS
from controller.postgres.counting import RowsTooMany
from controller.postgres.failures import ContendedTransaction, RowsHeld

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")

ATTEMPTS_OF_A_PART: Final = 2
"""The whole has been tried more often; each attempt may wait for a lock."""
CONTENDED_AT_MOST: Final = 3
"""Users given up for a lock that somebody holds; more are taken for a locked table, which holds everybody up."""

Held = RowsHeld | ContendedTransaction


@dataclass(slots=True)
class Halving:
    """What one run knows of users who are held up: so many for a lock."""

    contended: int = field(default=0, init=False)

    async def go(
        self,
        users: Sequence[T],
        attempt: Callable[[Sequence[T], int], Awaitable[None]],
        give_up: Callable[[T, Held], None],
        *,
        attempts: int = ATTEMPTS,
    ) -> None:
        """Attempt all at once (in so many attempts), then by halves.

        Raises:
            ContendedTransaction: others hold what the transactions of too many users need.
        """
        try:
            await attempt(users, attempts)
        except RowsTooMany:
            await self._go_by_halves(users, attempt, give_up, attempts)
        except (RowsHeld, ContendedTransaction) as held:
            if isinstance(held, ContendedTransaction) and self.contended >= CONTENDED_AT_MOST:
                raise
            if len(users) == 1:
                self.contended += isinstance(held, ContendedTransaction)
                give_up(users[0], held)
                return
            await self._go_by_halves(users, attempt, give_up, ATTEMPTS_OF_A_PART)

    async def _go_by_halves(
        self,
        users: Sequence[T],
        attempt: Callable[[Sequence[T], int], Awaitable[None]],
        give_up: Callable[[T, Held], None],
        attempts: int,
    ) -> None:
        middle = len(users) // 2
        for half in (users[:middle], users[middle:]):
            await self.go(half, attempt, give_up, attempts=attempts)
