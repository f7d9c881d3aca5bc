"""The emulator as a program of its own, steered over HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import pytest

from controller.emulator import ClerkEmulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BOUND = 30.0
"""Seconds within which a program must have started or ended."""


class Steering:
    """JSON in, JSON out, of the control API."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def ask(self, method: str, path: str, content: object = None, *, status: int = 200) -> dict[str, Any]:
        async with self.session.request(method, f"/emulator{path}", json=content) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == status, answer
            return answer


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """Run the program; give it, and what its first line says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controller.emulator", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(BOUND):
            yield process, json.loads(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    async with ClerkEmulator() as emulator:
        yield emulator


@pytest.fixture
async def steering(clerk: ClerkEmulator) -> AsyncIterator[Steering]:
    async with aiohttp.ClientSession(clerk.url) as session:
        yield Steering(session)


async def test_the_program_says_in_one_line_what_a_client_needs() -> None:
    async with running("--users", "3", "--seed", "5", "--environment", "production") as (_, state):
        assert state["users"] == 3
        assert state["secret_key"].startswith("sk_live_")
        assert state["instance_id"].startswith("ins_")
        assert state["webhook_secret"].startswith("whsec_")
        headers = {"Authorization": f"Bearer {state['secret_key']}"}
        async with (
            aiohttp.ClientSession(state["url"], headers=headers) as session,
            session.get("/v1/users") as response,
        ):
            assert len(await response.json()) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_program_with_zero(number: signal.Signals) -> None:
    async with running() as (process, _):
        process.send_signal(number)
        assert await process.wait() == 0


async def test_the_same_seed_gives_the_same_instance_and_users() -> None:
    first, second = ClerkEmulator(users=3), ClerkEmulator(users=3)
    assert first.secret_key == second.secret_key
    assert first.instance == second.instance
    assert first.webhook_secret == second.webhook_secret
    assert list(first.users) == list(second.users)


async def test_users_are_added_deleted_and_listed(clerk: ClerkEmulator, steering: Steering) -> None:
    ids = (await steering.ask("POST", "/users", {"count": 10}))["ids"]
    newcomer = (await steering.ask("POST", "/sign-ups"))["id"]
    assert (await steering.ask("GET", "/users"))["ids"] == [*ids, newcomer]
    gone = (await steering.ask("DELETE", "/users", {"ids": [ids[0]], "newest": 2}))["ids"]
    assert gone == [ids[0], ids[9], newcomer]
    assert clerk.count == 8


async def test_users_are_edited(clerk: ClerkEmulator, steering: Steering) -> None:
    (user_id,) = clerk.add_users(1)
    await steering.ask("PATCH", f"/users/{user_id}", {"changes": {"first_name": "Zoë"}})
    assert clerk.users.describe(user_id)["first_name"] == "Zoë"


async def test_a_session_is_begun_and_the_signing_key_exchanged(clerk: ClerkEmulator, steering: Steering) -> None:
    (user_id,) = clerk.add_users(1)
    asked = {"user_id": user_id, "origin": "https://app.example.com", "claims": {"fva": [99, -1], "sts": None}}
    token = (await steering.ask("POST", "/sessions", asked))["token"]
    claims = jwt.decode(token, clerk.sessions.public_key, algorithms=["RS256"])
    assert (claims["sub"], claims["fva"]) == (user_id, [99, -1])
    await steering.ask("POST", "/signing-keys")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, clerk.sessions.public_key, algorithms=["RS256"])
    await steering.ask("POST", "/sessions", asked | {"user_id": "user_nobody"}, status=404)


async def test_faults_are_switched_on_and_off(clerk: ClerkEmulator, steering: Steering) -> None:
    fault = {"name": "hide-users", "endpoint": "list", "ids": ["user_a"]}
    number = (await steering.ask("POST", "/faults", fault))["number"]
    await steering.ask("POST", "/faults", {"name": "server-error", "page": 3, "times": 1})
    assert list((await steering.ask("GET", "/faults"))["faults"]) == [str(number), str(number + 1)]
    await steering.ask("DELETE", f"/faults/{number}")
    assert list(clerk.faults.on) == [number + 1]
    await steering.ask("DELETE", "/faults")
    assert clerk.faults.on == {}


async def test_requests_are_told_and_reset(clerk: ClerkEmulator, steering: Steering) -> None:
    async with steering.session.get("/v1/users", headers={"Authorization": f"Bearer {clerk.secret_key}"}):
        pass
    told = await steering.ask("GET", "/requests")
    assert told == {"total": 1, "peak": 1, "by_endpoint": {"list": 1}}
    await steering.ask("DELETE", "/requests")
    assert clerk.requests.total == 0


async def test_webhooks_are_pointed_broken_sent_and_told(clerk: ClerkEmulator, steering: Steering) -> None:
    await steering.ask("PUT", "/webhooks", {"url": f"{clerk.url}/nowhere", "compression": 1e9, "timeout_seconds": 5})
    await steering.ask("POST", "/webhooks/faults", {"name": "lose", "event_type": "user.created"})
    await steering.ask("POST", "/sign-ups")
    sent = await steering.ask("POST", "/webhooks/events", {"type": "session.created", "data": {}})
    await clerk.webhooks.settle()
    told = await steering.ask("GET", "/webhooks/deliveries")
    assert told["pending"] == 0
    assert {delivery["message_id"] for delivery in told["deliveries"]} == {sent["message_id"]}
    assert {delivery["status"] for delivery in told["deliveries"]} == {404}
    await steering.ask("POST", f"/webhooks/replays/{sent['message_id']}")
    await clerk.webhooks.settle()
    assert len(clerk.webhooks.deliveries) == 16


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/faults", {"name": "no-such-fault"}, 400),
        ("POST", "/faults", {"name": "reset", "when": "now"}, 400),
        ("POST", "/users", {}, 400),
        ("DELETE", "/faults/7", None, 404),
        ("DELETE", "/faults/seven", None, 400),
        ("PATCH", "/users/user_nobody", {"changes": {}}, 404),
        ("POST", "/webhooks/replays/msg_unknown", None, 404),
    ],
)
async def test_what_cannot_be_done_is_said(
    steering: Steering, method: str, path: str, content: object, status: int
) -> None:
    assert "error" in await steering.ask(method, path, content, status=status)
