"""`usersync migrate`: the schema that usersync keeps its own tables in."""

from __future__ import annotations

import os

import click

from controller.cli.inputs import read_databases
from controller.cli.options import manifest_option
from controller.cli.running import run_to_end
from controller.cli.session import debug_option
from controller.postgres import migrate as apply_migrations
from controller.postgres import migration_sql


@click.command()
@click.option("--print", "print_only", is_flag=True, help="Print the SQL, for a role that may; needs no database.")
@manifest_option
@debug_option
def migrate(manifest: str | None, print_only: bool) -> None:  # noqa: FBT001 - a click parameter
    """Create or bring up to date the schema usersync in the database; the application's tables are not touched.

    The other commands and the controller do this by themselves where their role may.
    """
    if print_only:
        click.echo(migration_sql(), nl=False)
        return
    for database in read_databases(manifest, os.environ):
        applied = run_to_end(apply_migrations(database))
        click.echo(f"Applied {', '.join(applied)}." if applied else "Up to date: nothing to apply.")
