from __future__ import annotations

from dataclasses import dataclass, field

import aiohttp
from prometheus_client import CollectorRegistry, Counter

from controller.ops.server import Health, Probes, serve


@dataclass
class State:
    live: Health = field(default_factory=lambda: Health(ok=True))
    ready: Health = field(default_factory=lambda: Health(ok=True))


async def fetch(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


def probes(state: State, registry: CollectorRegistry | None = None) -> Probes:
    return Probes(lambda: state.live, lambda: state.ready, registry or CollectorRegistry())


async def test_a_healthy_process_answers_200() -> None:
    async with serve(probes(State()), port=0, host="127.0.0.1") as port:
        assert (await fetch(port, "/livez"))[0] == 200
        assert (await fetch(port, "/readyz"))[0] == 200


async def test_a_probe_that_fails_answers_503_and_says_why() -> None:
    state = State(ready=Health(ok=False, reason="waiting for the CRD"))
    async with serve(probes(state), port=0, host="127.0.0.1") as port:
        assert await fetch(port, "/readyz") == (503, "waiting for the CRD\n")
        assert (await fetch(port, "/livez"))[0] == 200


async def test_the_state_is_asked_at_each_probe() -> None:
    state = State()
    async with serve(probes(state), port=0, host="127.0.0.1") as port:
        state.live = Health(ok=False, reason="stuck")
        assert (await fetch(port, "/livez"))[0] == 503


async def test_metrics_show_the_registry() -> None:
    registry = CollectorRegistry()
    Counter("runs", "Runs.", registry=registry).inc()
    async with serve(probes(State(), registry), port=0, host="127.0.0.1") as port:
        status, text = await fetch(port, "/metrics")
    assert status == 200
    assert "runs_total 1.0" in text
