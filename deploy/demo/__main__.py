"""Chooses the stage and tells the story: `python -m deploy.demo [--cluster] [--keep]`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import click

from tests.support.controlplane import BuildError, StartError, build, find

if TYPE_CHECKING:
    from tests.support.controlplane import Programs


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("--cluster", action="store_true", help="build the Kubernetes API server if it is not there")
    parser.add_argument("--keep", action="store_true", help="stay when the story is told, until Ctrl-C")
    given = parser.parse_args()
    try:
        programs = build(_say) if given.cluster else find()
        return _on_this_machine(keep=given.keep) if programs is None else _on_cluster(programs, keep=given.keep)
    except (BuildError, StartError) as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _on_this_machine(*, keep: bool) -> int:
    from controller.cli.main import run  # noqa: PLC0415 - the first line must not wait for it

    code = run(["demo", *(["--keep"] if keep else [])])
    click.echo(
        "\nThis was told without Kubernetes. `make demo-cluster` tells it on a real API server, built once from\n"
        "its Go modules (5 to 11 minutes); from then on `make demo` does so too."
    )
    return code


def _on_cluster(programs: Programs, *, keep: bool) -> int:
    click.echo("usersync demo on a Kubernetes API server: starting etcd, kube-apiserver, PostgreSQL, an emulated Clerk")
    from deploy.demo.telling import tell  # noqa: PLC0415 - the line above must not wait for it

    return tell(programs, keep=keep)


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    sys.exit(main())
