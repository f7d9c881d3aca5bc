"""Events that wait at the same time are committed together: one transaction instead of one each.

Decides who goes together and who alone; what a transaction does with them is `recording`. A group is whatever has
come while the one before was under way, so a single event waits for nobody. Whoever asked hears only after the
commit; who no longer waits (the client is gone, time is up) is left out if his turn has not come, and else neither
undone nor a harm to the others. Used by `inbox`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from controller.errors import DatabaseUnavailable, UserSyncError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

Wish = TypeVar("Wish")
Result = TypeVar("Result")
Wish_contra = TypeVar("Wish_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

SIZE_MAX: Final = 64
"""Of one group: its users' locks are held until it is committed."""
WAITING_MAX: Final = 1000
"""More than the service lets in at once; beyond it, an answer would come too late to be of use."""
AT_ONCE: Final = 1
"""Groups under way: a second one gives smaller groups, and more work for the server."""
ALONE_AT_ONCE: Final = 2
"""One that waits for a lock must not keep the other lane, nor all connections of the pool."""


class Transactions(Protocol[Wish_contra, Result_co]):
    """What is done with wishes, each call one transaction; all of it is committed when it returns."""

    async def together(self, wishes: Sequence[Wish_contra]) -> Sequence[Result_co | None]:
        """Do all that can be done without waiting for anybody; None is one that has to be done alone.

        Raises:
            UserSyncError: nothing is done; one of them may be the cause.
        """

    async def alone(self, wish: Wish_contra) -> Result_co:
        """Do one, waiting for its user's lock."""


@dataclass(slots=True)
class _Waiting(Generic[Wish, Result]):
    """Somebody who waits for his wish to be committed."""

    wish: Wish
    answer: asyncio.Future[Result]


@dataclass(slots=True)
class Grouping(Generic[Wish, Result]):
    """Gathers wishes and lets `transactions` do them."""

    transactions: Transactions[Wish, Result]
    _queue: deque[_Waiting[Wish, Result]] = field(default_factory=deque, init=False)
    _at_work: int = field(default=0, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _lonely: int = field(default=0, init=False)
    _lanes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ALONE_AT_ONCE), init=False)
    _closing: bool = field(default=False, init=False)

    async def fulfil(self, wish: Wish) -> Result:
        """Return once the wish is committed, with what it came to.

        Raises:
            DatabaseUnavailable: too many wait, or the end has begun; and whatever the transaction raises.
        """
        if self._closing:
            message = "The database is being closed; the event is not recorded. Send it again."
            raise DatabaseUnavailable(message)
        if len(self._queue) + self._lonely >= WAITING_MAX:
            message = f"{WAITING_MAX} events wait for the database already; the event is not recorded. Send it again."
            raise DatabaseUnavailable(message)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(wish, answer))
        if self._at_work < AT_ONCE:
            # counted here and not by the task's end, which the loop notes later than who waits for an answer goes on
            self._at_work += 1
            self._start(self._work())
        return await answer

    async def close(self) -> None:
        """Take nothing more, and return when everything taken is committed or refused."""
        self._closing = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        # the loop alone would let it be collected
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        try:
            while group := self._next_group():
                await self._do(group)
        finally:
            self._at_work -= 1

    async def _do(self, group: list[_Waiting[Wish, Result]]) -> None:
        results: Sequence[Result | None]
        try:
            results = await self.transactions.together([each.wish for each in group])
        except UserSyncError:
            # the one that is the cause must not take the others with it
            results = [None] * len(group)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits, who must not wait for ever
            for each in group:
                _refuse(each, error)
            return
        for each, result in zip(group, results, strict=True):
            if result is None:
                self._lonely += 1
                self._start(self._go_alone(each))
            elif not each.answer.done():
                each.answer.set_result(result)

    def _next_group(self) -> list[_Waiting[Wish, Result]]:
        group: list[_Waiting[Wish, Result]] = []
        while self._queue and len(group) < SIZE_MAX:
            waiting = self._queue.popleft()
            if not waiting.answer.done():
                group.append(waiting)
        return group

    async def _go_alone(self, waiting: _Waiting[Wish, Result]) -> None:
        try:
            async with self._lanes:
                if waiting.answer.done():
                    return
                result = await self.transactions.alone(waiting.wish)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            _refuse(waiting, error)
        else:
            if not waiting.answer.done():
                waiting.answer.set_result(result)
        finally:
            self._lonely -= 1


def _refuse(waiting: _Waiting[Wish, Result], error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
