"""The story's stage on a real Kubernetes API server: the sample applied with kubectl, both programs as processes.

Decides what is installed and how: the CRD and the rights of `deploy/kustomize/base`, the sample of `deploy/sample`
with this stage's secrets. The programs run under the tokens of exactly those ServiceAccounts. There are no nodes, so
the Deployments start nothing; everything listens on 127.0.0.1 and ends with the stage.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from controller.cli.demo.application import Application
from controller.cli.demo.children import QUIET_PORTS, call, running, usersync, webhook_service
from controller.cli.demo.local_postgres import LocalPostgres
from controller.cli.demo.stage import PromiseBroken
from controller.cli.demo.stage_local import (
    EMULATOR,
    STORY_ACCOUNT_DELETION,
    STORY_DELETION,
    STORY_INTERVAL,
    analyze,
    environment,
    send_webhooks,
)
from controller.cli.demo.story import FIRST_USERS
from controller.emulator import ClerkEmulator
from tests.support.controlplane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from controller.cli.demo.children import Child
    from controller.cli.reports import Document
    from tests.support.controlplane import Programs

    Say = Callable[[str], None]

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy" / "kustomize" / "base"
SAMPLE = ROOT / "deploy" / "sample" / "usersync.yaml"
NAMESPACE = "usersync"
NAME = "production"
CONTROLLER, WEBHOOK = "usersync-controller", "usersync-webhook"
RUN_SECONDS = 60.0
"""How long a run may take until its status is there; on an idle machine it is a second."""
_POLL_SECONDS = 0.05
_STATUS_PATH = f"/apis/usersync.dev/v1alpha1/namespaces/{NAMESPACE}/usersyncs/{NAME}"


class ClusterStage:
    """Implements `controller.cli.demo.stage.Stage`; made by `open_cluster_stage`."""

    begin_command = f"$ kubectl apply -n {NAMESPACE} -f usersync.yaml"
    run_command = f"$ kubectl annotate usersync {NAME} usersync.dev/reconcile-at=... --overwrite"
    approve_command = f"$ kubectl annotate usersync {NAME} usersync.dev/approve-deletion=DIGEST --overwrite"

    def __init__(
        self, plane: ControlPlane, clerk: ClerkEmulator, application: Application, folder: Path, service_url: str
    ) -> None:
        self.plane = plane
        self.clerk = clerk
        self.application = application
        self.folder = folder
        self.service_url = service_url
        self.manifest = folder / "usersync.yaml"
        self._kubectl = plane.kubectl.in_namespace(NAMESPACE)

    async def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the namespace of the story, as administrator."""
        return await asyncio.to_thread(self._kubectl, *arguments)

    async def begin(self) -> Document:
        """Apply the sample; return the report of the first run."""
        self.manifest.write_text(yaml.safe_dump_all(self._documents(), sort_keys=False))
        await self.kubectl("apply", "-f", str(self.manifest))
        return await self._report_of(lambda status: "lastRun" in status)

    async def run_now(self) -> Document:
        """Ask for a run by the annotation; return its report."""
        asked = str(time.time_ns())
        await self.kubectl("annotate", "usersync", NAME, f"usersync.dev/reconcile-at={asked}", "--overwrite")
        return await self._report_of(lambda status: status.get("lastHandledReconcileAt") == asked)

    async def analyze(self) -> Document:
        """Run the command on the same manifest, as a person at a terminal would."""
        return await analyze(self.manifest)

    async def approve(self, digest: str) -> Document:
        """Permit the set by the annotation; return the report of the run that follows."""
        await self.kubectl("annotate", "usersync", NAME, f"usersync.dev/approve-deletion={digest}", "--overwrite")
        return await self._report_of(lambda status: status.get("lastHandledApproval") == digest)

    async def _report_of(self, is_there: Callable[[Document], bool]) -> Document:
        until = time.monotonic() + RUN_SECONDS
        while time.monotonic() < until:
            status = self.plane.request("GET", _STATUS_PATH).body.get("status", {})
            if is_there(status):
                return _report(status)
            await asyncio.sleep(_POLL_SECONDS)
        message = f"no run was reported within {RUN_SECONDS:.0f} s; status: {json.dumps(status)}"
        raise PromiseBroken(message)

    def _documents(self) -> list[dict[str, Any]]:
        """Read the sample, and put this stage's actions, URL and secrets in, as its reader is told to."""
        documents: list[dict[str, Any]] = list(yaml.safe_load_all(SAMPLE.read_text()))
        values = {
            "CLERK_SECRET_KEY": self.clerk.secret_key,
            "CLERK_WEBHOOK_SECRET": self.clerk.webhook_secret,
            "DATABASE_URL": self.application.url,
        }
        for document in documents:
            # kubectl has it as a flag; `usersync -f` reads the same file
            document["metadata"]["namespace"] = NAMESPACE
            if document["kind"] == "UserSync":
                document["spec"]["clerk"]["apiUrl"] = self.clerk.url
                document["spec"] |= {
                    "actions": ["FullSync"],
                    "interval": STORY_INTERVAL,
                    "deletion": STORY_DELETION,
                    "accountDeletion": STORY_ACCOUNT_DELETION,
                }
            else:
                document["stringData"] = {key: values[key] for key in document["stringData"]}
        # the controller is quick: a UserSync applied before its Secrets fails once, and is tried again much later
        return sorted(documents, key=lambda document: document["kind"] == "UserSync")


@asynccontextmanager
async def open_cluster_stage(programs: Programs, say: Say) -> AsyncIterator[ClusterStage]:
    """Start everything, and say what kubectl says; end everything afterwards, and remove its files.

    Raises:
        StartError: the API server does not start.
        DatabaseUnavailable: there are no PostgreSQL programs, or the server does not start.
        PromiseBroken: the controller or the webhook service does not start.
    """
    with (
        tempfile.TemporaryDirectory(prefix="usersync-demo-") as temporary,
        LocalPostgres() as server,
        ControlPlane(programs, Path(temporary, "control-plane")) as plane,
    ):
        folder = Path(temporary)
        application = Application(server)
        _install(plane, say)
        # the controller does it too, but the webhook service would find the schema missing until then
        say("$ usersync migrate")
        await call("migrate", environ=environment() | {"DATABASE_URL": application.url})
        async with ClerkEmulator(EMULATOR, users=FIRST_USERS) as clerk:
            with _programs(plane, folder) as (controller, webhook):
                await controller.logged("operator_started")
                url = await send_webhooks(clerk, webhook, f"{NAMESPACE}/{NAME}")
                say(f"$ usersync operate --namespace {NAMESPACE} &   (as the ServiceAccount {CONTROLLER})")
                say(f"$ usersync serve --namespace {NAMESPACE} &     (as the ServiceAccount {WEBHOOK})")
                say("$ kubectl get usersync -w &")
                with running([str(plane.kubectl.program), *_WATCH], folder / "watch.log", plane.kubectl.environment()):
                    following = asyncio.create_task(_follow(folder / "watch.log", say))
                    try:
                        yield ClusterStage(plane, clerk, application, folder, url)
                    finally:
                        following.cancel()
                        await asyncio.gather(following, return_exceptions=True)


_WATCH = ("get", "usersync", "--namespace", NAMESPACE, "--watch")


def _install(plane: ControlPlane, say: Say) -> None:
    say(f"$ kubectl create namespace {NAMESPACE}")
    plane.kubectl("create", "namespace", NAMESPACE)
    say("$ kubectl apply -k deploy/kustomize/base")
    plane.kubectl("apply", "--server-side", "-k", str(BASE))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/usersyncs.usersync.dev")


@contextmanager
def _programs(plane: ControlPlane, folder: Path) -> Iterator[tuple[Child, Child]]:
    """Run controller and webhook service, each with the rights of its own ServiceAccount and no more."""
    operate = usersync("operate", "--namespace", NAMESPACE, *QUIET_PORTS)
    serve = webhook_service("--namespace", NAMESPACE)
    with (
        running(operate, folder / "controller.log", _as(plane, CONTROLLER)) as controller,
        running(serve, folder / "webhook.log", _as(plane, WEBHOOK)) as webhook,
    ):
        yield controller, webhook


def _as(plane: ControlPlane, service_account: str) -> dict[str, str]:
    kubeconfig = plane.service_account_kubeconfig(NAMESPACE, service_account, seconds=24 * 3600)
    return environment() | {"KUBECONFIG": str(kubeconfig)}


def _report(status: Document) -> Document:
    last_run = status["lastRun"]
    if last_run["result"] == "Failed":
        return {"resource": NAME, "error": {"reason": last_run["reason"], "message": last_run["message"]}}
    return {"resource": NAME, "warnings": [], **status}


async def _follow(log: Path, say: Say) -> None:
    """Pass on what a program writes, line by line, as it comes."""
    said = 0
    while True:
        lines = _complete_lines(log)
        for line in lines[said:]:
            say(line)
        said = len(lines)
        await asyncio.sleep(_POLL_SECONDS)


def _complete_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").split("\n")[:-1]
