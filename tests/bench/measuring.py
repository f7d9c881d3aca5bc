"""Time and memory of the process that asks."""

from __future__ import annotations

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
