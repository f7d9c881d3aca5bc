"""A webhook service in process, and whoever sends to it."""

from __future__ import annotations

import asyncio
import base64
import hmac
import io
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp

from controller.core.targets import Spec
from controller.emulator.events import deleted_user, encode, envelope, sign
from controller.runtime import Served, SystemClock
from controller.settings import Credentials
from controller.web.app import listen
from controller.web.endpoints import Workshop
from controller.web.keyring import Declaration, Rhythm
from controller.web.metrics import Metrics
from controller.web.resources import Resources
from controller.web.webhooks import Bounds, Webhooks
from controller.web.worker import Pace
from tests.support.fakes.directory import FakeDirectory
from tests.support.fakes.store import FakeStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from controller.core.ports import Clock
    from controller.errors import UserSyncError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
CREDENTIALS = Credentials("sk_test_x", "postgres://fake", (SECRET,))
REPLAY_WINDOW_SECONDS = 300 + 5
"""Svix's, and what a slow test may take between signing and asking."""
SPEC = Spec("app/production")
PATH = "/api/webhooks/clerk/app/production"


@dataclass
class FakeWorld:
    """Clerk, a database and a Secret in memory; `error`: why nothing can be opened.

    What happened: `opened` and `closed` (with which credentials), `readings` of the Secret.
    """

    clock: Clock = field(default_factory=SystemClock)
    credentials: Credentials | None = CREDENTIALS
    error: UserSyncError | None = None
    secret_error: UserSyncError | None = None
    opened: list[Credentials] = field(default_factory=list)
    closed: list[Credentials] = field(default_factory=list)
    readings: int = 0
    reading_seconds: float = 0.0
    directory: FakeDirectory = field(default_factory=FakeDirectory)
    store: FakeStore = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.store = FakeStore(self.clock)

    @asynccontextmanager
    async def open(self, spec: Spec, credentials: Credentials) -> AsyncIterator[Served]:
        del spec
        if self.error is not None:
            raise self.error
        self.opened.append(credentials)
        try:
            yield Served(self.directory, self.store, self.store, self.clock)
        finally:
            self.closed.append(credentials)

    async def read_credentials(self) -> Credentials:
        self.readings += 1
        await asyncio.sleep(self.reading_seconds)
        if self.secret_error is not None:
            raise self.secret_error
        assert self.credentials is not None
        return self.credentials

    def declare(self, spec: Spec = SPEC, origin: str = "") -> Declaration:
        return Declaration(spec, origin, self.read_credentials)

    def workshop(self, *, rhythm: Rhythm | None = None, pace: Pace | None = None) -> Workshop:
        return Workshop(self.open, self.metrics, rhythm or Rhythm(), pace or Pace())

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: Any


class Sender:
    """Sends one attempt at a time, signed as Svix signs."""

    def __init__(self, session: aiohttp.ClientSession, secret: str = SECRET, instance_id: str = "") -> None:
        self.session = session
        self.secret = secret
        self.instance_id = instance_id

    async def post(self, body: bytes, headers: Mapping[str, str] | None = None, *, path: str = PATH) -> Answer:
        signed = sign(self.secret, body) if headers is None else headers
        async with self.session.post(path, data=io.BytesIO(body), headers=signed) as response:
            is_json = response.content_type == "application/json"
            content = await response.json() if is_json else await response.text()
            return Answer(response.status, response.headers, content)

    async def send(
        self,
        event_type: str,
        user_id: str,
        *,
        path: str = PATH,
        message_id: str | None = None,
        instance_id: str | None = None,
        at: datetime | None = None,
    ) -> Answer:
        body = self.event(event_type, user_id, instance_id=instance_id, at=at)
        return await self.post(body, sign(self.secret, body, message_id=message_id), path=path)

    def event(
        self, event_type: str, user_id: str, *, instance_id: str | None = None, at: datetime | None = None
    ) -> bytes:
        """The body of an event of `at`, now if None; who signs up was created then."""
        at = datetime.now(UTC) if at is None else at
        created = {"object": "user", "id": user_id, "created_at": int(at.timestamp() * 1000)}
        data = deleted_user(user_id) if event_type == "user.deleted" else created
        sender = self.instance_id if instance_id is None else instance_id
        return encode(envelope(event_type, data, instance_id=sender, at=at))


@asynccontextmanager
async def serving(resources: Resources, metrics: Metrics, bounds: Bounds | None = None) -> AsyncIterator[str]:
    """Serve on a free port of 127.0.0.1; gives the URL."""
    webhooks = Webhooks(resources, metrics, bounds or Bounds())
    try:
        async with listen(webhooks, "127.0.0.1", 0) as port:
            yield f"http://127.0.0.1:{port}"
    finally:
        await resources.close()


@asynccontextmanager
async def fake_service(
    world: FakeWorld, *specs: Spec, bounds: Bounds | None = None, rhythm: Rhythm | None = None
) -> AsyncIterator[Sender]:
    """Serve `specs` (one, if none is given) on a world in memory; gives a sender of its instance."""
    resources = Resources(world.workshop(rhythm=rhythm))
    for spec in specs or (SPEC,):
        resources.apply(world.declare(spec))
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        serving(resources, world.metrics, bounds) as url,
        aiohttp.ClientSession(url, timeout=timeout) as session,
    ):
        yield Sender(session, instance_id=world.directory.of.id)


def is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether Svix's description accepts the message: by the text of the headers and no library of Svix."""
    for family in ("svix", "webhook"):
        message_id, stamp, signatures = (
            headers.get(f"{family}-{part}", "") for part in ("id", "timestamp", "signature")
        )
        signed = f"{message_id}.{stamp}.".encode(errors="surrogateescape") + body
        expected = base64.b64encode(hmac.digest(base64.b64decode(secret[6:]), signed, "sha256")).decode()
        fresh = stamp.isascii() and stamp.isdigit() and abs(time.time() - int(stamp)) <= REPLAY_WINDOW_SECONDS
        if fresh and f"v1,{expected}" in signatures.split(" "):
            return True
    return False


async def spin(times: int = 20) -> None:
    """Let whatever can run without waiting run."""
    for _ in range(times):
        await asyncio.sleep(0)
