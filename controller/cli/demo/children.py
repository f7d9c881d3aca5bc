"""Programs of the demo as child processes that cannot outlive it, and end in order with it.

Decides how a child is tied to this process. Used by the stages.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from controller.cli.demo.stage import PromiseBroken
from controller.cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 15.0
LISTENING = "webhooks_listening"
"""The line with which the webhook service says its port."""
QUIET_PORTS = ("--ops-host", "127.0.0.1", "--ops-port", "0", "--log-format", "json")
"""For both long-running programs: probes on a free port of the loopback address, and a log that can be read."""
_POLL_SECONDS = 0.05
_LAST_LINES = 5

# Run between fork and the program, in an interpreter of its own: `preexec_fn` may deadlock beside threads.
# prctl(2): PR_SET_PDEATHSIG is 1, survives execve, and counts from the death of the thread that started us.
_TETHER: Final = """
import ctypes, os, signal, sys
if hasattr(ctypes.CDLL(None), "prctl"):
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent ended before the program began")
os.execv(sys.argv[2], sys.argv[2:])
"""


def usersync(*arguments: str) -> list[str]:
    """Return the command line of this very installation's `usersync`, whatever the PATH is."""
    return [sys.executable, "-m", "controller.cli.main", *arguments]


def webhook_service(*arguments: str) -> list[str]:
    """Return the command line of the webhook service on a free port of the loopback address."""
    return usersync("serve", "--host", "127.0.0.1", "--port", "0", *QUIET_PORTS, *arguments)


async def call(*arguments: str, environ: Mapping[str, str]) -> str:
    """Run a command of `usersync` to its end; return what it printed.

    Raises:
        PromiseBroken: it ended with another code than 0 and 3, which is drift found.
    """
    process = await asyncio.create_subprocess_exec(
        *usersync(*arguments), env=dict(environ), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode not in {Exit.DONE, Exit.DRIFT}:
        message = f"usersync {arguments[0]} ended with {process.returncode}: {errors.decode().strip()}"
        raise PromiseBroken(message)
    return output.decode()


@dataclass(frozen=True, slots=True)
class Child:
    """A running program and what it has logged, one JSON object a line."""

    process: subprocess.Popen[bytes]
    log: Path

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait until the program has logged `event`; return that line.

        Raises:
            PromiseBroken: it ended before, or takes too long.
        """
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            for line in self.log.read_text(errors="replace").splitlines():
                with suppress(ValueError):
                    entry: dict[str, Any] = json.loads(line)
                    if entry.get("event") == event:
                        return entry
            await asyncio.sleep(_POLL_SECONDS)
        message = f"{self.log.stem} did not start: {self.last_lines()}"
        raise PromiseBroken(message)

    def last_lines(self) -> str:
        """Return the end of the log, for messages."""
        return " / ".join(self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]) or "it said nothing"


@contextmanager
def running(command: Sequence[str], log: Path, environ: Mapping[str, str]) -> Iterator[Child]:
    """Start `command` with its output appended to `log`, and end it; enter it in the main thread.

    In a session of its own: Ctrl-C reaches us alone, and we end it in order.
    """
    tether = [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid())]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own argument list
            [*tether, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environ),
            start_new_session=True,
        )
    try:
        yield Child(process, log)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the program to end, and make it end when it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
