"""Starts programs that cannot outlive the process which started them, and ends them by their id.

A test run that is killed leaves nothing listening: the kernel ends the children with it (Linux).
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Run between fork and the program. `subprocess` has preexec_fn for this, which may deadlock beside threads
# (and warns of it from Python 3.12 on); an interpreter of its own costs 20 ms and cannot.
# A blocked signal would stay blocked in the program, which then could not be asked to end.
# prctl(2): PR_SET_PDEATHSIG is 1, survives execve but no change of the user id, and counts from the death of the
# *thread* that started us.
_TETHER: Final = """
import ctypes, os, signal, sys
parent, uid, gid = map(int, sys.argv[1:4])
if os.getuid() != uid:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
if os.getppid() != parent:
    sys.exit("the parent ended before the program began")
os.execv(sys.argv[4], sys.argv[4:])
"""


def spawn(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    account: tuple[int, int] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts `argv` (its first element is a path) with its output appended to `log`.

    `account`: user and group id to run it as, if not our own; only root may ask for another.

    Its process id is that of the program itself. It is killed when the calling thread ends, so call it from
    a thread that lives as long as the program should: the main thread as a rule, never a worker thread.
    In a session of its own: Ctrl-C at the terminal reaches us alone, and we end it in order.
    """
    uid, gid = account or (os.getuid(), os.getgid())
    tether = [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), str(uid), str(gid)]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*tether, *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], *, patience_seconds: float = 15.0) -> int:
    """Asks the program to end, makes it end when it does not, and returns its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
