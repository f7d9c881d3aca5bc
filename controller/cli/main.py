"""The commands of `usersync` and `kubectl-usersync`, each loaded only when it is called.

Decides which commands there are; `usersync version` must not pay for kopf, the Kubernetes client or svix.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from controller.cli.failures import guard
from controller.cli.session import Session, debug_option

if TYPE_CHECKING:
    from collections.abc import Sequence


class Entry(NamedTuple):
    """Where a command is, and the line that the list of commands shows without loading it."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "analyze": Entry("sweeps", "analyze", "Show how far the database is from Clerk; change nothing."),
    "fix-progress": Entry("sweeps", "fix_progress", "Create the profile rows that are missing."),
    "cleanup": Entry("sweeps", "cleanup", "Remove the rows of users whom Clerk proves gone."),
    "fix-duplicates": Entry("sweeps", "fix_duplicates", "Keep each user's oldest profile row, remove the others."),
    "full-sync": Entry("sweeps", "full_sync", "fix-progress, cleanup and fix-duplicates, in this order."),
    "restore": Entry("requests", "restore", "Put the removed rows of one user back from the archive."),
    "erase": Entry("requests", "erase", "Erase one user whom Clerk has deleted, the archive included."),
    "receipts": Entry("receipts", "receipts", "Show what became of whom, and verify that nothing was changed since."),
    "doctor": Entry("doctor", "doctor", "Look for what goes wrong in practice, and say what mends it."),
    "policies": Entry("policies", "policies", "Check or create row-level security that works with Clerk's ids."),
    "migrate": Entry("schema", "migrate", "Create or bring up to date the schema that usersync works with."),
    "operate": Entry("operate", "operate", "Run the controller on a Kubernetes cluster."),
    "serve": Entry("serve", "serve", "Run the webhook service."),
    "demo": Entry("demo.command", "demo", "Watch users drift and be mended, on this machine alone."),
    "version": Entry("version", "version", "Show the version."),
}


class Commands(click.Group):
    """A group that imports a command's module when the command is called, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands, in the order in which a person meets them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(f"controller.cli.{entry.module}"), entry.attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - a fault of this table, seen by its first test
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the summaries: click would load every command for it."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 in sync or done, 1 error, 2 usage or invalid manifest, 3 drift or findings, or left behind, "
    "4 deletion blocked.",
)
@debug_option
def usersync() -> None:
    """Keep the users of Clerk and the rows of a Supabase (PostgreSQL) database in step.

    Never deletes the rows of a user whom Clerk does not prove gone.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code."""
    session = Session()
    return guard(lambda: usersync.main(arguments, "usersync", standalone_mode=False, obj=session), session)


def main() -> None:
    """Enter from the shell."""
    sys.exit(run())


if __name__ == "__main__":
    main()
