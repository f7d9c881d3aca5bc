"""The story's stage on this machine alone: PostgreSQL, an emulated Clerk, the webhook service, the controller's loop.

Decides what runs where: the webhook service is the real program as a child process; the controller's loop is the
same sweeper, in this process, because the controller itself needs a cluster. Everything listens on 127.0.0.1 and
ends with the stage. Used by `usersync demo`.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from controller.cli.demo.application import ORIGIN, Application
from controller.cli.demo.children import LISTENING, call, running, webhook_service
from controller.cli.demo.local_postgres import LocalPostgres
from controller.cli.demo.story import FIRST_USERS
from controller.cli.inputs import read_resources
from controller.cli.reports import Document, Finished, failure_report, report
from controller.core.ports import Unwatched
from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings
from controller.errors import UserSyncError
from controller.postgres import migrate
from controller.runtime import holder_name, open_sweeper
from controller.settings import ALLOW_INSECURE_VARIABLE, ClerkURLs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta

    from controller.cli.demo.children import Child
    from controller.cli.inputs import Resource

NAMESPACE = "default"
NAME = "demo"
STORY_INTERVAL = "1h"
"""So long that the story alone decides when a run is: a chapter must see its drift before it is mended."""
STORY_DELETION = {"gracePeriod": "0s", "limits": {"users": 10, "percent": 20}}
"""Nobody has a day to wait; and few enough may go that a mass deletion is soon one."""
STORY_ACCOUNT_DELETION = {"enabled": True, "authorizedParties": [ORIGIN]}
URLS = ClerkURLs(allow_insecure=True)
EMULATOR = EmulatorSettings(environment=Environment.PRODUCTION)
"""With Clerk's higher rate limit: the story would have to wait for the lower one."""
COMPRESSION = 100.0
"""Svix's waits between deliveries, five seconds to ten hours, a hundred times shorter."""


class Loop:
    """The controller without a cluster: a run at the start, on the interval, and when asked."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._interval = resource.spec.interval
        self._asked = asyncio.Event()
        self._waiting: list[asyncio.Future[Document]] = []

    async def run_forever(self) -> None:
        """Do runs until cancelled; one that fails is reported, and the next one comes."""
        while True:
            self._asked.clear()
            waiting, self._waiting = self._waiting, []
            document = await self._run()
            for each in waiting:
                if not each.done():
                    each.set_result(document)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval.total_seconds()):
                    await self._asked.wait()

    async def run_now(self) -> Document:
        """Ask for a run that begins after this call; return its report."""
        self._asked.set()
        return await self.next_run()

    def set_interval(self, interval: timedelta) -> None:
        """Change the interval, beginning with a run now."""
        self._interval = interval
        self._asked.set()

    async def next_run(self) -> Document:
        """Return the report of the next run to begin."""
        awaited: asyncio.Future[Document] = asyncio.get_running_loop().create_future()
        self._waiting.append(awaited)
        return await awaited

    async def _run(self) -> Document:
        spec = self._resource.spec
        began = datetime.now(UTC)
        try:
            async with open_sweeper(spec, self._resource.credentials, URLS, Unwatched()) as sweeper:
                outcome = await sweeper.sweep(spec, holder=holder_name())
        except UserSyncError as error:
            return failure_report(spec, error)
        return report(Finished(spec, outcome, began, datetime.now(UTC)))


class LocalStage:
    """Implements `stage.Stage`; made by `open_local_stage`."""

    begin_command = "(the controller starts, with usersync.yaml)"
    run_command = "(the controller's next run)"
    approve_command = "$ usersync cleanup --yes --approve DIGEST"

    def __init__(self, clerk: ClerkEmulator, application: Application, manifest: Path, service_url: str) -> None:
        self.clerk = clerk
        self.application = application
        self.manifest = manifest
        self.service_url = service_url
        (resource,) = read_resources(str(manifest), {})
        self.loop = Loop(resource)
        self._runs: asyncio.Task[None] | None = None

    async def begin(self) -> Document:
        """Start the loop."""
        self._runs = asyncio.create_task(self.loop.run_forever())
        return await self.loop.next_run()

    async def run_now(self) -> Document:
        """Let the loop do a run now."""
        return await self.loop.run_now()

    async def analyze(self) -> Document:
        """Run the command itself."""
        return await analyze(self.manifest)

    async def approve(self, digest: str) -> Document:
        """Run the command with the digest."""
        arguments = ("cleanup", "-f", str(self.manifest), "--yes", "--approve", digest, "-o", "json")
        document: Document = json.loads(await call(*arguments, environ=environment()))
        return document

    async def close(self) -> None:
        """End the loop, and the run under way."""
        if self._runs is not None:
            self._runs.cancel()
            await asyncio.gather(self._runs, return_exceptions=True)


@asynccontextmanager
async def open_local_stage() -> AsyncIterator[LocalStage]:
    """Start everything; end everything afterwards, and remove its files.

    Raises:
        DatabaseUnavailable: there are no PostgreSQL programs, or the server does not start.
        PromiseBroken: the webhook service does not start.
    """
    with tempfile.TemporaryDirectory(prefix="usersync-demo-") as folder, LocalPostgres() as server:
        application = Application(server)
        async with ClerkEmulator(EMULATOR, users=FIRST_USERS) as clerk:
            manifest = _write_manifest(Path(folder, "usersync.yaml"), documents(clerk, application.url))
            await migrate(application.url)
            with running(webhook_service("-f", str(manifest)), Path(folder, "webhook.log"), environment()) as service:
                url = await send_webhooks(clerk, service, f"{NAMESPACE}/{NAME}")
                stage = LocalStage(clerk, application, manifest, url)
                try:
                    yield stage
                finally:
                    await stage.close()


async def send_webhooks(clerk: ClerkEmulator, service: Child, resource: str) -> str:
    """Let Clerk's webhooks go to the service once it listens; return its URL."""
    url = f"http://127.0.0.1:{(await service.logged(LISTENING))['port']}"
    settings = replace(clerk.webhooks.settings, url=f"{url}/api/webhooks/clerk/{resource}", compression=COMPRESSION)
    clerk.webhooks.settings = settings
    return url


async def analyze(manifest: Path) -> Document:
    """Run `usersync analyze` as a person would; return what it prints."""
    document: Document = json.loads(await call("analyze", "-f", str(manifest), "-o", "json", environ=environment()))
    return document


def _write_manifest(path: Path, content: list[dict[str, Any]]) -> Path:
    # it holds secrets, made up as they are
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump_all(content, sort_keys=False))
    return path


def documents(clerk: ClerkEmulator, database_url: str) -> list[dict[str, Any]]:
    """Write the manifest: a UserSync for what runs here, and its Secrets."""
    return [
        {
            "apiVersion": "usersync.dev/v1alpha1",
            "kind": "UserSync",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {
                "actions": ["FullSync"],
                "interval": STORY_INTERVAL,
                "clerk": {
                    "apiUrl": clerk.url,
                    "secretKeyRef": {"name": "clerk", "key": "CLERK_SECRET_KEY"},
                    "webhookSecretRefs": [{"name": "clerk", "key": "CLERK_WEBHOOK_SECRET"}],
                },
                "database": {"urlSecretRef": {"name": "supabase", "key": "DATABASE_URL"}},
                "deletion": STORY_DELETION,
                "accountDeletion": STORY_ACCOUNT_DELETION,
            },
        },
        _secret("clerk", {"CLERK_SECRET_KEY": clerk.secret_key, "CLERK_WEBHOOK_SECRET": clerk.webhook_secret}),
        _secret("supabase", {"DATABASE_URL": database_url}),
    ]


def environment() -> dict[str, str]:
    """Return the environment of the child processes: this one's, where the emulator may be spoken to."""
    return {**os.environ, ALLOW_INSECURE_VARIABLE: "1"}


def _secret(name: str, content: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": content,
    }
