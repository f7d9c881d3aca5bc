"""What a demo that stays prints to be tried, tried as a person does: pasted into a shell elsewhere."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOUND = 60.0
CURL = """
import argparse, urllib.request
parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("-X", default="GET")
parser.add_argument("-d")
parser.add_argument("-H", action="append", default=[])
parser.add_argument("-sS", action="store_true")
asked = parser.parse_args()
request = urllib.request.Request(asked.url, method=asked.X, data=asked.d and asked.d.encode())
for header in asked.H:
    request.add_header(*header.split(": ", 1))
print(urllib.request.urlopen(request, timeout=30).read().decode())
"""
"""What of curl is used; an answer that is an error is one, as with its --fail."""


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
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            "\n".join([*self.settings(), command]),
            cwd=self.folder,
            env={"PATH": f"{self._programs()}:/usr/bin:/bin", "HOME": str(self.folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(BOUND):
            said = (await process.communicate())[0].decode()
        assert process.returncode is not None
        return process.returncode, said

    def _programs(self) -> Path:
        """A folder with a `curl`, which not every machine that runs the tests has."""
        folder = self.folder / "programs"
        folder.mkdir(exist_ok=True)
        program = folder / "curl"
        program.write_text(f"#!{sys.executable}\n{CURL}")
        program.chmod(0o755)
        return folder
