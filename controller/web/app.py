"""The process: what is listened on, when it is ready, and how it ends.

Decides the order at the end: no new connections, the requests under way, the claims under way, then the rest. Used by
`cli`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from controller.ops.server import Health, Probes
from controller.ops.server import serve as serve_ops
from controller.web.account_deletion import AccountDeletion
from controller.web.resources import Resources
from controller.web.webhooks import BODY_BYTES_MAX, Bounds, Webhooks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controller.web.endpoints import Workshop
    from controller.web.sources import Source

log = structlog.get_logger(__name__)

LINGERING_SECONDS = 2.0
FINISH_SECONDS = 15.0
"""How long requests under way may take at the end: all are answered before."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen; port 0 takes a free one."""

    host: str = "0.0.0.0"  # noqa: S104 - the ingress asks from outside the pod
    port: int = 8080
    ops_port: int = 9090
    ops_host: str = "0.0.0.0"  # noqa: S104 - the kubelet asks from outside the pod


@dataclass(slots=True)
class Service:
    """One webhook service; `run` it once."""

    source: Source
    workshop: Workshop
    listening: Listening = field(default_factory=Listening)
    bounds: Bounds = field(default_factory=Bounds)
    _ending: bool = field(default=False, init=False)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish what is under way.

        Raises:
            KubernetesRefused: there is no usable configuration of a cluster.
            OSError: a port is taken.
        """
        resources = Resources(self.workshop)
        probes = Probes(lambda: Health(ok=True), lambda: self._readiness(resources), self.workshop.metrics.registry)
        async with serve_ops(probes, port=self.listening.ops_port, host=self.listening.ops_host):
            following = asyncio.create_task(self.source.follow(resources))
            stopping = asyncio.create_task(stop.wait())
            try:
                webhooks = Webhooks(resources, self.workshop.metrics, self.bounds)
                async with listen(webhooks, self.listening.host, self.listening.port):
                    await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
                    self._ending = True
                    log.info("stopping")
                if following.done():
                    following.result()
            finally:
                stopping.cancel()
                following.cancel()
                await asyncio.gather(stopping, following, return_exceptions=True)
                await resources.close()
        log.info("stopped")

    def _readiness(self, resources: Resources) -> Health:
        if self._ending:
            return Health(ok=False, reason="stopping")
        if not resources.listed:
            return Health(ok=False, reason="the UserSyncs have not been listed yet")
        return Health(ok=True)


@asynccontextmanager
async def listen(
    webhooks: Webhooks, host: str, port: int, account_deletion: AccountDeletion | None = None
) -> AsyncIterator[int]:
    """Answer requests until the block ends, and those under way after it; yields the port."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    accounts = account_deletion or AccountDeletion(webhooks.resources, webhooks.metrics)
    # before those of the webhooks, which end in a refusal of all other paths
    app.add_routes([*accounts.routes(), *webhooks.routes()])
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=FINISH_SECONDS,
        keepalive_timeout=webhooks.bounds.head_seconds,
        lingering_time=LINGERING_SECONDS,
        # the signature is over the bytes that came, and a small body must not become a large one
        auto_decompress=False,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        real_port = int(runner.addresses[0][1])
        log.info("webhooks_listening", host=host, port=real_port)
        yield real_port
    finally:
        await runner.cleanup()
