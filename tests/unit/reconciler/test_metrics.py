from __future__ import annotations

from datetime import UTC, datetime, timedelta

from controller.core.drift import Drift
from controller.core.outcomes import Changes
from controller.reconciler.metrics import Metrics
from controller.reconciler.queue import Key

KEY = Key("app", "production")
LABELS = {"namespace": "app", "name": "production"}
LEFT = Drift(100, 104, 98, 2, 1, 4, 1, 1, 3)


def test_runs_are_counted_by_result_and_reason() -> None:
    metrics = Metrics()
    metrics.run_ended(KEY, "Failed", "ClerkUnavailable", timedelta(seconds=3))
    labels = {**LABELS, "result": "Failed", "reason": "ClerkUnavailable"}
    assert metrics.registry.get_sample_value("usersync_runs_total", labels) == 1
    assert metrics.registry.get_sample_value("usersync_run_duration_seconds_sum", LABELS) == 3


def test_a_good_run_sets_the_drift_and_the_time() -> None:
    metrics = Metrics()
    at = datetime(2026, 11, 23, tzinfo=UTC)
    metrics.run_failed(KEY, 4)
    metrics.run_succeeded(KEY, LEFT, Changes(profiles_created=2), at, blocked=True)
    value = metrics.registry.get_sample_value
    assert value("usersync_drift", {**LABELS, "kind": "orphaned"}) == 4
    assert value("usersync_changes_total", {**LABELS, "kind": "profiles_created"}) == 2
    assert value("usersync_last_success_timestamp_seconds", LABELS) == at.timestamp()
    assert value("usersync_consecutive_failures", LABELS) == 0
    assert value("usersync_deletion_blocked", LABELS) == 1


def test_the_gauges_of_a_resource_that_is_gone_are_dropped() -> None:
    metrics = Metrics()
    metrics.run_succeeded(KEY, LEFT, Changes(), datetime(2026, 11, 23, tzinfo=UTC), blocked=False)
    metrics.forget(KEY)
    assert metrics.registry.get_sample_value("usersync_drift", {**LABELS, "kind": "orphaned"}) is None
    metrics.forget(Key("app", "never-seen"))
