"""`usersync demo`: opens the stage of this machine, tells the story, and stays if asked to."""

from __future__ import annotations

import asyncio
import shlex
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import click
from rich.text import Text

from controller.cli.demo import trying
from controller.cli.demo.narrator import Narrator
from controller.cli.demo.stage import PromiseBroken
from controller.cli.demo.stage_local import open_local_stage
from controller.cli.demo.story import Story
from controller.cli.exits import Exit
from controller.cli.rendering import open_console
from controller.cli.running import run_to_end
from controller.cli.session import debug_option
from controller.ops.logs import LogFormat, configure
from controller.settings import ALLOW_INSECURE_VARIABLE

if TYPE_CHECKING:
    from rich.console import Console

    from controller.cli.demo.stage_local import LocalStage

KEPT_INTERVAL = timedelta(seconds=30)


@click.command()
@click.option("--keep", is_flag=True, help="Stay when the story is told, until Ctrl-C, with commands to try.")
@debug_option
def demo(keep: bool) -> Exit:  # noqa: FBT001 - a click parameter
    """Watch users drift and be mended, on this machine alone.

    Starts a PostgreSQL server, an emulated Clerk and the webhook service on 127.0.0.1, tells what happens to users
    and checks every step; removes everything when it ends.
    """
    configure(LogFormat.CONSOLE, "critical")
    console = open_console(sys.stdout)
    console.print("usersync demo: PostgreSQL, an emulated Clerk, the webhook service, the controller's loop")
    try:
        return run_to_end(_play(console, keep=keep))
    except PromiseBroken as broken:
        return fail(broken)


def fail(broken: PromiseBroken) -> Exit:
    """Say which promise was not kept."""
    click.echo(f"Error: the story went wrong. {broken}", err=True)
    return Exit.ERROR


async def _play(console: Console, *, keep: bool) -> Exit:
    async with open_local_stage() as stage:
        console.print(f"Clerk:    {stage.clerk.url}\nDatabase: {stage.application.url}")
        narrator = Narrator(console)
        await Story(stage, narrator).tell()
        console.print(Text(f"\nAll {narrator.seen} promises were kept.", "bold green"))
        if keep:
            await _stay(stage, console)
    return Exit.DONE


async def _stay(stage: LocalStage, console: Console) -> None:
    """Leave all of it running until Ctrl-C, which is the good end here."""
    trying.show(console, f"{KEPT_INTERVAL.total_seconds():.0f} s", _settings(stage), _things_to_try(stage))
    stage.loop.set_interval(KEPT_INTERVAL)
    try:
        while True:
            report = await stage.loop.next_run()
            if "error" in report or any(report["changes"].values()):
                message = (report.get("error") or report["lastRun"])["message"]
                console.print(Text(f"controller: {message}"))
    except asyncio.CancelledError:
        console.print("\nEnding.")


def _settings(stage: LocalStage) -> list[str]:
    return [
        trying.set_path(),
        f"export CLERK_API_URL={stage.clerk.url} {ALLOW_INSECURE_VARIABLE}=1",
        f"export CLERK_SECRET_KEY={stage.clerk.secret_key}",
        f"export DATABASE_URL={stage.application.url}",
    ]


def _things_to_try(stage: LocalStage) -> list[tuple[str, str]]:
    return [
        ("How far the database is from Clerk:", "usersync analyze"),
        ("Mend it, with the manifest of the story:", f"usersync full-sync --yes -f {shlex.quote(str(stage.manifest))}"),
        ("Look into the database:", f'{shlex.quote(str(stage.application.psql))} "$DATABASE_URL"'),
        *trying.with_users(stage),
    ]
