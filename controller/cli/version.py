"""`usersync version`."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import click

from controller.cli.session import debug_option

DISTRIBUTION = "usersync-operator"


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@debug_option
def version(output: str) -> None:
    """Show the version."""
    number = metadata.version(DISTRIBUTION)
    if output == "json":
        click.echo(json.dumps({"version": number, "python": platform.python_version()}))
    else:
        click.echo(f"usersync {number}")
