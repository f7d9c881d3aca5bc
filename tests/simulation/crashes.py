"""How processes end, stand still, and lose their connections; each at a step that the history names.

A step is a statement on its way to the server, or a question to Clerk. A process that was killed sends nothing any
more, however its clean-up code tries.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.simulation.connections import SimulatedConnection
    from tests.simulation.loop import ProcessClock


class Killed(BaseException):
    """The process is gone. No `except` of the product may catch it."""


class Fate(Enum):
    """What becomes of a process at a step."""

    KILL_BEFORE = "killed before the step"
    KILL_AFTER = "killed when the step had its effect, before the answer"
    DROP_BEFORE = "connection lost before the step"
    DROP_AFTER = "connection lost when the step had its effect, before the answer"
    TERMINATE = "told to end"
    STALL = "stopped for a while"


@dataclass
class Armed:
    """A fate that waits for its step. `commits`: only COMMITs count."""

    fate: Fate
    steps: int
    commits: bool = False
    stall: float = 0.0


@dataclass(eq=False)
class Process:
    """One operating-system process: its tasks, its connections, and what lies in wait for it."""

    name: str
    clock: ProcessClock
    alive: bool = True
    frozen_until: float = 0.0
    armed: list[Armed] = field(default_factory=list)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    connections: set[SimulatedConnection] = field(default_factory=set)

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a task of this process."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def check(self) -> None:
        """Stop whoever goes on in a process that is gone."""
        if not self.alive:
            raise Killed

    def next_fate(self, *, commit: bool) -> Armed | None:
        """Count a step; returns what becomes of the process at it."""
        for armed in self.armed:
            if armed.commits and not commit:
                continue
            if armed.steps == 0:
                self.armed.remove(armed)
                return armed
            armed.steps -= 1
        return None

    def kill(self) -> None:
        """End at once: connections are lost, nothing is cleaned up."""
        self.alive = False
        for connection in self.connections:
            connection.lost = True
        self.terminate()

    def terminate(self) -> None:
        """Tell all tasks to end; they may clean up."""
        current = asyncio.current_task()
        for task in self.tasks:
            if task is not current:
                task.cancel()
