"""Watches which processes a program starts, so that a test can say that none outlived it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_POLL_SECONDS = 0.05


class Descendants:
    """Every process that descends from one, seen while it runs; an async context manager."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seen: set[psutil.Process] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to look."""
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def names(self) -> set[str]:
        """The names of those seen that still are there."""
        return {process.name() for process in self._seen if process.is_running()}

    async def left(self, *, seconds: float = 20.0) -> list[str]:
        """Wait until all have ended, but not longer than `seconds`; return the command lines of those left."""
        _, alive = await asyncio.to_thread(psutil.wait_procs, list(self._seen), seconds)
        return [" ".join(process.cmdline()) for process in alive]

    async def _look(self) -> None:
        while True:
            try:
                self._seen.update(self._root.children(recursive=True))
            except psutil.NoSuchProcess:
                return
            await asyncio.sleep(_POLL_SECONDS)


def files_in(folder: Path) -> list[str]:
    """The names of what is in a folder."""
    return [path.name for path in folder.iterdir()]
