"""`python -m deploy.demo` on the real API server: the same story, under the rights of the deployed ServiceAccounts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.descendants import Descendants, files_in
from tests.support.pasting import Terminal

if TYPE_CHECKING:
    from tests.support.controlplane import Programs

ROOT = Path(__file__).parents[2]
BOUND = 200.0


async def start(programs: Programs, temporary: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deploy.demo",
        "--cluster",
        *arguments,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary), "KUBEBUILDER_ASSETS": str(programs.folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


@pytest.mark.timeout(300)
async def test_the_story_is_told_on_a_cluster_to_its_end_and_nothing_is_left(
    programs: Programs, tmp_path: Path
) -> None:
    process = await start(programs, tmp_path)
    try:
        async with Descendants(process.pid) as descendants, asyncio.timeout(BOUND):
            told = (await process.communicate())[0].decode()
            assert process.returncode == 0, told
            assert await descendants.left() == []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert "promises were kept" in told
    assert "ACTIONS" in told, "the output of kubectl get usersync -w"
    assert files_in(tmp_path) == []


@pytest.mark.timeout(300)
async def test_kept_what_it_says_to_try_can_be_pasted_into_any_terminal(
    programs: Programs, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    process = await start(programs, tmp_path, "--keep")
    assert process.stdout is not None
    told = ""
    try:
        async with asyncio.timeout(BOUND):
            while "Logs of the programs:" not in told:
                line = await process.stdout.readline()
                assert line, told
                told += line.decode()
            terminal = Terminal(told, tmp_path_factory.mktemp("elsewhere"))
            said = {command: await terminal.paste(command) for command in terminal.tries()}
            process.send_signal(signal.SIGINT)
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert {command: each for command, each in said.items() if each[0] != 0} == {}
    assert {command.partition(" ")[0].rpartition("/")[2] for command in said} == {"kubectl", "usersync", "psql", "curl"}
    assert "production" in said["kubectl get usersync"][1]
