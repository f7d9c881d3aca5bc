"""The control plane from a terminal: `python -m tests.support.controlplane build | path | run`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.support.controlplane.building import BuildError, build, find
from tests.support.controlplane.server import ControlPlane, StartError

HOW_TO_USE = """
The API server is ready: {url}

    export KUBECONFIG={kubeconfig}
    {kubectl} apply -k crds
    {kubectl} get usersyncs -A

No controllers and no nodes: Deployments start nothing. Logs are in {folder}.
Ctrl-C ends it{fate}."""


def main() -> int:
    """Does what the command line says, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.controlplane", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the programs unless they are there, and print where they are")
    commands.add_parser("path", help="print where the programs are; exit code 1 when they would have to be built")
    run = commands.add_parser("run", help="run an API server until Ctrl-C")
    run.add_argument("--folder", type=Path, help="keep data and logs here (default: a temporary folder)")
    run.add_argument("--audit", action="store_true", help="note the requests of ServiceAccounts in audit.log")
    given = parser.parse_args()
    try:
        if given.command == "path":
            return _print_path()
        if given.command == "build":
            print(build(_say).folder)
            return 0
        return _run(given.folder, audit=given.audit)
    except (BuildError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _print_path() -> int:
    found = find()
    if found is None:
        print("not built yet: python -m tests.support.controlplane build", file=sys.stderr)
        return 1
    print(found.folder)
    return 0


def _run(folder: Path | None, *, audit: bool) -> int:
    programs = build(_say)
    # Both signals wait in the kernel until sigwait takes them, so none can hit in the middle of a start.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with (
        tempfile.TemporaryDirectory(prefix="usersync-controlplane-") as temporary,
        ControlPlane(programs, folder or Path(temporary), audit=audit) as plane,
    ):
        print(
            HOW_TO_USE.format(
                url=plane.url,
                kubeconfig=plane.kubeconfig,
                kubectl=programs.kubectl,
                folder=plane.folder,
                fate="" if folder else " and removes them",
            ),
            flush=True,
        )
        signal.sigwait(ends)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
