from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from controller.errors import DatabaseRefused, DatabaseUnavailable
from controller.postgres.grouping import ALONE_AT_ONCE, SIZE_MAX, WAITING_MAX, Grouping
from tests.support.webhooks import spin

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Transactions:
    """Doubles numbers. `held`: those whose transaction waits for the gate; `refused`: those that let it fail."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    held: set[int] = field(default_factory=set)
    busy: set[int] = field(default_factory=set)
    refused: dict[int, Exception] = field(default_factory=dict)
    groups: list[list[int]] = field(default_factory=list)
    lonely: list[int] = field(default_factory=list)
    committed: Counter[int] = field(default_factory=Counter)

    async def together(self, wishes: Sequence[int]) -> list[int | None]:
        self.groups.append(list(wishes))
        done = [wish for wish in wishes if wish not in self.busy]
        await self._do(done)
        return [wish * 2 if wish in done else None for wish in wishes]

    async def alone(self, wish: int) -> int:
        self.lonely.append(wish)
        await self._do([wish])
        return wish * 2

    async def _do(self, wishes: Sequence[int]) -> None:
        if self.held.intersection(wishes):
            await self.gate.wait()
        for wish in wishes:
            if wish in self.refused:
                raise self.refused[wish]
        self.committed.update(wishes)


async def begun(grouping: Grouping[int, int], *wishes: int) -> list[asyncio.Task[int]]:
    """Wishes that have been made, as far as they go without waiting."""
    tasks = [asyncio.create_task(grouping.fulfil(wish)) for wish in wishes]
    await spin()
    return tasks


async def test_a_single_wish_waits_for_nobody() -> None:
    transactions = Transactions()
    assert await Grouping(transactions).fulfil(1) == 2
    assert transactions.groups == [[1]]


async def test_what_comes_while_a_group_is_under_way_goes_together() -> None:
    transactions = Transactions(held={1})
    grouping = Grouping(transactions)
    tasks = await begun(grouping, 1) + await begun(grouping, 2, 3, 4)
    transactions.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert transactions.groups == [[1], [2, 3, 4]]


async def test_a_group_is_bounded() -> None:
    transactions = Transactions(held={-1})
    grouping = Grouping(transactions)
    tasks = await begun(grouping, -1, *range(SIZE_MAX + 1))
    transactions.gate.set()
    await asyncio.gather(*tasks)
    assert max(map(len, transactions.groups)) == SIZE_MAX
    assert set(transactions.committed) == {-1, *range(SIZE_MAX + 1)}


async def test_an_answer_that_brings_the_next_wish_at_once_does_not_lose_it() -> None:
    grouping = Grouping(Transactions())
    async with asyncio.timeout(5):
        assert [await grouping.fulfil(wish) for wish in range(5)] == [0, 2, 4, 6, 8]


async def test_nobody_is_answered_before_the_commit() -> None:
    transactions = Transactions(held={1})
    tasks = await begun(Grouping(transactions), 1, 2)
    assert not any(task.done() for task in tasks)
    transactions.gate.set()
    await asyncio.gather(*tasks)


async def test_who_no_longer_waits_before_his_turn_is_left_out() -> None:
    transactions = Transactions(held={1})
    grouping = Grouping(transactions)
    tasks = await begun(grouping, 1) + await begun(grouping, 2, 3)
    tasks[1].cancel()
    await spin()
    transactions.gate.set()
    assert [await tasks[0], await tasks[2]] == [2, 6]
    assert transactions.committed == {1: 1, 3: 1}


async def test_who_goes_away_in_the_middle_of_a_group_harms_nobody_and_is_done() -> None:
    transactions = Transactions(held={2})
    tasks = await begun(Grouping(transactions), 1, 2, 3)
    tasks[1].cancel()
    await spin()
    transactions.gate.set()
    assert [await tasks[0], await tasks[2]] == [2, 6]
    assert transactions.committed == {1: 1, 2: 1, 3: 1}


async def test_who_goes_away_while_he_waits_to_go_alone_is_left_out() -> None:
    busy = set(range(ALONE_AT_ONCE + 1))
    transactions = Transactions(busy=busy, held=busy)
    grouping = Grouping(transactions)
    tasks = await begun(grouping, *busy)
    tasks[-1].cancel()
    transactions.gate.set()
    await asyncio.gather(*tasks[:-1])
    await grouping.close()
    assert len(transactions.lonely) == ALONE_AT_ONCE


async def test_only_the_one_that_is_the_cause_fails() -> None:
    transactions = Transactions(refused={2: DatabaseRefused("no")})
    tasks = await begun(Grouping(transactions), 1, 2, 3)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[0], type(results[1]), results[2]] == [2, DatabaseRefused, 6]
    assert transactions.committed == {1: 1, 3: 1}


async def test_a_busy_one_goes_alone_and_the_next_group_does_not_wait_for_it() -> None:
    transactions = Transactions(busy={1}, held={1})
    grouping = Grouping(transactions)
    (waiting,) = await begun(grouping, 1)
    assert await grouping.fulfil(2) == 4
    assert not waiting.done()
    transactions.gate.set()
    assert await waiting == 2


async def test_few_go_alone_at_once() -> None:
    busy = set(range(10))
    transactions = Transactions(busy=busy, held=busy)
    tasks = await begun(Grouping(transactions), *busy)
    assert len(transactions.lonely) == ALONE_AT_ONCE
    transactions.gate.set()
    await asyncio.gather(*tasks)


async def test_when_too_many_wait_the_next_is_refused() -> None:
    transactions = Transactions(held={-1})
    grouping = Grouping(transactions)
    tasks = await begun(grouping, -1) + await begun(grouping, *range(WAITING_MAX))
    with pytest.raises(DatabaseUnavailable, match="wait for the database"):
        await grouping.fulfil(-2)
    transactions.gate.set()
    await asyncio.gather(*tasks)


async def test_those_who_are_to_go_alone_count_as_waiting() -> None:
    wishes = set(range(WAITING_MAX))
    transactions = Transactions(held=wishes, busy=wishes)
    grouping = Grouping(transactions)
    tasks = await begun(grouping, *wishes)
    with pytest.raises(DatabaseUnavailable, match="wait for the database"):
        await grouping.fulfil(-2)
    transactions.gate.set()
    await asyncio.gather(*tasks)
    assert await grouping.fulfil(-2) == -4


async def test_a_fault_reaches_whoever_waits_and_ends_nothing() -> None:
    transactions = Transactions(refused={1: KeyError("a fault")})
    grouping = Grouping(transactions)
    results = await asyncio.gather(*await begun(grouping, 1, 2), return_exceptions=True)
    assert [type(result) for result in results] == [KeyError, KeyError]
    assert await grouping.fulfil(3) == 6


async def test_a_fault_of_one_who_went_alone_reaches_him() -> None:
    grouping = Grouping(Transactions(busy={1}, refused={1: KeyError("a fault")}))
    with pytest.raises(KeyError):
        await grouping.fulfil(1)
    assert await grouping.fulfil(3) == 6


async def test_closing_waits_for_all_that_was_taken_and_takes_no_more() -> None:
    transactions = Transactions(held={1}, busy={2})
    grouping = Grouping(transactions)
    tasks = await begun(grouping, 1, 2) + await begun(grouping, 3)
    closing = asyncio.create_task(grouping.close())
    await spin()
    assert not closing.done()
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await grouping.fulfil(4)
    transactions.gate.set()
    await closing
    assert [task.result() for task in tasks] == [2, 4, 6]
