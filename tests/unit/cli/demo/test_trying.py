from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from controller.cli.demo.trying import scripts_folder, set_path, show

if TYPE_CHECKING:
    import pytest

LONG = "curl -X DELETE http://127.0.0.1:1/emulator/users -d '{\"newest\": 2}'"


def test_no_command_is_broken_by_a_narrow_terminal() -> None:
    out = io.StringIO()
    show(Console(file=out, width=30), "30 s", ["export A=1"], [("Look:", LONG), ("", "[bold] is no markup")])
    lines = out.getvalue().splitlines()
    assert [line for line in lines if line.startswith("    ")] == [
        "    export A=1",
        f"    {LONG}",
        "    [bold] is no markup",
    ]


def test_the_command_of_this_installation_is_found_wherever_it_was_started_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert (scripts_folder() / "usersync").is_file()
    assert scripts_folder().is_absolute()


def test_it_is_found_beside_the_running_script_where_the_interpreter_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "usersync").touch()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr("sysconfig.get_path", lambda _: "/nowhere/else")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "usersync")])
    assert scripts_folder() == tmp_path


def test_a_folder_with_a_space_is_quoted() -> None:
    assert set_path(Path("/a b")).endswith(":'/a b':$PATH")
