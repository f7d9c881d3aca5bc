"""`usersync doctor`: what goes wrong in practice, looked for in one go; nothing is changed.

Decides how findings are printed and how the command ends; what is a finding is `core.diagnosing`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
from rich.text import Text

from controller.cli.exits import Exit, worst
from controller.cli.options import clerk_url_options, output_option, resource_options
from controller.cli.rendering import Output, open_console, print_document
from controller.cli.running import run_to_end
from controller.cli.session import Session, debug_option
from controller.cli.subjects import read_subjects
from controller.core.diagnosing import diagnose
from controller.core.findings import Diagnosis, Severity
from controller.ops.logs import LogFormat, configure
from controller.runtime import Subject, examine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from controller.cli.reports import Document
    from controller.core.targets import Spec
    from controller.settings import ClerkURLs

_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


@click.command()
@resource_options
@output_option
@clerk_url_options
@debug_option
def doctor(*, manifest: str | None, name: str | None, output: str, urls: ClerkURLs) -> Exit:
    """Look for what goes wrong in practice, in keys, database, tables, policies and clocks; change nothing.

    Each finding says what happens if it stays, and the command or SQL that mends it. Ends with 0 where there are notes
    at most, with 3 where there is more, and with 1 where a check could not be made.
    """
    debug = click.get_current_context().ensure_object(Session).debug
    configure(LogFormat.CONSOLE, "debug" if debug else "error")
    subjects = read_subjects(manifest, os.environ, name)
    diagnoses = run_to_end(_diagnose_each(subjects, urls))
    _show([(spec, diagnosis) for (spec, _), diagnosis in zip(subjects, diagnoses, strict=True)], Output(output))
    return worst(_exit(diagnosis) for diagnosis in diagnoses)


async def _diagnose_each(subjects: Sequence[tuple[Spec, Subject]], urls: ClerkURLs) -> list[Diagnosis]:
    return [diagnose(await examine(spec, subject, urls), spec) for spec, subject in subjects]


def _exit(diagnosis: Diagnosis) -> Exit:
    if diagnosis.unchecked:
        return Exit.ERROR
    return Exit.DRIFT if diagnosis.is_grave else Exit.DONE


def _show(diagnoses: Sequence[tuple[Spec, Diagnosis]], output: Output) -> None:
    if output is not Output.TABLE:
        documents = [_document(spec, diagnosis) for spec, diagnosis in diagnoses]
        print_document(documents[0] if len(documents) == 1 else {"items": documents}, output, sys.stdout)
        return
    console = open_console(sys.stdout)
    for spec, diagnosis in diagnoses:
        _print(spec, diagnosis, console)


def _print(spec: Spec, diagnosis: Diagnosis, console: Console) -> None:
    lines = [Text.assemble((spec.name, "bold"), f"  {_summary(diagnosis)}")]
    for finding in diagnosis.findings:
        head = (f"{finding.severity.value:8}", _COLOURS[finding.severity])
        lines += [
            Text(),
            Text.assemble(head, (finding.name, "bold"), f"  {finding.message}"),
            Text(f"        If it stays: {finding.consequence}"),
            Text(f"        To mend it:  {finding.remedy}"),
        ]
    if diagnosis.unchecked:
        lines += [Text(), Text("Could not be checked:", "bold")]
        lines += [Text(f"        {each.check}: {each.why}") for each in diagnosis.unchecked]
    for line in [*lines, Text()]:
        # What is copied from it (a command, SQL) stays in one line.
        console.print(line, soft_wrap=True)


def _summary(diagnosis: Diagnosis) -> str:
    counts = [(severity, sum(each.severity is severity for each in diagnosis.findings)) for severity in Severity]
    words = [f"{count} {severity.value}{'s' if count > 1 else ''}" for severity, count in counts if count]
    return ", ".join(words) or (
        "nothing found" if not diagnosis.unchecked else "nothing found in what could be checked"
    )


def _document(spec: Spec, diagnosis: Diagnosis) -> Document:
    return {
        "resource": spec.name,
        "findings": [
            {
                "name": finding.name,
                "severity": finding.severity.value,
                "message": finding.message,
                "consequence": finding.consequence,
                "remedy": finding.remedy,
            }
            for finding in diagnosis.findings
        ],
        "unchecked": [{"check": each.check, "why": each.why} for each in diagnosis.unchecked],
    }
