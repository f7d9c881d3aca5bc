"""The ops port: `/livez`, `/readyz`, `/metrics`, apart from the port that the public reaches.

Decides nothing: asks its callables. A probe that fails says why in its body. Used by `reconciler` and `web`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

log = structlog.get_logger(__name__)


class Health(NamedTuple):
    """What a probe answers; `reason` is one line for people."""

    ok: bool
    reason: str = "ok"


@dataclass(frozen=True, slots=True)
class Probes:
    """What the ops port asks. Each must be cheap and local: an outage elsewhere must not restart the process."""

    live: Callable[[], Health]
    ready: Callable[[], Health]
    registry: CollectorRegistry


@asynccontextmanager
async def serve(probes: Probes, *, port: int, host: str = "0.0.0.0") -> AsyncIterator[int]:  # noqa: S104 - the kubelet asks from outside the pod
    """Serve until the block ends; yields the port, which for port 0 is a free one and stands in the log."""
    app = web.Application()
    app.router.add_get("/livez", _probe(probes.live))
    app.router.add_get("/readyz", _probe(probes.ready))
    app.router.add_get("/metrics", _metrics(probes.registry))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        real_port = int(runner.addresses[0][1])
        log.info("ops_listening", port=real_port)
        yield real_port
    finally:
        await runner.cleanup()


def _probe(ask: Callable[[], Health]) -> Callable[[web.Request], AsyncAnswer]:
    async def answer(_: web.Request) -> web.Response:
        health = ask()
        return web.Response(status=200 if health.ok else 503, text=f"{health.reason}\n")

    return answer


def _metrics(registry: CollectorRegistry) -> Callable[[web.Request], AsyncAnswer]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return answer


if TYPE_CHECKING:
    from collections.abc import Awaitable

    AsyncAnswer = Awaitable[web.StreamResponse]
