"""The operator as a process: opens what it needs, starts the parts, and ends them in order.

Decides the order of starting and stopping, and what the probes say. Used by `cli`.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from controller.kube.client import ApiServer
from controller.kube.events import Events
from controller.ops.server import Health, Probes, serve
from controller.reconciler.dispatching import Dispatcher
from controller.reconciler.informing import Informer
from controller.reconciler.metrics import Metrics
from controller.reconciler.reconciling import Reconciler, Tools
from controller.runtime import SystemClock, holder_name, open_sweeper
from controller.settings import ClerkURLs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager

    from controller.core.sweeping import Sweeper
    from controller.core.targets import Spec
    from controller.settings import Credentials

log = structlog.get_logger(__name__)

DEAD_AFTER_SECONDS = 300.0
"""Five times the longest round of the dispatcher: then its loop is lost, and only a restart helps."""


@dataclass(frozen=True, slots=True)
class OperateSettings:
    """How to operate. `namespace` None means all; `patience` is what runs under way get at the end."""

    namespace: str | None
    ops_port: int = 9090
    ops_host: str = "0.0.0.0"  # noqa: S104 - the kubelet asks from outside the pod
    urls: ClerkURLs = field(default_factory=ClerkURLs)
    kubeconfig: str | None = None
    context: str | None = None
    runs_at_once: int = 4
    patience: timedelta = timedelta(seconds=45)


async def operate(settings: OperateSettings) -> None:
    """Operate until SIGTERM or SIGINT, then let the runs under way end.

    Raises:
        KubernetesRefused: there is no usable Kubernetes configuration.
    """
    clock, metrics, stop = SystemClock(), Metrics(), asyncio.Event()

    def opened(spec: Spec, credentials: Credentials) -> AbstractAsyncContextManager[Sweeper]:
        return open_sweeper(spec, credentials, settings.urls)

    async with ApiServer.open(kubeconfig=settings.kubeconfig, context=settings.context) as api:
        holder = holder_name()
        reconciler = Reconciler(Tools(api, Events(api, holder), opened, clock, metrics, holder))
        dispatcher = Dispatcher(reconciler.look, clock, limit=settings.runs_at_once)
        informer = Informer(api, settings.namespace, dispatcher.add)
        probes = Probes(lambda: _live(dispatcher), lambda: informer.ready, metrics.registry)
        async with serve(probes, port=settings.ops_port, host=settings.ops_host):
            with _stopped_by_signals(stop):
                log.info("operator_started", namespace=settings.namespace or "all", holder=holder)
                await _run_parts(dispatcher, informer, stop, settings.patience)
    log.info("operator_stopped")


async def _run_parts(dispatcher: Dispatcher, informer: Informer, stop: asyncio.Event, patience: timedelta) -> None:
    parts = [
        asyncio.create_task(dispatcher.run(), name="dispatcher"),
        asyncio.create_task(informer.run(), name="informer"),
    ]
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([*parts, stopped], return_when=asyncio.FIRST_COMPLETED)
        await dispatcher.drain(patience)
    finally:
        for task in (*parts, stopped):
            task.cancel()
        results = await asyncio.gather(*parts, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            # a part that ended by itself is a fault: end the process, so that it is started anew
            raise result


def _live(dispatcher: Dispatcher) -> Health:
    if dispatcher.silence > DEAD_AFTER_SECONDS:
        return Health(ok=False, reason=f"no look at anything for {dispatcher.silence:.0f} s")
    return Health(ok=True)


@contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        # a second Ctrl-C ends at once
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
