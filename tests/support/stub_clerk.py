"""A server that answers as a test says: for what the emulator, being a Clerk that works, never does."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from controller.clerk import Clerk
from tests.support.clerks import HASTY, MonotonicClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

KEY = "sk_test_OnlyForTheStubInTheTests0123456789"


@dataclass
class StubClerk:
    """`answer` makes the answer to each request; `requests` are those that came."""

    answer: Callable[[web.Request], web.StreamResponse]
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return self.answer(request)


@asynccontextmanager
async def clerk_at_stub(
    answer: Callable[[web.Request], web.StreamResponse], key: str = KEY
) -> AsyncGenerator[tuple[Clerk, StubClerk], None]:
    """Open the client on a server that gives the same answer to everything."""
    stub = StubClerk(answer)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stub.handle)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with Clerk.open(key, base_url=stub.url, share=1.0, clock=MonotonicClock(), patience=HASTY) as clerk:
            yield clerk, stub
    finally:
        await runner.cleanup()
