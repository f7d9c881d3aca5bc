"""What the webhook service counts, for `/metrics`.

Decides names and labels; every label has few values, whatever strangers send. Used by `webhooks` and `worker`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

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

    def observe_duration(self, status: int, seconds: float) -> None:
        """Note how long a request took."""
        self._durations.labels(str(status)).observe(seconds)
