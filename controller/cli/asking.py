"""Who sits at the terminal, and whether anybody does.

Decides on whose request something is said to be done, and when a command may ask. Used by `sweeps` and `requests`.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys

import click

from controller.cli.inputs import STDIN


def person() -> str:
    """Say as much of who sits here as can be known."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return f"command line: {name} on {socket.gethostname()}"


def require_terminal(manifest: str | None, otherwise: str) -> None:
    """Refuse to go on where nobody can be asked; `otherwise` says what to give instead.

    Raises:
        UsageError: standard input or standard error is no terminal, or the manifest comes from standard input.
    """
    if manifest != STDIN and sys.stdin.isatty() and sys.stderr.isatty():
        return
    message = f"This command may delete, and there is no terminal to ask at. {otherwise}"
    raise click.UsageError(message)
