"""How a report looks."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from controller.cli.rendering import Output, print_reports
from controller.cli.reports import Finished, failure_report, report
from controller.core.drift import TableDrift
from controller.core.outcomes import Changes, Outcome
from controller.core.targets import Action, Spec
from controller.errors import ClerkUnavailable
from tests.unit.cli.outcomes import drift, held_back, outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SPEC = Spec("app/production", actions=(Action.FULL_SYNC,))
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
END = datetime(2026, 3, 1, 12, 0, 7, tzinfo=UTC)


def reported(finished: Outcome, shown: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    return report(Finished(SPEC, finished, START, END, shown))


def printed(*reports: dict[str, Any], output: Output = Output.TABLE) -> str:
    stream = io.StringIO()
    print_reports(reports, output, stream)
    return stream.getvalue()


def test_the_document_has_the_shape_of_the_status() -> None:
    tables = (TableDrift("user_progress", 10, 9, 1),)
    found = drift(clerk_users=8, synced=7, missing=1, clerk_only=1, orphaned=1, duplicates=1, foreign=2, tables=tables)
    done = Changes(
        profiles_created=1, users_removed=2, rows_removed=9, duplicates_removed=3, users_left=4, duplicates_left=5
    )
    assert reported(outcome(found, changes=done, warnings=("tasks is not there",))) == {
        "resource": "app/production",
        "drift": {
            "total": 3,
            "clerkUsers": 8,
            "synced": 7,
            "missingProgress": 1,
            "orphaned": 1,
            "duplicates": 1,
            "outdated": 0,
            "clerkOnly": 1,
            "foreign": 2,
            "retained": 0,
            "tables": [{"name": "user_progress", "rows": 10, "users": 9, "orphanedRows": 1}],
        },
        "changes": {
            "profilesCreated": 1,
            "profilesUpdated": 0,
            "usersRemoved": 2,
            "rowsRemoved": 9,
            "duplicatesRemoved": 3,
            "usersLeft": 4,
        },
        "receipts": {"count": 0},
        "lastRun": {
            "id": "6f1c",
            "startTime": "2026-03-01T12:00:00Z",
            "finishTime": "2026-03-01T12:00:07Z",
            "result": "Succeeded",
            "reason": "Succeeded",
            "message": "1 profile created, 2 users removed (9 rows), 3 duplicates removed, "
            "4 users could not be removed, 5 users kept their duplicates. "
            "Drift: 1 without a profile, 1 orphaned, 1 duplicate profile; 8 users in Clerk.",
            "actions": ["FullSync"],
            "dryRun": False,
        },
        "warnings": ["tasks is not there"],
    }


def test_a_blocked_deletion_says_how_many_and_why() -> None:
    assert reported(outcome(drift(orphaned=30), plan=held_back()))["pendingDeletion"] == {
        "users": 30,
        "percent": 12.5,
        "reason": "ThresholdExceeded",
        "since": "2026-03-01T12:00:07Z",
    }


def test_a_run_that_held_nothing_back_has_no_pending_deletion() -> None:
    assert "pendingDeletion" not in reported(outcome())


def test_json_of_one_resource_is_the_report_itself() -> None:
    expected = reported(outcome())
    assert json.loads(printed(expected, output=Output.JSON)) == expected


def test_yaml_says_the_same_as_json() -> None:
    expected = reported(outcome(drift(missing=2)))
    assert yaml.safe_load(printed(expected, output=Output.YAML)) == expected


@pytest.mark.parametrize("output", [Output.JSON, Output.YAML])
def test_several_resources_stand_under_items(output: Output) -> None:
    failed = failure_report(SPEC, ClerkUnavailable("Clerk answered 500."))
    document = yaml.safe_load(printed(reported(outcome()), failed, output=output))
    assert [item.get("error") for item in document["items"]] == [
        None,
        {"reason": "ClerkUnavailable", "message": "Clerk answered 500."},
    ]


def test_the_table_shows_the_drift_of_each_table() -> None:
    tables = (TableDrift("user_progress", 98, 98, 0), TableDrift("tasks", 1204, 77, 31))
    lines = [line.split() for line in printed(reported(outcome(drift(orphaned=3, tables=tables)))).splitlines()]
    assert ["tasks", "1,204", "77", "31"] in lines


def test_the_table_says_what_was_done() -> None:
    done = Changes(profiles_created=1, users_removed=2, rows_removed=9)
    assert "1 profile created, 2 users removed (9 rows). In sync: 98 users." in printed(reported(outcome(changes=done)))


def test_the_table_of_a_dry_run_says_that_nothing_was_done() -> None:
    text = printed(reported(outcome(drift(missing=2), changes=Changes(profiles_created=2), dry_run=True)))
    assert "Dry run, nothing was changed; it would be: 2 profiles created." in text


def test_the_table_names_what_is_held_back_and_the_reason_in_words() -> None:
    text = printed(reported(outcome(drift(orphaned=30), plan=held_back())))
    assert "Held back: 30 users (12.5 percent), ThresholdExceeded." in text
    assert "30 of 240 users with rows are gone from Clerk" in text


def test_warnings_reach_the_reader() -> None:
    assert "Warning: tasks is not there" in printed(reported(outcome(warnings=("tasks is not there",))))


@pytest.mark.parametrize("output", list(Output))
def test_ids_are_named_only_when_they_were_asked_for(output: Output) -> None:
    shown = {"missing": ["user_1"], "orphaned": [], "duplicated": []}
    assert "user_1" not in printed(reported(outcome(drift(missing=1))), output=output)
    assert "user_1" in printed(reported(outcome(drift(missing=1)), shown), output=output)


def test_a_long_line_stays_whole_for_whoever_copies_or_greps_it() -> None:
    warning = "CREATE INDEX CONCURRENTLY " + "x" * 200
    assert f"  Warning: {warning}\n" in printed(reported(outcome(warnings=(warning,))))


def test_brackets_in_a_warning_are_no_markup() -> None:
    assert "column [red]x[/red]" in printed(reported(outcome(warnings=("column [red]x[/red]",))))


def test_without_a_terminal_there_is_no_colour() -> None:
    assert "\x1b" not in printed(reported(outcome(drift(orphaned=3), plan=held_back())))
