"""Prints reports: a table for people, JSON or YAML for programs.

Decides how a report looks, never what stands in it. Ids of users appear only if the report has them, which it does
with `--show-users` alone. Used by `sweeps` and the demo.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, TextIO

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.cli.reports import Document

_WIDTH = 120
_KINDS = {
    "missing": "Missing a profile",
    "outdated": "With outdated columns",
    "orphaned": "Orphaned",
    "duplicated": "With several profiles",
}
_COUNTS = (
    ("clerkUsers", "Clerk users"),
    ("synced", "Synced"),
    ("missingProgress", "Missing"),
    ("outdated", "Outdated"),
    ("clerkOnly", "Clerk only"),
    ("orphaned", "Orphaned"),
    ("duplicates", "Duplicates"),
    ("foreign", "Foreign"),
)
_DRIFT = {"missingProgress", "outdated", "orphaned", "duplicates"}


class Output(Enum):
    """The values are those of `--output`."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def open_console(stream: TextIO) -> Console:
    """Return a console as wide as the terminal, or wide enough where there is none."""
    return Console(file=stream, width=None if stream.isatty() else _WIDTH, highlight=False)


def print_reports(reports: Sequence[Document], output: Output, stream: TextIO) -> None:
    """Print one report as itself, several as `items` of one document (or as tables one after the other)."""
    if output is Output.TABLE:
        console = open_console(stream)
        for report in reports:
            print_table(report, console)
        return
    document = reports[0] if len(reports) == 1 else {"items": list(reports)}
    print_document(document, output, stream)


def print_document(document: object, output: Output, stream: TextIO) -> None:
    """Print a document for programs: JSON, or YAML."""
    if output is Output.JSON:
        stream.write(json.dumps(document, indent=2) + "\n")
    else:
        stream.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=_WIDTH))


def print_table(report: Document, console: Console) -> None:
    """Print one report for people; a failed run has only its name, the error stands on stderr."""
    if "error" in report:
        _print(console, Text.assemble((report["resource"], "bold"), "  failed: ", (report["error"]["reason"], "red")))
        return
    run = report["lastRun"]
    colour = "yellow" if report["drift"]["total"] or "pendingDeletion" in report else "green"
    _print(console, Text.assemble((report["resource"], "bold"), "  ", (run["message"], colour)))
    console.print(_counts(report))
    console.print(_tables(report))
    for line in _lines(report):
        _print(console, line)
    _print_users(report, console)
    console.print()


def _print(console: Console, line: Text) -> None:
    """Print a line as it is: the terminal breaks it, and what is copied from it (SQL, a message) stays whole."""
    console.print(line, soft_wrap=True)


def _counts(report: Document) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for _, label in _COUNTS:
        table.add_column(label, justify="right")
    counts = [(key, report["drift"][key]) for key, _ in _COUNTS]
    table.add_row(*(Text(f"{count:,}", "bold yellow" if count and key in _DRIFT else "bold") for key, count in counts))
    return table


def _tables(report: Document) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=True, header_style="dim")
    table.add_column("Table")
    for heading in ("Rows", "Users", "Rows of orphans"):
        table.add_column(heading, justify="right")
    for each in report["drift"]["tables"]:
        gone = each["orphanedRows"]
        table.add_row(
            each["name"], f"{each['rows']:,}", f"{each['users']:,}", Text(f"{gone:,}", "yellow" if gone else "")
        )
    return table


def _lines(report: Document) -> list[Text]:
    lines = []
    pending = report.get("pendingDeletion")
    if pending:
        held = f"  Held back: {pending['users']:,} users ({pending['percent']} percent), {pending['reason']}."
        lines.append(Text(held, "bold yellow"))
        if "digest" in pending:
            lines.append(Text(f"  To let this set go: --approve {pending['digest']}", "yellow"))
    lines += [Text(f"  Warning: {warning}", "yellow") for warning in report["warnings"]]
    return lines


def _print_users(report: Document, console: Console) -> None:
    for kind, ids in report.get("users", {}).items():
        if ids:
            console.print(Text(f"  {_KINDS[kind]}:", "dim"))
            for user_id in ids:
                console.print(Text(f"    {user_id}"))
