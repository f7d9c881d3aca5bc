"""The one place where an error becomes a line on stderr and an exit code.

Decides how an error reads and which traceback is shown (none, but with `--debug`). Used by `main` around every
command, and by `sweeps` for one resource of several.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

import click

from controller.cli.exits import Exit, exit_of_error
from controller.errors import UserSyncError

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.cli.session import Session


class Terminated(BaseException):
    """SIGTERM arrived and the run has been closed in order."""


def guard(command: Callable[[], object], session: Session) -> Exit | int:
    """Call the command and return its exit code, whatever happens in it."""
    try:
        code = command()
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        code = Exit.INTERRUPTED
    except Terminated:
        click.echo("Terminated.", err=True)
        code = Exit.TERMINATED
    except BrokenPipeError:
        code = _leave_pipe()
    except SystemExit as left:
        # click ends with 1 when the reader of stdout has gone, which would tell scripts of an error
        if not isinstance(left.__context__, BrokenPipeError):
            raise
        code = _leave_pipe()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except Exception as error:  # noqa: BLE001 - the entry point: whatever is wrong, a person reads a line, not a trace
        code = explain(error, debug=session.debug)
    return code if isinstance(code, int) else Exit.DONE


def explain(error: Exception, *, debug: bool, resource: str | None = None) -> Exit:
    """Say on stderr what happened; `resource` names the one of several that it happened to."""
    if debug:
        traceback.print_exception(error)
    where = f"{resource}: " if resource else ""
    if isinstance(error, UserSyncError | OSError):
        # of the OSErrors only those of this machine come so far: a port that is taken, a file that is not there
        click.echo(f"Error: {where}{error}", err=True)
    else:
        hint = "" if debug else " This is a fault of usersync; --debug shows where."
        click.echo(f"Error: {where}{type(error).__name__}: {error}.{hint}", err=True)
    return exit_of_error(error)


def _leave_pipe() -> Exit:
    """End quietly when the reader of stdout has gone, as `| head` does."""
    # the interpreter flushes stdout once more when it ends, and would complain there
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.BROKEN_PIPE
