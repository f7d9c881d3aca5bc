"""A finished run as the document that `--output json` and `yaml` print and that the table is drawn from.

Decides the shape: that of the resource's status (`drift`, `changes`, `pendingDeletion`, `lastRun`, `warnings`),
and `users` with `--show-users` alone. Used by `sweeps`, `rendering` and the demo.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from controller.core.drift import Drift
    from controller.core.outcomes import Changes, Outcome
    from controller.core.plans import HeldBack
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
    document: Document = {
        "resource": finished.spec.name,
        "drift": drift_document(outcome.remaining),
        "changes": changes_document(outcome.changes),
    }
    if outcome.held_back is not None:
        document["pendingDeletion"] = _pending(outcome.held_back, finished.finished_at)
    document["lastRun"] = {
        "id": outcome.run_id,
        "startTime": _time(finished.started_at),
        "finishTime": _time(finished.finished_at),
        "result": "Succeeded",
        "reason": outcome.held_back.reason.value if outcome.held_back else _reason(outcome),
        "message": summary(outcome),
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


def drift_document(drift: Drift) -> Document:
    """Give the counts the names of the status."""
    return {
        "total": drift.total,
        "clerkUsers": drift.clerk_users,
        "synced": drift.synced,
        "missingProgress": drift.missing,
        "orphaned": drift.orphaned,
        "duplicates": drift.duplicates,
        "clerkOnly": drift.clerk_only,
        "foreign": drift.foreign,
        "tables": [
            {"name": table.name, "rows": table.rows, "users": table.users, "orphanedRows": table.orphaned_rows}
            for table in drift.tables
        ],
    }


def changes_document(changes: Changes) -> Document:
    """Give the counts the names of the status."""
    return {
        "profilesCreated": changes.profiles_created,
        "usersRemoved": changes.users_removed,
        "rowsRemoved": changes.rows_removed,
        "duplicatesRemoved": changes.duplicates_removed,
        "usersLeft": changes.users_left,
    }


def summary(outcome: Outcome) -> str:
    """Say in one sentence what the run came to."""
    if outcome.held_back is not None:
        return outcome.held_back.message
    if outcome.declined:
        return "The deletion was declined."
    if outcome.dry_run:
        return f"Dry run: nothing was changed; drift of {outcome.found.total} found."
    if not outcome.remaining.total:
        return "In sync." if not outcome.found.total else f"In sync; drift of {outcome.found.total} mended."
    return f"Drift of {outcome.remaining.total} remains."


def _reason(outcome: Outcome) -> str:
    return "Drifted" if outcome.remaining.total else "InSync"


def _pending(held_back: HeldBack, now: datetime) -> Document:
    return {
        "users": held_back.users,
        "percent": held_back.percent,
        "reason": held_back.reason.value,
        "since": _time(now),
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
