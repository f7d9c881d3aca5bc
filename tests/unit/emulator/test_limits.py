"""The rate limit and the counting of requests, on a made-up clock."""

from __future__ import annotations

from controller.emulator.faults import Endpoint
from controller.emulator.limits import RateLimiter, RequestCounter


def test_requests_up_to_the_limit_pass() -> None:
    limiter = RateLimiter(3)
    assert [limiter.admit(Endpoint.LIST, 100.0) for _ in range(3)] == [None, None, None]


def test_one_too_many_is_told_when_the_oldest_leaves_the_window() -> None:
    limiter = RateLimiter(2)
    limiter.admit(Endpoint.LIST, 100.0)
    limiter.admit(Endpoint.LIST, 104.0)
    assert limiter.admit(Endpoint.LIST, 105.5) == 5


def test_the_endpoint_stays_shut_until_the_time_told() -> None:
    limiter = RateLimiter(1)
    limiter.admit(Endpoint.LIST, 100.0)
    assert limiter.admit(Endpoint.LIST, 103.2) == 7
    assert limiter.admit(Endpoint.LIST, 110.1) == 1
    assert limiter.admit(Endpoint.LIST, 110.3) is None


def test_the_limit_is_shared_by_all_endpoints() -> None:
    limiter = RateLimiter(1)
    limiter.admit(Endpoint.LIST, 100.0)
    assert limiter.admit(Endpoint.LOOKUP, 100.0) == 10


def test_refused_requests_do_not_count_against_the_limit() -> None:
    limiter = RateLimiter(1)
    for moment in (100.0, 101.0, 105.0, 109.0):
        limiter.admit(Endpoint.LIST, moment)
    assert limiter.admit(Endpoint.LIST, 110.0) is None


def test_without_a_limit_everything_passes() -> None:
    limiter = RateLimiter(None)
    assert all(limiter.admit(Endpoint.LIST, 1.0) is None for _ in range(10_000))


def test_the_peak_is_the_busiest_window_of_ten_seconds() -> None:
    counter = RequestCounter()
    for moment in (0.0, 5.0, 9.9, 10.0, 14.0, 30.0):
        counter.count(Endpoint.LIST, moment)
    assert counter.peak == 4
    assert counter.total == 6


def test_requests_are_counted_by_endpoint_until_reset() -> None:
    counter = RequestCounter()
    counter.count(Endpoint.LIST, 1.0)
    counter.count(Endpoint.LOOKUP, 1.0)
    assert counter.by_endpoint == {Endpoint.LIST: 1, Endpoint.LOOKUP: 1}
    counter.reset()
    assert (counter.total, counter.peak) == (0, 0)
