from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.reconciler.deciding import (
    Run,
    Standing,
    Suspend,
    Trigger,
    Wait,
    decide,
    jitter,
    next_run,
    read_time,
    retry_delay,
    write_time,
)

HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)
STEADY = Standing(
    uid="1",
    generation=2,
    observed_generation=2,
    requested=None,
    handled=None,
    approval=None,
    handled_approval=None,
    suspended=False,
    interval=HOUR,
    failed=False,
    next_run=NOW + timedelta(minutes=20),
    last_start=NOW - timedelta(minutes=40),
)


def standing(**changes: Any) -> Standing:
    return replace(STEADY, **changes)


@pytest.mark.parametrize(
    ("found", "decision"),
    [
        (standing(), Wait(NOW + timedelta(minutes=20))),
        (standing(generation=3), Run(Trigger.GENERATION)),
        (standing(observed_generation=-1, next_run=None, last_start=None), Run(Trigger.GENERATION)),
        (standing(requested="now"), Run(Trigger.REQUEST)),
        (standing(requested="now", handled="before"), Run(Trigger.REQUEST)),
        (standing(requested="now", handled="now"), Wait(NOW + timedelta(minutes=20))),
        (standing(requested=""), Run(Trigger.REQUEST)),
        (standing(approval="d1"), Run(Trigger.APPROVAL)),
        (standing(approval="d2", handled_approval="d1"), Run(Trigger.APPROVAL)),
        (standing(approval="d1", handled_approval="d1"), Wait(NOW + timedelta(minutes=20))),
        (standing(approval="d1", suspended=True, next_run=None), Wait()),
        (standing(next_run=NOW), Run(Trigger.SCHEDULE)),
        (standing(next_run=NOW, failed=True), Run(Trigger.RETRY)),
        (standing(next_run=None), Wait(NOW + timedelta(minutes=20))),
        (standing(next_run=None, last_start=None), Run(Trigger.SCHEDULE)),
        (standing(suspended=True), Suspend()),
        (standing(suspended=True, next_run=None), Wait()),
        (standing(suspended=True, next_run=None, generation=3), Suspend()),
        (standing(suspended=True, next_run=None, requested="now"), Suspend()),
    ],
)
def test_what_is_due(found: Standing, decision: object) -> None:
    assert decide(found, NOW, LONG_AGO) == decision


def test_a_due_time_in_the_far_future_does_not_put_runs_off() -> None:
    assert decide(standing(next_run=NOW + timedelta(days=400)), NOW, LONG_AGO) == Wait(NOW + HOUR)


def test_what_was_overdue_when_the_process_started_waits_its_own_small_delay() -> None:
    found = standing(next_run=NOW - HOUR)
    decision = decide(found, NOW, NOW)
    assert decision == Wait(NOW + jitter("1", HOUR))
    assert decide(found, NOW + jitter("1", HOUR), NOW) == Run(Trigger.SCHEDULE)


def test_a_new_spec_waits_for_nothing_even_then() -> None:
    assert decide(standing(generation=3), NOW, NOW) == Run(Trigger.GENERATION)


def test_the_delays_are_small_and_spread() -> None:
    delays = {jitter(str(number), HOUR) for number in range(100)}
    assert len(delays) > 90
    assert max(delays) <= timedelta(seconds=30)
    assert min(delays) >= timedelta()
    assert max(jitter(str(number), timedelta(seconds=30)) for number in range(100)) <= timedelta(seconds=3)


def test_the_interval_counts_from_start_to_start() -> None:
    assert next_run(NOW, NOW + timedelta(minutes=5), HOUR) == NOW + HOUR


def test_a_run_that_outlasts_its_interval_is_followed_by_a_pause() -> None:
    end = NOW + timedelta(hours=2)
    assert next_run(NOW, end, HOUR) == end + timedelta(seconds=30)


@pytest.mark.parametrize(
    ("failures", "permanent", "seconds"),
    [
        (1, False, 10),
        (2, False, 20),
        (3, False, 40),
        (7, False, 600),
        (10_000, False, 600),
        (1, True, 30),
        (9, True, 600),
    ],
)
def test_failures_back_off(failures: int, permanent: bool, seconds: int) -> None:  # noqa: FBT001 - a table of cases
    assert retry_delay(failures, permanent=permanent) == timedelta(seconds=seconds)


def test_a_longer_wait_that_was_asked_for_is_kept_to() -> None:
    assert retry_delay(1, permanent=False, retry_after=timedelta(minutes=30)) == timedelta(minutes=30)
    assert retry_delay(3, permanent=False, retry_after=timedelta(seconds=1)) == timedelta(seconds=40)


def test_a_resource_is_read_with_and_without_a_status() -> None:
    resource: dict[str, Any] = {
        "metadata": {"uid": "1", "generation": 3, "annotations": {"usersync.dev/reconcile-at": "x"}},
        "spec": {"suspend": True},
    }
    fresh = Standing.of(resource, HOUR)
    assert (fresh.observed_generation, fresh.requested, fresh.suspended) == (-1, "x", True)
    resource["status"] = {
        "observedGeneration": 3,
        "lastHandledReconcileAt": "x",
        "nextRunTime": "2026-11-23T12:00:00Z",
        "lastRun": {"result": "Failed", "startTime": "2026-11-23T11:00:00Z"},
    }
    known = Standing.of(resource, HOUR)
    assert (known.handled, known.next_run, known.failed) == ("x", NOW, True)
    assert known.last_start == NOW - HOUR


def test_a_time_is_written_and_read_back() -> None:
    assert write_time(NOW) == "2026-11-23T12:00:00Z"
    assert read_time(write_time(NOW)) == NOW
    assert read_time("soon") is None
    assert read_time(None) is None
