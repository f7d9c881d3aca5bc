"""Tells the story on the stage of a cluster, and stays if asked to."""

from __future__ import annotations

import asyncio
import shlex
import sys
from typing import TYPE_CHECKING

from rich.text import Text

from controller.cli.demo import trying
from controller.cli.demo.command import fail
from controller.cli.demo.narrator import Narrator
from controller.cli.demo.stage import PromiseBroken
from controller.cli.demo.story import Story
from controller.cli.exits import Exit
from controller.cli.failures import guard
from controller.cli.rendering import open_console
from controller.cli.running import run_to_end
from controller.cli.session import Session
from controller.ops.logs import LogFormat, configure
from controller.settings import ALLOW_INSECURE_VARIABLE
from deploy.demo.stage_cluster import NAME, NAMESPACE, open_cluster_stage

if TYPE_CHECKING:
    from rich.console import Console

    from deploy.demo.stage_cluster import ClusterStage
    from tests.support.controlplane import Programs

KEPT_INTERVAL = "30s"


def tell(programs: Programs, *, keep: bool) -> int:
    """Open the stage, tell the story, close the stage; return the exit code."""
    configure(LogFormat.CONSOLE, "critical")
    console = open_console(sys.stdout)
    return guard(lambda: run_to_end(_play(programs, console, keep=keep)), Session())


async def _play(programs: Programs, console: Console, *, keep: bool) -> Exit:
    try:
        async with open_cluster_stage(programs, lambda line: console.print(Text(f"   {line}", "dim"))) as stage:
            narrator = Narrator(console)
            await Story(stage, narrator).tell()
            console.print(Text(f"\nAll {narrator.seen} promises were kept.", "bold green"))
            if keep:
                await _stay(stage, console)
    except PromiseBroken as broken:
        return fail(broken)
    return Exit.DONE


async def _stay(stage: ClusterStage, console: Console) -> None:
    """Leave all of it running until Ctrl-C, which is the good end here."""
    await stage.kubectl(
        "patch", "usersync", NAME, "--type=merge", "-p", f'{{"spec": {{"interval": "{KEPT_INTERVAL}"}}}}'
    )
    # so that no command has to name it
    await stage.kubectl("config", "set-context", "--current", f"--namespace={NAMESPACE}")
    trying.show(console, KEPT_INTERVAL, _settings(stage), _things_to_try(stage))
    console.print(Text(f"Logs of the programs: {stage.folder}\n"), soft_wrap=True)
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        console.print("\nEnding.")


def _settings(stage: ClusterStage) -> list[str]:
    return [
        trying.set_path(stage.plane.kubectl.program.parent),
        f"export KUBECONFIG={shlex.quote(str(stage.plane.kubeconfig))}",
        f"export {ALLOW_INSECURE_VARIABLE}=1",
    ]


def _things_to_try(stage: ClusterStage) -> list[tuple[str, str]]:
    return [
        ("Watch, until Ctrl-C:", "kubectl get usersync -w"),
        ("What the controller says:", f"kubectl describe usersync {NAME}"),
        ("Run now:", f"kubectl annotate usersync {NAME} usersync.dev/reconcile-at=$(date +%s) --overwrite"),
        ("Suspend, and go on:", f'kubectl patch usersync {NAME} --type=merge -p \'{{"spec": {{"suspend": true}}}}\''),
        ("", f'kubectl patch usersync {NAME} --type=merge -p \'{{"spec": {{"suspend": false}}}}\''),
        ("The same by hand, on the manifest:", f"usersync analyze -f {shlex.quote(str(stage.manifest))}"),
        (
            "Look into the database:",
            f"{shlex.quote(str(stage.application.psql))} {shlex.quote(stage.application.url)}",
        ),
        *trying.with_users(stage),
    ]
