"""Runs etcd and kube-apiserver on 127.0.0.1 as processes: RBAC, PodSecurity, real ServiceAccount tokens.

    with ControlPlane(build(), folder) as plane:
        plane.kubectl("get", "namespaces")

It decides the flags, the ports and the administrator's token; it installs nothing. Everything it writes is in
`folder`; ports and data stay the same from one `start` to the next, so that a test can take the API server
away and bring it back. The key that signs ServiceAccount tokens is the one the API server makes for its own
certificate at the first start: nothing else is there that could make a key (no openssl, no `cryptography`).
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import secrets
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from tests.support.controlplane import auditing
from tests.support.controlplane.kubectl import Kubectl
from tests.support.controlplane.processes import end, spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.support.controlplane.building import Programs

START_SECONDS: Final = 120.0
"""Bound of a start; it takes 4 s on two idle cores."""

_ATTEMPTS: Final = 3
_ISSUER: Final = "https://kubernetes.default.svc"


class StartError(Exception):
    """A program ended or did not become ready; the message holds the last lines of its log."""


class _PortTakenError(StartError):
    """Somebody was faster with one of the ports; others may be free."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server answered to one request."""

    status: int
    body: Any

    @property
    def message(self) -> str:
        """The reason of a refusal; empty for anything that is not a Status object."""
        return str(self.body.get("message", "")) if isinstance(self.body, dict) else ""


@dataclass(frozen=True, slots=True)
class _Ports:
    api_server: int
    etcd: int
    etcd_peers: int


class ControlPlane:
    """One API server with its etcd; a context manager."""

    def __init__(self, programs: Programs, folder: Path, *, audit: bool = False, flags: Sequence[str] = ()) -> None:
        """Writes nothing yet. `audit`: note the requests of ServiceAccounts; `flags`: more for kube-apiserver."""
        self.folder = folder.absolute()
        self.kubeconfig = self.folder / "admin.kubeconfig"
        self.kubectl = Kubectl(programs.kubectl, self.kubeconfig)
        self._programs = programs
        self._audit = audit
        self._flags = tuple(flags)
        self._token = secrets.token_hex(16)
        self._ports: _Ports | None = None
        self._etcd: subprocess.Popen[bytes] | None = None
        self._api_server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts both programs."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops both programs."""
        self.stop()

    @property
    def url(self) -> str:
        """Address of the API server, known from the first start on."""
        return f"https://127.0.0.1:{self._taken_ports().api_server}"

    def start(self) -> None:
        """Starts what is not running, and returns once the API server is ready.

        Raises:
            StartError: a program ended, or was not ready in time; nothing is left running.
        """
        first = self._ports is None
        for attempt in range(_ATTEMPTS):
            if first:
                self._ports = _free_ports()
                self._write_credentials()
            try:
                self._start_etcd()
                self.start_api_server()
            except _PortTakenError:
                self.stop()
                # Later starts keep the ports: clients have them in their kubeconfig.
                if not first or attempt == _ATTEMPTS - 1:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """Stops both programs; data, ports and credentials stay for another `start`."""
        self.stop_api_server()
        if self._etcd is not None:
            end(self._etcd)
            self._etcd = None

    def start_api_server(self) -> None:
        """Starts kube-apiserver if it is not running, and returns once it is ready.

        Raises:
            StartError: it ended, or was not ready in time.
        """
        if self._api_server is None:
            log = self.folder / "kube-apiserver.log"
            self._api_server = spawn([self._programs.kube_apiserver, *self._api_server_flags()], log=log)
        self._wait_until_ready()
        ca = base64.b64encode((self.folder / "certs" / "apiserver.crt").read_bytes()).decode()
        self._write_kubeconfig(self.kubeconfig, ca, self._token)

    def stop_api_server(self, *, at_once: bool = False) -> None:
        """Stops kube-apiserver alone, for tests of an outage; `at_once` kills it, as a lost machine would."""
        if self._api_server is None:
            return
        if at_once:
            self._api_server.kill()
        # It waits up to a minute for open watches; the data is etcd's, so nothing is lost by not waiting.
        end(self._api_server, patience_seconds=3.0)
        self._api_server = None

    def service_account_kubeconfig(self, namespace: str, name: str, *, seconds: int = 3600) -> Path:
        """A kubeconfig with a token of that ServiceAccount, whose namespace is the default one.

        A program outside pods then runs under exactly the rights of the ServiceAccount.

        Raises:
            KubectlError: there is no such ServiceAccount.
        """
        token = self.kubectl("create", "token", name, "-n", namespace, f"--duration={seconds}s").strip()
        path = self.folder / f"{namespace}.{name}.kubeconfig"
        ca = base64.b64encode((self.folder / "certs" / "apiserver.crt").read_bytes()).decode()
        self._write_kubeconfig(path, ca, token, namespace)
        return path

    def rights_used(self, namespace: str, name: str) -> set[auditing.Right]:
        """What that ServiceAccount has asked of the API server so far; only with `audit`."""
        log = self.folder / "audit.log"
        return auditing.rights_used(log, f"system:serviceaccount:{namespace}:{name}")

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = 30,
    ) -> Answer:
        """One request as administrator, without kubectl: 5 ms instead of 200.

        Raises:
            OSError: the API server cannot be reached.
        """
        trust = ssl.create_default_context(cafile=str(self.folder / "certs" / "apiserver.crt"))
        port = self._taken_ports().api_server
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout_seconds, context=trust)
        given = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, given | dict(headers or {}))
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        is_json = "json" in response.headers.get("Content-Type", "")
        return Answer(response.status, json.loads(text) if is_json else text)

    def _taken_ports(self) -> _Ports:
        if self._ports is None:
            message = "the control plane was never started: call start() first"
            raise RuntimeError(message)
        return self._ports

    def _write_credentials(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # tokens and keys are in it
        (self.folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        (self.folder / "audit-policy.yaml").write_text(auditing.POLICY)

    def _start_etcd(self) -> None:
        if self._etcd is not None:
            return
        ports, peers = self._taken_ports(), f"http://127.0.0.1:{self._taken_ports().etcd_peers}"
        flags = {
            "data-dir": self.folder / "etcd",
            "listen-client-urls": f"http://127.0.0.1:{ports.etcd}",
            "advertise-client-urls": f"http://127.0.0.1:{ports.etcd}",
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
            "log-level": "warn",
            "unsafe-no-fsync": "true",  # what is lost with the machine are tests
        }
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        self._etcd = spawn([self._programs.etcd, *arguments], log=self.folder / "etcd.log")

    def _api_server_flags(self) -> list[str]:
        ports, certs = self._taken_ports(), self.folder / "certs"
        flags = {
            "etcd-servers": f"http://127.0.0.1:{ports.etcd}",
            "bind-address": "127.0.0.1",
            "secure-port": ports.api_server,
            "advertise-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",
            "service-cluster-ip-range": "10.0.0.0/24",
            "cert-dir": certs,
            "authorization-mode": "RBAC",
            "enable-admission-plugins": "PodSecurity",
            "token-auth-file": self.folder / "tokens.csv",
            "service-account-issuer": _ISSUER,
            # Made by the server itself before it reads this flag; kept in cert-dir, so tokens outlive a restart.
            "service-account-signing-key-file": certs / "apiserver.key",
            "service-account-key-file": certs / "apiserver.key",
        }
        if self._audit:
            flags["audit-policy-file"] = self.folder / "audit-policy.yaml"
            flags["audit-log-path"] = self.folder / "audit.log"
        return [*(f"--{name}={value}" for name, value in flags.items()), *self._flags]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            for process, name in ((self._etcd, "etcd"), (self._api_server, "kube-apiserver")):
                if process is not None and process.poll() is not None:
                    self._refuse(name, f"ended with exit code {process.returncode}")
            if time.monotonic() > deadline:
                self._refuse("kube-apiserver", f"was not ready after {START_SECONDS:.0f} s")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            # Short: a stranger that listens on our port and says nothing may not hide that our program has ended.
            return self.request("GET", "/readyz", timeout_seconds=2).status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    def _refuse(self, name: str, what: str) -> None:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        tail = "\n".join(lines[-15:])
        kind = _PortTakenError if "address already in use" in tail else StartError
        message = f"{name} {what}; the last lines of {self.folder / name}.log:\n{tail}"
        raise kind(message)

    def _write_kubeconfig(self, path: Path, ca: str, token: str, namespace: str = "default") -> None:
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": ca}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "current-context": "test",
        }
        path.touch(0o600)
        path.write_text(json.dumps(configuration, indent=1))  # YAML includes JSON


def _free_ports() -> _Ports:
    """Three ports that nobody listens on, below those the kernel gives to outgoing connections.

    From that range a client which keeps knocking at a stopped server could be given the server's own port,
    talk to itself, and keep the server from starting again.
    """
    free: list[int] = []
    for port in random.sample(range(15_000, 32_000), 200):
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        free.append(port)
        if len(free) == len(_Ports.__slots__):
            return _Ports(*free)
    message = "no free ports between 15000 and 32000 on 127.0.0.1"
    raise StartError(message)
