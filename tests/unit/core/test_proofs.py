"""The proof of absence: what makes one, how long it holds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controller.core.proofs import MAX_AGE, Proof
from controller.core.proving import prove_absence
from controller.errors import ClerkAnswerOdd, ClerkRefused, ClerkUnavailable, UserSyncError
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.directory import INSTANCE, FakeDirectory, user


async def test_a_user_whom_clerk_does_not_know_is_proved_absent() -> None:
    clock = FakeClock()

    proof = await prove_absence(FakeDirectory(), clock, user(1))

    assert proof == Proof(user(1), INSTANCE.id, clock.elapsed())


async def test_a_living_user_has_no_proof() -> None:
    directory = FakeDirectory()
    directory.sign_up(user(1))

    assert await prove_absence(directory, FakeClock(), user(1)) is None


@pytest.mark.parametrize("error", [ClerkUnavailable("away"), ClerkRefused("no"), ClerkAnswerOdd("odd")])
@pytest.mark.parametrize("method", ["look_up", "instance"])
async def test_any_other_answer_is_no_proof(error: UserSyncError, method: str) -> None:
    directory = FakeDirectory(errors={method: error})

    with pytest.raises(type(error)):
        await prove_absence(directory, FakeClock(), user(1))


async def test_the_age_counts_from_before_the_question() -> None:
    clock = FakeClock()
    asked_at = clock.elapsed()
    directory = FakeDirectory(before=lambda _method: clock.advance(timedelta(minutes=3)))

    proof = await prove_absence(directory, clock, user(1))

    assert proof is not None
    assert proof.asked_at == asked_at


@pytest.mark.parametrize(
    ("age", "holds"),
    [
        (timedelta(), True),
        (MAX_AGE, True),
        (MAX_AGE + timedelta(seconds=1), False),
        (timedelta(days=1), False),
        (timedelta(seconds=-1), False),
    ],
)
def test_a_proof_holds_for_five_minutes(age: timedelta, *, holds: bool) -> None:
    proof = Proof(user(1), INSTANCE.id, asked_at=5000.0)

    assert proof.holds(5000.0 + age.total_seconds()) is holds
    assert timedelta(minutes=5) == MAX_AGE
