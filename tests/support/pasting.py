"""What a demo that stays prints to be tried, tried as a person does: pasted into a shell elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOUND = 60.0
CURL = "curl "


@dataclass(frozen=True, slots=True)
class Terminal:
    """Another terminal, in `folder`, with nothing on its PATH but the system's; `told` is the demo's output."""

    told: str
    folder: Path

    def commands(self) -> list[str]:
        """Every command that was printed, in order; the settings come first."""
        printed = self.told.partition("In another terminal:")[2]
        return [line.strip() for line in printed.splitlines() if line.startswith("    ")]

    def settings(self) -> list[str]:
        """Those that are given once."""
        return [command for command in self.commands() if command.startswith("export ")]

    def tries(self) -> Iterator[str]:
        """The others; the one that watches for ever looks once."""
        for command in self.commands():
            if command not in self.settings():
                yield command.removesuffix(" -w")

    async def paste(self, command: str) -> tuple[int, str]:
        """Run a command after the settings; returns its exit code and all that it said."""
        if command.startswith(CURL):
            return await _request(command)
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            "\n".join([*self.settings(), command]),
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(BOUND):
            said = (await process.communicate())[0].decode()
        assert process.returncode is not None
        return process.returncode, said


async def _request(command: str) -> tuple[int, str]:
    """Do what curl would: not every machine that runs the tests has it."""
    words = shlex.split(command)[1:]
    options = dict(itertools.pairwise(words))
    (url,) = [word for word in words if word.startswith("http://127.0.0.1:")]
    async with (
        aiohttp.ClientSession() as session,
        session.request(options.get("-X", "GET"), url, data=options.get("-d")) as answer,
    ):
        return (0 if answer.ok else answer.status), await answer.text()
