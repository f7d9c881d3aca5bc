"""A stage for the operator: an emulator of Clerk, a database, a namespace with the controller's exact rights.

Used by the end-to-end tests of the operator; the operator itself runs as a process, as in a pod.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml

from tests.support.controlplane.processes import end, spawn
from tests.support.usersyncs import clerk as clerk_spec
from tests.support.usersyncs import usersync

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from controller.emulator import ClerkEmulator
    from tests.support.controlplane import ControlPlane

ROOT = Path(__file__).parents[2]
ACCOUNT = "usersync-controller"
PATH = "/apis/usersync.dev/v1alpha1/namespaces"

Status = dict[str, Any]


@cache
def _rights(kubectl: Callable[..., str]) -> tuple[str, ...]:
    """The controller's ServiceAccount, Role and RoleBinding, as `kubectl apply -k` would make them."""
    rendered = yaml.safe_load_all(kubectl("kustomize", str(ROOT / "deploy" / "kustomize" / "base")))
    return tuple(
        json.dumps(document)
        for document in rendered
        if document["kind"] in {"ServiceAccount", "Role", "RoleBinding"} and document["metadata"]["name"] == ACCOUNT
    )


@dataclass
class Operator:
    """`usersync operate` as a process."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """As the kernel does when memory runs out: no chance to do anything."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As the kubelet does: SIGTERM, and patience."""
        return end(self.process, patience_seconds=60)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        entries: list[dict[str, Any]] = []
        for line in self.log.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("event") == event:
                entries.append(entry)
        return entries

    async def until_logged(self, event: str, *, count: int = 1, seconds: float = 30) -> dict[str, Any]:
        """Wait for the `count`-th line of an event."""
        await until(
            lambda: len(self.lines(event)) >= count or self.process.poll() is not None,
            seconds=seconds,
            what=f"{event} in the log",
        )
        found = self.lines(event)
        assert len(found) >= count, self.log.read_text()
        return found[count - 1]

    async def probe(self, path: str) -> tuple[int, str]:
        """Ask the ops port."""
        port = (await self.until_logged("ops_listening"))["port"]
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.text()


@dataclass
class Stage:
    """One namespace, one resource called `production`, and what it speaks of."""

    plane: ControlPlane
    namespace: str
    clerk: ClerkEmulator
    database_url: str
    folder: Path
    operators: list[Operator] = field(default_factory=list)

    def prepare(self, *, secrets: bool = True) -> None:
        """Give the controller its rights, and the resource its Secrets."""
        for text in _rights(self.plane.kubectl):
            document = json.loads(text)
            document["metadata"]["namespace"] = self.namespace
            for subject in document.get("subjects", ()):
                subject["namespace"] = self.namespace
            self.plane.kubectl("apply", "-f", "-", stdin=json.dumps(document))
        if secrets:
            self.write_secret("clerk", CLERK_SECRET_KEY=self.clerk.secret_key)
            self.write_secret("supabase", DATABASE_URL=self.database_url)

    def write_secret(self, name: str, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        self.plane.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=json.dumps(secret))

    def apply(self, **spec: Any) -> None:
        """Apply the resource; its interval is long unless given, so that only what a test asks for is run.

        Nobody waits for a grace period unless one is given.
        """
        given = {"actions": ["FullSync"], "interval": "1h", "clerk": clerk_spec(apiUrl=self.clerk.url)} | spec
        given["deletion"] = {"gracePeriod": "0s"} | spec.get("deletion", {})
        self.plane.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=json.dumps(usersync(**given)))

    def request_run(self, value: str) -> None:
        body = {"metadata": {"annotations": {"usersync.dev/reconcile-at": value}}}
        self.plane.kubectl(
            "patch", "usersync", "production", "-n", self.namespace, "--type=merge", "-p", json.dumps(body)
        )

    def start(self, *, everywhere: bool = False) -> Operator:
        """Start an operator under the rights of the controller's ServiceAccount, and no others."""
        kubeconfig = self.plane.service_account_kubeconfig(self.namespace, ACCOUNT)
        log = self.folder / f"operator-{len(self.operators)}.log"
        log.touch()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "USERSYNC"))}
        served = ["--all-namespaces"] if everywhere else ["--namespace", self.namespace]
        arguments = ["operate", *served, "--ops-port", "0", "--allow-insecure-clerk-url", "--log-format", "json"]
        process = spawn(
            [sys.executable, "-m", "controller.cli.main", *arguments],
            log=log,
            env=environment | {"KUBECONFIG": str(kubeconfig)},
            cwd=ROOT,
        )
        operator = Operator(process, log)
        self.operators.append(operator)
        return operator

    def close(self) -> None:
        for operator in self.operators:
            end(operator.process, patience_seconds=60)

    def resource(self) -> dict[str, Any] | None:
        answer = self.plane.request("GET", f"{PATH}/{self.namespace}/usersyncs/production")
        return dict(answer.body) if answer.status == 200 else None

    def status(self) -> Status:
        resource = self.resource()
        return dict(resource.get("status") or {}) if resource else {}

    def condition(self, kind: str) -> dict[str, Any]:
        found = [condition for condition in self.status().get("conditions", ()) if condition["type"] == kind]
        return dict(found[0]) if found else {}

    def events(self) -> list[tuple[str, str]]:
        """Type and reason of the Events of the namespace, oldest first."""
        answer = self.plane.request("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")
        items = sorted(answer.body["items"], key=lambda event: event["eventTime"])
        return [(event["type"], event["reason"]) for event in items]

    async def until_run(self, after: str | None = None, *, result: str = "Succeeded", seconds: float = 60) -> Status:
        """Wait for a run that ended later than the one that began at `after`."""
        await until(
            lambda: self.last_run().get("result") == result and self.last_run().get("startTime") != after,
            seconds=seconds,
            what=f"a run that {result.lower()}",
            details=self.describe,
        )
        return self.status()

    async def until_handled(self, value: str, *, seconds: float = 60) -> Status:
        """Wait for the answer to a request."""
        await until(
            lambda: self.status().get("lastHandledReconcileAt") == value,
            seconds=seconds,
            what=f"the answer to {value}",
            details=self.describe,
        )
        return self.status()

    async def until_approved(self, digest: str, *, seconds: float = 60) -> None:
        """Wait for the run that was given this approval."""
        await until(
            lambda: self.status().get("lastHandledApproval") == digest,
            seconds=seconds,
            what=f"the run with {digest}",
            details=self.describe,
        )

    async def until_event(self, kind: str, reason: str, *, count: int = 1) -> None:
        """Wait for an Event, which follows the status."""
        await until(
            lambda: self.events().count((kind, reason)) >= count,
            seconds=30,
            what=f"Event {kind} {reason}",
            details=self.describe,
        )

    async def until_condition(self, kind: str, state: str, reason: str, *, seconds: float = 60) -> dict[str, Any]:
        await until(
            lambda: (self.condition(kind).get("status"), self.condition(kind).get("reason")) == (state, reason),
            seconds=seconds,
            what=f"{kind}={state} {reason}",
            details=self.describe,
        )
        return self.condition(kind)

    def last_run(self) -> dict[str, Any]:
        return dict(self.status().get("lastRun") or {})

    def describe(self) -> str:
        logs = "\n".join(operator.log.read_text()[-6000:] for operator in self.operators)
        return f"{json.dumps(self.status(), indent=1)}\n{logs}"


async def until(
    condition: Callable[[], object], *, seconds: float, what: str, details: Callable[[], str] = str
) -> None:
    """Wait until the condition holds, while the emulator in this loop goes on answering."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {what}\n{details()}"
        await asyncio.sleep(0.05)
