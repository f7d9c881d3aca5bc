"""A finished run as the document that `--output json` and `yaml` print and that the table is drawn from.

Decides the shape: that of the resource's status (`drift`, `changes`, `pendingDeletion`, `lastRun`, `warnings`),
and `users` with `--show-users` alone. Used by `sweeps`, `rendering` and the demo.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controller.kube.shapes import (
    changes_shape,
    drift_shape,
    outcome_reason,
    pending_deletion_shape,
    receipts_shape,
    summarize,
    time_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from controller.core.outcomes import Outcome
    from controller.core.targets import Spec
    from controller.errors import UserSyncError

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """One run that came to an end; `shown` are the ids by kind of drift, None where nobody asked for them."""

    spec: Spec
    outcome: Outcome
    started_at: datetime
    finished_at: datetime
    shown: Mapping[str, Sequence[str]] | None = field(default=None, repr=False)


def report(finished: Finished) -> Document:
    """Describe a run as the status would."""
    outcome = finished.outcome
    finish = time_text(finished.finished_at)
    document: Document = {
        "resource": finished.spec.name,
        "drift": drift_shape(outcome.remaining),
        "changes": changes_shape(outcome.changes),
    }
    if outcome.held_back is not None:
        since = time_text(outcome.held_back.since or finished.finished_at)
        document["pendingDeletion"] = pending_deletion_shape(outcome.held_back, since)
    document["receipts"] = receipts_shape(outcome.closing)
    document["lastRun"] = {
        "id": outcome.run_id,
        "startTime": time_text(finished.started_at),
        "finishTime": finish,
        "result": "Succeeded",
        "reason": outcome_reason(outcome),
        "message": "The deletion was declined." if outcome.declined else summarize(outcome),
        "actions": [action.value for action in finished.spec.actions],
        "dryRun": outcome.dry_run,
    }
    document["warnings"] = list(outcome.warnings)
    if finished.shown is not None:
        document["users"] = {kind: list(ids) for kind, ids in finished.shown.items()}
    return document


def failure_report(spec: Spec, error: UserSyncError) -> Document:
    """Describe a run that failed; what it found is unknown, so there is no drift to show."""
    return {"resource": spec.name, "error": {"reason": error.reason, "message": str(error)}}
