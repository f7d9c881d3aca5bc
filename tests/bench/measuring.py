"""Time and memory of the process that asks."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Stopwatch:
    """Laps in seconds, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End the current lap and add it to `name`."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now


def peak_memory(pid: int | None = None) -> float:
    """Peak resident memory of a process, this one, in MiB; not getrusage, which counts the parent's before exec."""
    status = Path(f"/proc/{pid or 'self'}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    """Time on a processor that a process has taken so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
