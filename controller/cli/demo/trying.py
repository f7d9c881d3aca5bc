"""What to try while a demo stays: commands that work as they are, pasted into any shell in any folder.

Decides how they are set: programs found by a PATH that is printed along, no comments behind a command (an
interactive zsh takes them for arguments), no line broken by us. Used by `command`, and by the stage of a cluster.
"""

from __future__ import annotations

import json
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from controller.cli.demo.application import END_ACCOUNT, ORIGIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from controller.cli.demo.stage import Stage

COMMAND = "usersync"


def set_path(*folders: Path) -> str:
    """Return the command that puts `usersync`, and what else is in `folders`, on the PATH."""
    own = [shlex.quote(str(folder)) for folder in (scripts_folder(), *folders)]
    return f"export PATH={':'.join(own)}:$PATH"


def scripts_folder() -> Path:
    """Return the folder of this very installation's `usersync`, which is on nobody's PATH in a virtual environment."""
    candidates = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts")), Path(sys.argv[0]).parent]
    found = [folder for folder in candidates if (folder / COMMAND).is_file()]
    return (found or candidates)[0].absolute()


def with_users(stage: Stage) -> list[tuple[str, str]]:
    """What users and the emulated Clerk can do, on either stage."""
    url = stage.clerk.url
    session = json.dumps({"user_id": next(iter(stage.clerk.users)), "origin": ORIGIN})
    token = f"curl -sS -X POST {url}/emulator/sessions -d '{session}' | cut -d '\"' -f 4"
    return [
        ("Somebody signs up; the webhook comes:", f"curl -X POST {url}/emulator/sign-ups -d '{{}}'"),
        (
            "Two are deleted, and the webhooks are lost:",
            f'curl -X DELETE {url}/emulator/users -d \'{{"newest": 2, "webhook": false}}\'',
        ),
        (
            "Clerk's listing breaks, and is well again:",
            f'curl -X POST {url}/emulator/faults -d \'{{"name": "server-error", "endpoint": "list"}}\'',
        ),
        ("", f"curl -X DELETE {url}/emulator/faults"),
        (
            "A user ends the account on the application's page:",
            f'curl -X DELETE {stage.service_url}{END_ACCOUNT} -H "Authorization: Bearer $({token})"',
        ),
        ("The webhooks so far:", f"curl {url}/emulator/webhooks/deliveries"),
    ]


def show(console: Console, interval: str, settings: Sequence[str], tries: Iterable[tuple[str, str]]) -> None:
    """Print `settings`, for once, and `tries` with what each is for."""
    lines = ["", f"Everything stays until Ctrl-C, with a run every {interval}. In another terminal:", ""]
    lines += [f"    {command}" for command in settings]
    for what, command in tries:
        lines += ["", f"  {what}"] if what else []
        lines.append(f"    {command}")
    for line in [*lines, ""]:
        console.print(Text(line), soft_wrap=True)
