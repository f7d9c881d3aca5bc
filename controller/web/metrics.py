"""What the webhook service counts, for `/metrics`.

Decides names and labels; every label has few values, whatever strangers send. Used by `webhooks`, `worker` and
`upkeep`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from controller.core.claims import ClaimKind

if TYPE_CHECKING:
    from controller.core.claims import Backlog

KNOWN_TYPES = frozenset({"user.created", "user.updated", "user.deleted"})
"""Types with a label value of their own; Clerk has some fifty, and whoever holds the secret can invent more."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)
"""Up to the 15 s after which Svix gives an attempt up."""


class Metrics:
    """Counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._events = Counter(
            "usersync_webhook_events",
            "Verified events, by what they came to.",
            ["type", "result"],
            registry=self.registry,
        )
        self._refusals = Counter(
            "usersync_webhook_refusals",
            "Requests that were refused, by kind: signature, timestamp, malformed_body and so on.",
            ["kind"],
            registry=self.registry,
        )
        self._failures = Counter(
            "usersync_webhook_failures",
            "Verified events answered 503, by the reason's word; Clerk sends them again.",
            ["reason"],
            registry=self.registry,
        )
        self._claims = Counter(
            "usersync_claims",
            "Attempts to settle a claim, by what they came to; discarded ones want a person's attention.",
            ["result"],
            registry=self.registry,
        )
        self._accounts = Counter(
            "usersync_account_deletions",
            "Verified requests of users to delete their accounts, by what was answered.",
            ["result"],
            registry=self.registry,
        )
        self._durations = Histogram(
            "usersync_webhook_duration_seconds",
            "From the request's headers to its answer.",
            ["status"],
            registry=self.registry,
            buckets=SECONDS,
        )

        self._waiting = Gauge(
            "usersync_claims_waiting",
            "Durable work of a resource: claims that are recorded and not settled, by kind.",
            ["resource", "kind"],
            registry=self.registry,
        )
        self._held_back = Gauge(
            "usersync_claims_held_back",
            "Claims of a resource that are proved and would pass the limits: they wait for time or for a person.",
            ["resource"],
            registry=self.registry,
        )
        self._oldest = Gauge(
            "usersync_claims_oldest_seconds",
            "Age of the oldest claim of a resource that does not wait on purpose; 0 if there is none.",
            ["resource"],
            registry=self.registry,
        )

    def count_event(self, event_type: str, result: str) -> None:
        """Count a verified event."""
        self._events.labels(event_type if event_type in KNOWN_TYPES else "other", result).inc()

    def count_refusal(self, kind: str) -> None:
        """Count a refused request."""
        self._refusals.labels(kind).inc()

    def count_failure(self, reason: str) -> None:
        """Count a request that could not be given its effect now."""
        self._failures.labels(reason).inc()

    def count_claim(self, result: str) -> None:
        """Count an attempt to settle a claim."""
        self._claims.labels(result).inc()

    def count_account_deletion(self, result: str) -> None:
        """Count a user's own verified request."""
        self._accounts.labels(result).inc()

    def show_backlog(self, resource: str, backlog: Backlog) -> None:
        """Show what waits for a resource."""
        for kind in ClaimKind:
            self._waiting.labels(resource, kind.value).set(backlog.waiting.get(kind, 0))
        self._held_back.labels(resource).set(backlog.held_back)
        self._oldest.labels(resource).set(backlog.oldest.total_seconds())

    def forget(self, resource: str) -> None:
        """Show nothing of a resource that is not served any more."""
        with suppress(KeyError):
            for kind in ClaimKind:
                self._waiting.remove(resource, kind.value)
            self._held_back.remove(resource)
            self._oldest.remove(resource)

    def observe_duration(self, status: int, seconds: float) -> None:
        """Note how long a request took."""
        self._durations.labels(str(status)).observe(seconds)
