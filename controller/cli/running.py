"""Runs a coroutine from a command, so that a signal closes what is open before the program ends.

Decides what SIGTERM does: what Ctrl-C does, so that a run gives its lock back instead of letting it time out. Used
by the commands that do a run.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, TypeVar

from controller.cli.failures import Terminated

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on a loop of its own.

    Raises:
        KeyboardInterrupt, Terminated: a signal arrived; `work` was cancelled and has ended.
    """
    terminated = False

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - said for the type checker: a coroutine runs in a task

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        if terminated:
            raise Terminated from None
        raise
