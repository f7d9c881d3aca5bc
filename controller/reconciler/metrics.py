"""What Prometheus learns of the runs. A registry of its own, so that tests and embedders see only this.

Decides names and labels; never holds a user id. Used by `reconciling` and `operator`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from controller.core.drift import Drift
    from controller.core.outcomes import Changes
    from controller.reconciler.queue import Key

RESOURCE = ("namespace", "name")
SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """The controller's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._runs = Counter(
            "usersync_runs",
            "Runs that ended, by result and reason.",
            [*RESOURCE, "result", "reason"],
            registry=self.registry,
        )
        self._duration = Histogram(
            "usersync_run_duration_seconds", "How long runs took.", RESOURCE, buckets=SECONDS, registry=self.registry
        )
        self._drift = Gauge(
            "usersync_drift", "Drift that the last good run left.", [*RESOURCE, "kind"], registry=self.registry
        )
        self._changes = Counter(
            "usersync_changes", "What runs have changed.", [*RESOURCE, "kind"], registry=self.registry
        )
        self._last_success = Gauge(
            "usersync_last_success_timestamp_seconds",
            "When a run last succeeded, in seconds of Unix time.",
            RESOURCE,
            registry=self.registry,
        )
        self._failures = Gauge(
            "usersync_consecutive_failures", "Runs that have failed in a row.", RESOURCE, registry=self.registry
        )
        self._blocked = Gauge(
            "usersync_deletion_blocked", "1 while a deletion is held back.", RESOURCE, registry=self.registry
        )

    def run_ended(self, key: Key, result: str, reason: str, took: timedelta) -> None:
        """Count a run, good or not."""
        self._runs.labels(*key, result, reason).inc()
        self._duration.labels(*key).observe(took.total_seconds())

    def run_succeeded(self, key: Key, left: Drift, changes: Changes, at: datetime, *, blocked: bool) -> None:
        """Note what a good run left and did."""
        for kind, count in (
            ("missing", left.missing),
            ("outdated", left.outdated),
            ("orphaned", left.orphaned),
            ("duplicates", left.duplicates),
            ("foreign", left.foreign),
        ):
            self._drift.labels(*key, kind).set(count)
        for kind, count in (
            ("profiles_created", changes.profiles_created),
            ("users_removed", changes.users_removed),
            ("rows_removed", changes.rows_removed),
            ("duplicates_removed", changes.duplicates_removed),
        ):
            self._changes.labels(*key, kind).inc(count)
        self._last_success.labels(*key).set(at.timestamp())
        self._failures.labels(*key).set(0)
        self._blocked.labels(*key).set(int(blocked))

    def run_failed(self, key: Key, failures: int) -> None:
        """Note how many have failed in a row."""
        self._failures.labels(*key).set(failures)

    def forget(self, key: Key) -> None:
        """Drop the gauges of a resource that is gone: they would stand for ever."""
        labels = dict(zip(RESOURCE, key, strict=True))
        for metric in (self._drift, self._last_success, self._failures, self._blocked):
            metric.remove_by_labels(labels)
