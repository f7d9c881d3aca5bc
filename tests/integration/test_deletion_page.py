"""The commands of docs/deletion.md, typed as they stand against what `usersync demo --keep` starts."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controller.cli.demo.stage_local import environment, open_local_stage
from controller.cli.demo.trying import scripts_folder

if TYPE_CHECKING:
    from controller.cli.demo.stage_local import LocalStage

PAGE = Path(__file__).parents[2] / "docs" / "deletion.md"
CURL = """#!/bin/sh
# curl, as far as the page uses it, where there is none: curl -sS -X METHOD URL -d BODY
exec {python} -c 'import sys, urllib.request as r
print(r.urlopen(r.Request(sys.argv[2], sys.argv[3].encode(), method=sys.argv[1])).read().decode())' "$3" "$4" "$6"
"""

pytestmark = pytest.mark.timeout(240)


def script() -> str:
    (block,) = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def exported(stage: LocalStage, folder: Path) -> dict[str, str]:
    """What the kept demo prints to be exported."""
    if shutil.which("curl") is None:
        curl = folder / "curl"
        curl.write_text(CURL.format(python=scripts_folder() / "python"))
        curl.chmod(0o755)
    return environment() | {
        "PATH": f"{scripts_folder()}:{folder}:/usr/local/bin:/usr/bin:/bin",
        "CLERK_API_URL": stage.clerk.url,
        "CLERK_SECRET_KEY": stage.clerk.secret_key,
        "DATABASE_URL": stage.application.url,
    }


async def test_every_command_of_the_page_ends_as_the_page_says(tmp_path: Path) -> None:
    async with open_local_stage() as stage:
        await stage.application.use(list(stage.clerk.users))
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-eux",
            "-c",
            script(),
            cwd=tmp_path,
            env=exported(stage, tmp_path),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said
    assert "12 users removed" in (tmp_path / "approved.txt").read_text()
    assert "no effect" in (tmp_path / "wrong.txt").read_text()
    assert "grace period" in (tmp_path / "waiting.txt").read_text()
