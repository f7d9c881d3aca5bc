"""Several questions at once, where the first failure ends them all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

T = TypeVar("T")


async def side_by_side(questions: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the answers in the order of the questions.

    Raises the error of the first question that failed, itself and not in a group, once all others have ended.
    """
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(question) for question in questions]
    except ExceptionGroup as failed:
        first = failed.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]
