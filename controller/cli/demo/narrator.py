"""Tells the story in the terminal, and holds it to what was seen.

Decides how the story looks and how fast it goes: slowly enough to be read on a terminal, at once elsewhere. Never
decides what happens; that is `story`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from rich.padding import Padding
from rich.text import Text

from controller.cli.demo.stage import PromiseBroken
from controller.cli.rendering import print_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rich.console import Console

    from controller.cli.reports import Document

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""How long anything may take before the story says that it did not happen; on an idle machine it is a second."""
READING_SECONDS = 1.5
_POLL_SECONDS = 0.02


class Narrator:
    """Who speaks."""

    def __init__(self, console: Console, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._console = console
        self._patience_seconds = patience_seconds
        self._chapters = 0
        self.seen = 0

    async def chapter(self, title: str) -> None:
        """Begin a chapter, after a pause in which a person can read the last one."""
        if self._console.is_terminal and self._chapters:
            await asyncio.sleep(READING_SECONDS)
        self._chapters += 1
        self._console.print()
        self._console.print(Text(f"{self._chapters}. {title}", "bold cyan"))

    def say(self, text: str) -> None:
        """Tell what is going on."""
        self._print(Text(text))

    def command(self, text: str) -> None:
        """Show what a person would do, `$ ` before what is typed."""
        self._print(Text(text, "dim"))

    def _print(self, text: Text) -> None:
        self._console.print(Padding.indent(text, 3))

    def show(self, report: Document) -> None:
        """Show a report as `usersync` prints it."""
        print_table(report, self._console)

    def saw(self, text: str) -> None:
        """Note a promise that was kept."""
        self.seen += 1
        self._print(Text.assemble(("✓ ", "green"), text))

    def expect(self, what: str, seen: object, wanted: object) -> None:
        """Hold the story to a value.

        Raises:
            PromiseBroken: it is another one.
        """
        if seen != wanted:
            message = f"{what}: {wanted!r} was promised, {seen!r} was seen"
            raise PromiseBroken(message)
        self.saw(what)

    async def wait_for(self, what: str, look: Callable[[], Awaitable[T]], wanted: T) -> float:
        """Look until it is so; return the seconds that it took.

        Raises:
            PromiseBroken: it did not become so in good time.
        """
        began = time.monotonic()
        while (seen := await look()) != wanted:
            if time.monotonic() - began > self._patience_seconds:
                message = f"{what}: {wanted!r} was promised within {self._patience_seconds:g} s, {seen!r} was seen"
                raise PromiseBroken(message)
            await asyncio.sleep(_POLL_SECONDS)
        return time.monotonic() - began
