"""kopf as informer and nothing else: every change of a UserSync becomes a key in our queue.

kopf runs in a thread and an event loop of its own: when it ends, for whatever reason, it cancels every task of its
loop, and that must not be a run. Decides when to start it anew. Used by `operator`.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import kopf
import structlog

from controller.errors import UserSyncError
from controller.kube.fields import GROUP, PLURAL, VERSION
from controller.ops.logs import drop_messages
from controller.ops.server import Health
from controller.reconciler.queue import Key

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.kube.client import ApiServer

log = structlog.get_logger(__name__)

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_SECONDS = 300.0
"""An informer that lived this long has not failed at its start."""


class Informer:
    """Tells `notify` the key of each resource, at first and whenever it changes; twice is harmless."""

    def __init__(self, api: ApiServer, namespace: str | None, notify: Callable[[Key], None]) -> None:
        self._api = api
        self._namespace = namespace
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self.ready = Health(ok=False, reason="starting")

    async def run(self) -> None:
        """Inform until cancelled; an outage or a missing CRD is waited out, with `ready` saying so."""
        failures = 0
        while True:
            began = self._loop.time()
            try:
                await self._list()
                self.ready = Health(ok=True)
                await self._serve()
                why = "kopf ended"
            except UserSyncError as error:
                why = str(error)
            if self._loop.time() - began > STEADY_SECONDS:
                failures = 0
            wait = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
            self.ready = Health(ok=False, reason=why)
            log.warning("informer_waits", seconds=wait, error=why)
            failures += 1
            await asyncio.sleep(wait)

    async def _list(self) -> None:
        """List by ourselves first: kopf, where it may not read CRDs, would wait for a missing one for ever."""
        resources, _ = await self._api.list_user_syncs(self._namespace)
        for resource in resources:
            self._notify(Key(resource["metadata"]["namespace"], resource["metadata"]["name"]))
        log.info("resources_listed", count=len(resources), namespace=self._namespace or "all")

    async def _serve(self) -> None:
        """Run kopf in its thread until it ends or we are cancelled."""
        stop = _Stop()
        ended: asyncio.Future[None] = self._loop.create_future()

        def serve() -> None:
            error: Exception | None = None
            try:
                asyncio.run(self._run_kopf(stop))
            except Exception as raised:  # noqa: BLE001 - the thread's entry point: kopf ends with whatever it met
                error = raised
            self._loop.call_soon_threadsafe(_settle, ended, error)

        thread = threading.Thread(target=serve, name="kopf", daemon=True)
        thread.start()
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            stop.set()
            await ended
            raise
        finally:
            stop.set()

    async def _run_kopf(self, stop: _Stop) -> None:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._log_in)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(self._changed)  # type: ignore[arg-type]  # kopf's protocol names every keyword
        await kopf.operator(
            registry=registry,
            settings=_settings(),
            standalone=True,
            clusterwide=self._namespace is None,
            namespaces=[self._namespace] if self._namespace else [],
            stop_flag=stop.here(),
        )

    async def _log_in(self, **_: object) -> kopf.ConnectionInfo:
        asked = asyncio.run_coroutine_threadsafe(self._api.connection(), self._loop)
        known = await asyncio.wrap_future(asked)
        scheme, _space, token = (known.authorization or "").partition(" ")
        return kopf.ConnectionInfo(
            server=known.server,
            ca_path=known.ca_path,
            insecure=not known.verify,
            scheme=scheme or None,
            token=token or None,
            certificate_path=known.certificate_path,
            private_key_path=known.key_path,
            proxy_url=known.proxy,
        )

    async def _changed(self, namespace: str, name: str, **_: object) -> None:
        self._loop.call_soon_threadsafe(self._notify, Key(namespace, name))


class _Stop:
    """A flag that one thread raises and another thread's loop waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._raised = False
        self._flag: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def here(self) -> asyncio.Event:
        """Return the event to wait for in the running loop."""
        with self._lock:
            event = asyncio.Event()
            self._flag = (asyncio.get_running_loop(), event)
            if self._raised:
                event.set()
            return event

    def set(self) -> None:
        """Raise the flag; harmless when the loop is over."""
        with self._lock:
            self._raised = True
            if self._flag is not None and not self._flag[0].is_closed():
                self._flag[0].call_soon_threadsafe(self._flag[1].set)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # never read CRDs or namespaces: a Role would not do, and what is there has just been listed
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.watching.chunk_size = 500
    settings.watching.reconnect_backoff = 1
    # the process is ours to end
    settings.process.ultimate_exiting_timeout = None
    return settings


def _settle(ended: asyncio.Future[None], error: Exception | None) -> None:
    if ended.done():
        return
    if error is not None:
        log.warning("informer_ended", error=f"{type(error).__name__}: {error}")
    ended.set_result(None)


drop_messages("kopf._core.reactor.running", lambda message: message.startswith("OS signals are ignored"))
