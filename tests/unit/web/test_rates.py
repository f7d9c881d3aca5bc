"""A user who asks too often waits, the others do not, and nothing is remembered for ever."""

from __future__ import annotations

from controller.web.rates import Rates


def test_a_burst_passes_and_then_one_at_a_time() -> None:
    rates = Rates(burst=3, every=6.0)
    assert [rates.take("a", 100.0) for _ in range(4)] == [0, 0, 0, 6.0]
    assert rates.take("a", 104.0) == 2.0
    assert rates.take("a", 106.0) == 0
    assert rates.take("a", 106.0) == 6.0


def test_who_is_refused_does_not_wait_longer_for_having_asked() -> None:
    rates = Rates(burst=1, every=6.0)
    rates.take("a", 0.0)
    assert [rates.take("a", 1.0) for _ in range(5)] == [5.0] * 5
    assert rates.take("a", 6.0) == 0


def test_one_user_does_not_use_up_anothers() -> None:
    rates = Rates(burst=1)
    rates.take("a", 0.0)
    assert rates.take("b", 0.0) == 0


def test_as_many_users_are_remembered_as_may_be_those_who_asked_last() -> None:
    rates = Rates(burst=1, remembered=100)
    for number in range(1000):
        rates.take(number, 0.0)
    assert len(rates._free_at) == 100
    assert rates.take(999, 0.0) > 0
    assert rates.take(0, 0.0) == 0
