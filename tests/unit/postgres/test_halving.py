from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controller.postgres.connections import ATTEMPTS
from controller.postgres.counting import RowsTooMany
from controller.postgres.failures import ContendedTransaction, RowsHeld
from controller.postgres.halving import CONTENDED_AT_MOST, Halving

if TYPE_CHECKING:
    from collections.abc import Sequence


class Batches:
    """Users done, and given up; those of `held` cannot be."""

    def __init__(self, held: str, error: type[RowsHeld | ContendedTransaction]) -> None:
        self.held = held
        self.error = error
        self.attempts: list[tuple[str, int]] = []
        self.done = ""
        self.left = ""

    async def attempt(self, users: Sequence[str], attempts: int) -> None:
        self.attempts.append(("".join(users), attempts))
        if set(users) & set(self.held):
            message = "held"
            raise self.error(message)
        self.done += "".join(users)

    def give_up(self, user: str, _: RowsHeld | ContendedTransaction) -> None:
        self.left += user


@pytest.mark.parametrize("error", [RowsHeld, ContendedTransaction])
async def test_whoever_is_held_is_given_up_and_the_others_are_done(
    error: type[RowsHeld | ContendedTransaction],
) -> None:
    batches = Batches("bg", error)
    await Halving().go("abcdefgh", batches.attempt, batches.give_up)
    assert (batches.done, batches.left) == ("acdefh", "bg")


async def test_the_whole_is_tried_more_often_than_its_parts() -> None:
    batches = Batches("b", ContendedTransaction)
    await Halving().go("ab", batches.attempt, batches.give_up)
    assert batches.attempts == [("ab", ATTEMPTS), ("a", 2), ("b", 2)]


async def test_rows_that_a_constraint_holds_are_left_however_many() -> None:
    batches = Batches("abcdefgh", RowsHeld)
    await Halving().go("abcdefgh", batches.attempt, batches.give_up)
    assert batches.left == "abcdefgh"


async def test_over_all_batches_of_a_run_only_so_many_are_left_to_a_lock() -> None:
    halving, batches = Halving(), Batches("abcdefgh", ContendedTransaction)
    await halving.go("ab", batches.attempt, batches.give_up)
    with pytest.raises(ContendedTransaction):
        await halving.go("cdefgh", batches.attempt, batches.give_up)
    assert len(batches.left) == CONTENDED_AT_MOST


async def test_what_is_too_much_for_one_transaction_is_done_by_halves_with_all_attempts() -> None:
    batches = Batches("", RowsHeld)

    async def attempt(users: Sequence[str], attempts: int) -> None:
        if len(users) > 2:
            raise RowsTooMany
        await batches.attempt(users, attempts)

    await Halving().go("abcde", attempt, batches.give_up)
    assert batches.attempts == [("ab", ATTEMPTS), ("c", ATTEMPTS), ("de", ATTEMPTS)]
    assert (batches.done, batches.left) == ("abcde", "")
