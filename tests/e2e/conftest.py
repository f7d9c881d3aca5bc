"""One real API server for all end-to-end tests, and a namespace for each test."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.controlplane import ControlPlane, Kubectl, Programs, build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.capture import CaptureManager

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds the programs before the first test: a build takes longer than a test may."""
    wanted = any("programs" in getattr(item, "fixturenames", ()) for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    capture: CaptureManager | None = session.config.pluginmanager.getplugin("capturemanager")
    # Minutes without a line look like a hang, so progress goes past the capture.
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        build(lambda line: print(line, file=sys.stderr, flush=True))


@pytest.fixture(scope="session")
def programs() -> Programs:
    """kube-apiserver, etcd and kubectl."""
    return build()


@pytest.fixture(scope="session")
def control_plane(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A running API server that has the CRD and notes the requests of ServiceAccounts."""
    folder = tmp_path_factory.mktemp("controlplane")
    with ControlPlane(programs, folder, audit=True) as plane:
        plane.kubectl("apply", "--server-side", "--validate=strict", "-k", str(ROOT / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/usersyncs.usersync.dev")
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A fresh namespace that enforces, and warns by, the Pod Security Standard `restricted`.

    It stays: without controllers a deleted namespace is Terminating for ever. The server ends with the session.
    """
    name = f"test-{os.getpid()}-{next(_numbers)}"
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": levels}}
    answer = control_plane.request("POST", "/api/v1/namespaces", body)
    assert answer.status == 201, answer.message
    return name


@pytest.fixture
def kubectl(control_plane: ControlPlane, namespace: str) -> Kubectl:
    """The real kubectl as administrator, in the test's own namespace."""
    return control_plane.kubectl.in_namespace(namespace)
