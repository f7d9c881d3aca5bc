"""How drift, changes and a run are written in a status, and in what the command line prints. Pure.

Decides names, sizes and words of what the operator and the command line both report, so that whoever reads the one
can read the other. Counts, never ids. Used by `reconciler` and `cli`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from controller.core.drift import Drift
    from controller.core.outcomes import Changes, Closing, Outcome
    from controller.core.plans import HeldBack

TABLES_MAX = 64


def drift_shape(drift: Drift) -> dict[str, Any]:
    """Write `status.drift`."""
    return {
        "total": drift.total,
        "clerkUsers": drift.clerk_users,
        "synced": drift.synced,
        "missingProgress": drift.missing,
        "orphaned": drift.orphaned,
        "duplicates": drift.duplicates,
        "outdated": drift.outdated,
        "clerkOnly": drift.clerk_only,
        "foreign": drift.foreign,
        "retained": drift.retained,
        "tables": [
            {"name": table.name, "rows": table.rows, "users": table.users, "orphanedRows": table.orphaned_rows}
            for table in drift.tables[:TABLES_MAX]
        ],
    }


def changes_shape(changes: Changes) -> dict[str, Any]:
    """Write `status.changes`."""
    return {
        "profilesCreated": changes.profiles_created,
        "profilesUpdated": changes.profiles_updated,
        "usersRemoved": changes.users_removed,
        "rowsRemoved": changes.rows_removed,
        "duplicatesRemoved": changes.duplicates_removed,
        "usersLeft": changes.users_left,
    }


def pending_deletion_shape(held_back: HeldBack, since: str) -> dict[str, Any]:
    """Write `status.pendingDeletion`; `since` as `time_text` gives it."""
    digest = {"digest": held_back.digest} if held_back.digest else {}
    return digest | {
        "users": held_back.users,
        "percent": held_back.percent,
        "reason": held_back.reason.value,
        "since": since,
    }


def receipts_shape(closing: Closing) -> dict[str, Any]:
    """Write `status.receipts`."""
    return {"count": closing.receipts} | ({"head": closing.head} if closing.head else {})


def claims_held(closing: Closing) -> str:
    """Say how many announced deletions wait for the limits; empty where none does."""
    if not closing.claims_held:
        return ""
    return (
        f"{_counted(closing.claims_held, 'deletion')} that user.deleted announced would pass the limits and wait: for "
        "the window to go by, for higher limits, or for a run with Cleanup whose set is approved."
    )


def time_text(moment: datetime) -> str:
    """Write an aware UTC time as the API server does."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def outcome_reason(outcome: Outcome) -> str:
    """Return the one word for a run that ended well."""
    return "DeletionBlocked" if outcome.held_back else "Succeeded"


def summarize(outcome: Outcome) -> str:
    """Say in one or two sentences what a run did, or would do, and what is left."""
    changes = outcome.changes
    done = [
        text
        for count, text in (
            (changes.profiles_created, f"{_counted(changes.profiles_created, 'profile')} created"),
            (changes.profiles_updated, f"{_counted(changes.profiles_updated, 'profile')} updated"),
            (changes.users_removed, f"{_counted(changes.users_removed, 'user')} removed{_rows(changes)}"),
            (changes.duplicates_removed, f"{_counted(changes.duplicates_removed, 'duplicate')} removed"),
            (changes.users_left, f"{_counted(changes.users_left, 'user')} could not be removed"),
            (changes.duplicates_left, f"{_counted(changes.duplicates_left, 'user')} kept their duplicates"),
        )
        if count
    ]
    head = "Dry run, nothing was changed; it would be: " if outcome.dry_run and done else ""
    sentences = [
        outcome.held_back.message if outcome.held_back else "",
        f"{head}{', '.join(done)}." if done else "",
        _spared(changes),
        _waiting(outcome.users_waiting),
        describe_drift(outcome.remaining),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def describe_drift(drift: Drift) -> str:
    """Say what is out of step, in counts."""
    if not drift.total:
        return f"In sync: {_counted(drift.clerk_users, 'user')}."
    parts = [
        f"{count} {word}"
        for count, word in (
            (drift.missing, "without a profile"),
            (drift.outdated, "with outdated columns"),
            (drift.orphaned, "orphaned"),
            (drift.duplicates, "duplicate profile" if drift.duplicates == 1 else "duplicate profiles"),
        )
        if count
    ]
    return f"Drift: {', '.join(parts)}; {_counted(drift.clerk_users, 'user')} in Clerk."


def _waiting(users: int) -> str:
    """Say why orphans are left."""
    if not users:
        return ""
    return f"{_counted(users, 'orphaned user')} {'waits' if users == 1 else 'wait'} for the grace period."


def _spared(changes: Changes) -> str:
    """Say that Clerk's listing was wrong, which else would show as orphans that nobody removes."""
    if not changes.users_spared:
        return ""
    return f"{_counted(changes.users_spared, 'user')} left out of Clerk's listing spared: a look-up finds them."


def _rows(changes: Changes) -> str:
    return f" ({_counted(changes.rows_removed, 'row')})" if changes.rows_removed else ""


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
