from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import pytest
import structlog

from controller.cli.exits import Exit
from controller.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
"""


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command configures the whole process; what comes after must not write to this test's stderr."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.mark.parametrize("arguments", [[], ["--namespace", "app", "--all-namespaces"]])
def test_one_namespace_or_all_must_be_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["operate", *arguments]) == 2
    assert "either --namespace NAME or --all-namespaces" in capsys.readouterr().err


def test_without_a_usable_configuration_it_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["operate", "-n", "app", "--ops-port", "0", "--kubeconfig", str(tmp_path / "nowhere")]) == Exit.ERROR
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert "--kubeconfig" in error
    assert "Traceback" not in error


def test_a_port_that_is_taken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104 - where the operator listens
        port = taken.getsockname()[1]
        code = run(["operate", "-n", "app", "--ops-port", str(port), "--kubeconfig", str(kubeconfig)])
    assert code == Exit.ERROR
    assert f"Cannot listen on port {port}" in capsys.readouterr().err
