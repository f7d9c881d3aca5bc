"""Who watches a run from the command line: a progress bar on a terminal, a list of ids, a question.

Decides how a person is asked before a deletion; stdout is never touched, it holds the result alone. Used by
`sweeps`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from controller.core.plans import CreateProfiles, ReduceDuplicates, RemoveUsers
from controller.core.ports import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from controller.core.plans import Plan

_LINE_BYTES = 4096
_YES = {"y", "yes"}


class Terminal:
    """Watches one run; use it as a context manager. Implements `core.ports.Watcher`.

    `asks`: a plan that deletes waits for a person's yes. `shows`: ids of drifted users are collected.
    """

    def __init__(self, label: str, *, asks: bool, shows: bool) -> None:
        self._label = label
        self._asks = asks
        self._shows = shows
        self._totals: dict[Phase, int] = {}
        self._tasks: dict[Phase, TaskID] = {}
        self._progress: Progress | None = None
        self.shown: dict[str, list[str]] = {"missing": [], "outdated": [], "orphaned": [], "duplicated": []}

    @property
    def shows(self) -> bool:
        """Whether ids are wanted."""
        return self._shows

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:,.0f}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, phase: Phase, done: int) -> None:
        """Move the bar of the phase; the phases before it are through."""
        if self._progress is None:
            return
        if phase not in self._tasks:
            for task in self._tasks.values():
                self._progress.update(task, total=max(self._progress.tasks[task].completed, 1))
                self._progress.stop_task(task)
            self._tasks[phase] = self._progress.add_task(f"{self._label}: {phase.value}", total=self._totals.get(phase))
        self._progress.update(self._tasks[phase], completed=done)

    def show(self, kind: str, user_ids: Sequence[str]) -> None:
        """Collect ids for the report."""
        self.shown[kind].extend(user_ids)

    async def permit(self, plan: Plan) -> bool:
        """Ask a person; without one everything that limits and proofs permit is permitted."""
        self._totals = _totals(plan)
        if not self._asks:
            return True
        if self._progress is not None:
            self._progress.stop()
        click.echo(f"{self._label}: {question(plan)} [y/N] ", nl=False, err=True)
        answer = await _read_line(sys.stdin.fileno())
        if self._progress is not None:
            self._progress.start()
        return answer.strip().lower() in _YES


def question(plan: Plan) -> str:
    """Name what would be deleted, in counts."""
    parts = []
    for change in plan.changes:
        match change:
            case RemoveUsers(users):
                approved = "approved " if change.approved else ""
                parts.append(f"all rows of {approved}{_users(users)} whom Clerk no longer knows")
            case ReduceDuplicates(users, rows):
                parts.append(f"{rows} surplus profile row{'s' if rows != 1 else ''} of {_users(users)}")
            case CreateProfiles():
                pass
    return f"Delete {' and '.join(parts)}? (they are archived first)"


def _users(count: int) -> str:
    return f"{count} user{'s' if count != 1 else ''}"


def _totals(plan: Plan) -> dict[Phase, int]:
    totals: dict[Phase, int] = {}
    for change in plan.changes:
        match change:
            case RemoveUsers(users):
                totals[Phase.REMOVE] = totals.get(Phase.REMOVE, 0) + users
            case ReduceDuplicates(users, _):
                totals[Phase.REDUCE] = users
            case CreateProfiles(users):
                totals[Phase.CREATE] = users
    return totals


async def _read_line(descriptor: int) -> str:
    """Wait for a line without a thread: the run's heartbeat goes on, and Ctrl-C ends the wait at once."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_reader(descriptor, arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, _LINE_BYTES).decode(errors="replace")
