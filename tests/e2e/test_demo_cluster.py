"""`python -m deploy.demo` on the real API server: the same story, under the rights of the deployed ServiceAccounts."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.descendants import Descendants, files_in

if TYPE_CHECKING:
    from tests.support.controlplane import Programs

ROOT = Path(__file__).parents[2]
BOUND = 200.0


@pytest.mark.timeout(300)
async def test_the_story_is_told_on_a_cluster_to_its_end_and_nothing_is_left(
    programs: Programs, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deploy.demo",
        "--cluster",
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path), "KUBEBUILDER_ASSETS": str(programs.folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
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
