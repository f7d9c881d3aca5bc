"""`usersync demo` as a person runs it: the story to its end, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.descendants import Descendants, files_in
from tests.support.pasting import Terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BOUND = 120.0

pytestmark = pytest.mark.timeout(240)


class Demo:
    """A running demo, and what it has told so far."""

    def __init__(self, process: asyncio.subprocess.Process, descendants: Descendants) -> None:
        self.process = process
        self.descendants = descendants
        self.told = ""

    async def until(self, text: str) -> None:
        """Read on until the text is told."""
        assert self.process.stdout is not None
        async with asyncio.timeout(BOUND):
            while text not in self.told:
                line = await self.process.stdout.readline()
                assert line, self.told
                self.told += line.decode()

    async def end(self) -> int:
        """Read on to the end; return the exit code."""
        assert self.process.stdout is not None
        async with asyncio.timeout(BOUND):
            self.told += (await self.process.stdout.read()).decode()
            return await self.process.wait()


@asynccontextmanager
async def demo(temporary: Path, *arguments: str) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "controller.cli.main",
        "demo",
        *arguments,
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with Descendants(process.pid) as descendants:
            yield Demo(process, descendants)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_story_is_told_to_its_end_and_nothing_is_left(tmp_path: Path) -> None:
    async with demo(tmp_path) as running:
        code = await running.end()
        assert code == 0, running.told
        assert "promises were kept" in running.told
        assert await running.descendants.left() == []
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_in_the_middle_ends_all_of_it(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    async with demo(tmp_path) as running:
        await running.until("2. Users sign up")
        running.process.send_signal(sent)
        assert await running.end() == code, running.told
        assert "Traceback" not in running.told
        assert await running.descendants.left() == []
    assert files_in(tmp_path) == []


async def test_a_killed_demo_takes_its_programs_with_it(tmp_path: Path) -> None:
    async with demo(tmp_path) as running:
        await running.until("2. Users sign up")
        assert "postgres" in running.descendants.names
        running.process.kill()
        assert await running.descendants.left() == []


async def test_kept_it_goes_on_mending_on_its_interval(tmp_path: Path) -> None:
    async with demo(tmp_path, "--keep") as running:
        await running.until("/emulator/webhooks/deliveries")
        url = running.told.partition("export CLERK_API_URL=")[2].split()[0]
        async with aiohttp.ClientSession() as session:
            await session.delete(f"{url}/emulator/users", json={"newest": 2, "webhook": False})
        await running.until("controller: 2 users removed")
        running.process.send_signal(signal.SIGTERM)
        await running.end()


async def test_kept_it_stays_until_ctrl_c_and_says_what_to_try(tmp_path: Path) -> None:
    async with demo(tmp_path, "--keep") as running:
        await running.until("/emulator/webhooks/deliveries")
        assert "export DATABASE_URL=postgres://" in running.told
        running.process.send_signal(signal.SIGINT)
        assert await running.end() == 0, running.told
        assert await running.descendants.left() == []


async def test_kept_what_it_says_to_try_can_be_pasted_into_any_terminal(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with demo(tmp_path, "--keep") as running:
        await running.until("/emulator/webhooks/deliveries")
        terminal = Terminal(running.told, tmp_path_factory.mktemp("elsewhere"))
        said = {command: await terminal.paste(command) for command in terminal.tries()}
        running.process.send_signal(signal.SIGINT)
        await running.end()
    assert {command: each for command, each in said.items() if each[0] != 0} == {}
    assert {command.partition(" ")[0].rpartition("/")[2] for command in said} == {"usersync", "psql", "curl"}
    assert "In sync" in said["usersync analyze"][1]
    (ended,) = [each for command, (_, each) in said.items() if "/api/user/delete" in command]
    assert json.loads(ended)["status"] == "deleted"
