"""The control plane that the other end-to-end tests stand on does what they take for granted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import stat
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.e2e.conftest import ROOT
from tests.support.controlplane import (
    BuildError,
    ControlPlane,
    KubectlError,
    Programs,
    StartError,
    building,
    toolchain,
)
from tests.support.controlplane.auditing import Right
from tests.support.controlplane.processes import end, spawn

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from tests.support.controlplane import Kubectl


def test_the_api_server_says_which_release_it_is(control_plane: ControlPlane) -> None:
    answer = control_plane.request("GET", "/version")
    assert answer.body["gitVersion"] == f"v{building.pinned_versions().kubernetes}"


def test_a_service_account_has_no_right_that_no_role_gives_it(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    kubectl("create", "serviceaccount", "nobody")
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "nobody")
    with pytest.raises(
        KubectlError, match=rf'"system:serviceaccount:{namespace}:nobody" cannot list resource "secrets"'
    ):
        kubectl("get", "secrets", "--kubeconfig", str(kubeconfig))


def test_the_audit_log_tells_which_rights_a_service_account_used(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    kubectl("create", "serviceaccount", "reader")
    kubectl("create", "role", "reader", "--verb=list", "--resource=configmaps")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader")
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "reader")
    kubectl("get", "configmaps", "--kubeconfig", str(kubeconfig))
    kubectl.run("get", "secrets", "--kubeconfig", str(kubeconfig))

    used = control_plane.rights_used(namespace, "reader")
    assert Right("list", "", "configmaps", namespace, allowed=True) in used
    assert Right("list", "", "secrets", namespace, allowed=False) in used


def test_a_pod_that_is_not_restricted_is_refused(kubectl: Kubectl) -> None:
    kubectl("create", "serviceaccount", "default")
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted:latest"'):
        kubectl("run", "loose", "--image=example.test/loose", "--dry-run=server")


def test_data_and_tokens_outlive_a_stop_and_a_start(programs: Programs, tmp_path: Path) -> None:
    with ControlPlane(programs, tmp_path) as plane:
        plane.kubectl("create", "serviceaccount", "stays", "-n", "default")
        kubeconfig = plane.service_account_kubeconfig("default", "stays")
        plane.stop()
        plane.start()
        who = plane.kubectl(
            "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", "--kubeconfig", str(kubeconfig)
        )
    assert who == "system:serviceaccount:default:stays"


def test_the_api_server_alone_can_be_lost_and_come_back(programs: Programs, tmp_path: Path) -> None:
    with ControlPlane(programs, tmp_path) as plane:
        plane.kubectl("create", "namespace", "stays")
        plane.stop_api_server(at_once=True)
        with pytest.raises(ConnectionRefusedError):
            plane.request("GET", "/readyz")
        plane.start_api_server()
        assert plane.request("GET", "/api/v1/namespaces/stays").status == 200


def test_a_start_that_fails_says_why_and_leaves_nothing_running(programs: Programs, tmp_path: Path) -> None:
    plane = ControlPlane(programs, tmp_path, flags=["--no-such-flag"])
    with pytest.raises(StartError, match="unknown flag: --no-such-flag"):
        plane.start()
    assert not [child for child in psutil.Process().children() if str(tmp_path) in " ".join(child.cmdline())]


def test_a_port_that_somebody_took_meanwhile_is_named_and_not_changed(programs: Programs, tmp_path: Path) -> None:
    with ControlPlane(programs, tmp_path) as plane:
        plane.stop_api_server(at_once=True)
        port = int(plane.url.rsplit(":", 1)[1])
        with socket.create_server(("127.0.0.1", port)), pytest.raises(StartError, match=f"{port}.*already in use"):
            plane.start_api_server()


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_server_of_a_person_at_a_terminal_ends_and_cleans_up(tmp_path: Path, ending: signal.Signals) -> None:
    log, temporary = tmp_path / "log", tmp_path / "temporary"
    temporary.mkdir()
    argv = [sys.executable, "-m", "tests.support.controlplane", "run"]
    running = spawn(argv, log=log, env=os.environ | {"TMPDIR": str(temporary)}, cwd=ROOT)
    while "Ctrl-C ends it" not in log.read_text():
        assert running.poll() is None, log.read_text()
        time.sleep(0.05)
    children = psutil.Process(running.pid).children()
    running.send_signal(ending)
    assert running.wait(60) == 0, log.read_text()
    assert len(children) == 2
    assert not [child for child in children if child.is_running()]
    assert not list(temporary.iterdir())


def test_credentials_are_for_their_owner_alone(control_plane: ControlPlane) -> None:
    assert stat.S_IMODE(control_plane.folder.stat().st_mode) == 0o700


def test_nothing_outlives_a_killed_test_run(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    run = multiprocessing.get_context("spawn").Process(target=_spawn_and_wait, args=(theirs, tmp_path / "log"))
    run.start()
    child = psutil.Process(ours.recv())
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.01)


def _spawn_and_wait(pipe: Connection, log: Path) -> None:
    pipe.send(spawn(["/bin/sleep", "60"], log=log).pid)
    time.sleep(60)


def test_a_program_that_does_not_listen_is_made_to_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    deaf = spawn(["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"], log=log)
    while "deaf" not in log.read_text():
        time.sleep(0.01)
    assert end(deaf, patience_seconds=0.1) == -signal.SIGKILL


def test_programs_given_by_kubebuilder_assets_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make_programs(tmp_path)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert building.find() == Programs(tmp_path)


def test_an_incomplete_folder_of_kubebuilder_assets_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_programs(tmp_path)
    (tmp_path / "kubectl").unlink()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert building.find() is None


def test_another_release_is_not_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pinned = building.pinned_versions()
    other = building.Versions(kubernetes=pinned.kubernetes, etcd="0.0.1")
    _make_programs(tmp_path / "usersync" / other.key)
    assert building.find() is None
    _make_programs(tmp_path / "usersync" / pinned.key)
    assert building.find() == Programs(tmp_path / "usersync" / pinned.key)


def test_an_old_go_on_the_path_is_not_taken(tmp_path: Path) -> None:
    assert not toolchain.is_recent_enough(_make_go(tmp_path, "go1.23.9"))
    assert toolchain.is_recent_enough(_make_go(tmp_path, "go1.24"))


def test_a_failed_build_leaves_nothing_that_looks_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make_go(tmp_path, "go1.99.0")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BuildError, match="no network here"):
        building.build(lambda _line: None)
    assert building.find() is None


def _make_programs(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in building.PROGRAMS:
        (folder / name).touch(0o755)


def _make_go(folder: Path, release: str) -> Path:
    """A go that knows its release and can build nothing."""
    go = folder / "go"
    go.write_text(f'#!/bin/sh\n[ "$1" = env ] && echo {release} && exit\necho no network here >&2\nexit 1\n')
    go.chmod(0o755)
    return go
