"""The commands that do one run: `analyze`, `fix-progress`, `cleanup`, `fix-duplicates`, `full-sync`.

Decides what a command asks of a run, whether a person is asked first, and in which order several resources are
worked on; the run itself is `core.sweeping`. Each command has its own action, whatever `spec.actions` says.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from controller.cli.asking import person, require_terminal
from controller.cli.exits import Exit, exit_of_outcome, worst
from controller.cli.failures import explain
from controller.cli.inputs import Resource, read_resources
from controller.cli.options import clerk_url_options, manifest_option
from controller.cli.rendering import Output, print_reports
from controller.cli.reports import Document, Finished, failure_report, report
from controller.cli.running import run_to_end
from controller.cli.session import Session, debug_option
from controller.cli.watching import Terminal
from controller.core.targets import Action, Approval, RowLevelSecurity, Spec, expand
from controller.errors import UserSyncError
from controller.kube.durations import parse_duration
from controller.ops.logs import LogFormat, configure
from controller.runtime import holder_name, open_sweeper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from controller.settings import ClerkURLs

DELETING = {Action.CLEANUP, Action.FIX_DUPLICATES}
_WITHOUT_TERMINAL = "Give --yes to let it delete what Clerk proves gone, or --dry-run to see what it would do."


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a command, named as click names them."""

    urls: ClerkURLs
    manifest: str | None = None
    output: str = Output.TABLE.value
    show_users: bool = False
    dry_run: bool = False
    yes: bool = False
    approve: str | None = None
    grace_period: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How each of the runs is to be done."""

    urls: ClerkURLs
    asks: bool
    shows: bool
    debug: bool


def _read_duration(context: click.Context, option: click.Parameter, value: str | None) -> timedelta | None:
    """Read a duration as a manifest has it."""
    duration = None if value is None else parse_duration(value)
    if value is not None and duration is None:
        message = f"{value!r} is no duration such as 0s, 45s, 1h30m or 2d."
        raise click.BadParameter(message, context, option)
    return duration


def deletion_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what only a command that removes users has."""
    approve = click.option(
        "--approve", metavar="DIGEST", help="Let the held-back set of this digest go, whatever the limits."
    )
    grace_period = click.option(
        "--grace-period",
        callback=_read_duration,
        metavar="DURATION",
        help="How long a user must have been absent from one complete listing to the next. Without it: the manifest's, "
        "or of the environment alone 0s where a person confirms, else 24h.",
    )
    return approve(grace_period(command))


def repair_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what only a command that changes something has."""
    dry_run = click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")
    yes = click.option("--yes", is_flag=True, help="Delete without asking; needed where no terminal is there to ask.")
    return dry_run(yes(command))


def sweep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every command of this module has."""
    output = click.option(
        "-o",
        "--output",
        type=click.Choice([each.value for each in Output]),
        default=Output.TABLE.value,
        show_default=True,
        help="json and yaml have the shape of a UserSync's status; several resources stand under items.",
    )
    shows = click.option("--show-users", is_flag=True, help="Name the users who drifted, not only their number.")
    return manifest_option(output(shows(clerk_url_options(debug_option(command)))))


@click.command()
@sweep_options
def analyze(**options: Any) -> Exit:
    """Show how far the database is from Clerk; change nothing."""
    return sweep_all(Action.ANALYZE, Asked(**options))


@click.command("fix-progress")
@repair_options
@sweep_options
def fix_progress(**options: Any) -> Exit:
    """Create the profile rows that are missing."""
    return sweep_all(Action.FIX_PROGRESS, Asked(**options))


@click.command()
@deletion_options
@repair_options
@sweep_options
def cleanup(**options: Any) -> Exit:
    """Remove the rows of users whom Clerk proves gone, within the limits of the manifest.

    Each user is asked for by id before anything is deleted, and every row is archived first.
    """
    return sweep_all(Action.CLEANUP, Asked(**options))


@click.command("fix-duplicates")
@repair_options
@sweep_options
def fix_duplicates(**options: Any) -> Exit:
    """Keep each user's oldest profile row, archive and remove the others."""
    return sweep_all(Action.FIX_DUPLICATES, Asked(**options))


@click.command("full-sync")
@deletion_options
@repair_options
@sweep_options
def full_sync(**options: Any) -> Exit:
    """fix-progress, cleanup and fix-duplicates, in this order."""
    return sweep_all(Action.FULL_SYNC, Asked(**options))


def sweep_all(action: Action, asked: Asked) -> Exit:
    """Do a run of each resource, one after the other; the exit code is the worst of them."""
    debug = click.get_current_context().ensure_object(Session).debug
    configure(LogFormat.CONSOLE, "debug" if debug else "error")
    resources = [_ask_for(action, each, asked) for each in read_resources(asked.manifest, os.environ)]
    writing = [each.spec for each in resources if not each.spec.dry_run and action is not Action.ANALYZE]
    _refuse_suspended(writing)
    asks = bool(writing) and bool(expand((action,)) & DELETING) and not asked.yes
    if asks:
        require_terminal(asked.manifest, _WITHOUT_TERMINAL)
    for each in resources:
        asked.urls.check(each.spec.clerk.api_url)
    exits, reports = run_to_end(_sweep_each(resources, Manner(asked.urls, asks, asked.show_users, debug)))
    print_reports(reports, Output(asked.output), sys.stdout)
    return worst(exits)


def _ask_for(action: Action, resource: Resource, asked: Asked) -> Resource:
    spec = resource.spec
    # Policies have a command of their own.
    spec = replace(
        spec,
        actions=(action,),
        dry_run=asked.dry_run or spec.dry_run,
        row_level_security=RowLevelSecurity.IGNORE,
    )
    grace_period = asked.grace_period
    if grace_period is None and asked.manifest is None and not asked.yes:
        # a person is asked, and sees whom it concerns
        grace_period = timedelta()
    if grace_period is not None:
        spec = replace(spec, deletion=replace(spec.deletion, grace_period=grace_period))
    if asked.approve is not None:
        spec = replace(spec, approval=Approval(asked.approve.strip().lower(), person()))
    return replace(resource, spec=spec)


def _refuse_suspended(writing: Sequence[Spec]) -> None:
    for spec in writing:
        if spec.suspend:
            message = (
                f"{spec.name} says spec.suspend: true, so nothing is written for it. Take that out of the manifest, "
                "or see what would be done with --dry-run."
            )
            raise click.UsageError(message)


async def _sweep_each(resources: Sequence[Resource], manner: Manner) -> tuple[list[Exit], list[Document]]:
    exits: list[Exit] = []
    reports: list[Document] = []
    for resource in resources:
        try:
            finished = await _sweep_one(resource, manner)
        except UserSyncError as error:
            exits.append(
                explain(error, debug=manner.debug, resource=resource.spec.name if len(resources) > 1 else None)
            )
            reports.append(failure_report(resource.spec, error))
        else:
            exits.append(exit_of_outcome(finished.outcome, expand(resource.spec.actions)))
            reports.append(report(finished))
    return exits, reports


async def _sweep_one(resource: Resource, manner: Manner) -> Finished:
    spec = resource.spec
    started_at = datetime.now(UTC)
    with Terminal(spec.name, asks=manner.asks and not spec.dry_run, shows=manner.shows) as watcher:
        async with open_sweeper(spec, resource.credentials, manner.urls, watcher) as sweeper:
            outcome = await sweeper.sweep(spec, holder=holder_name())
    return Finished(spec, outcome, started_at, datetime.now(UTC), watcher.shown if manner.shows else None)
