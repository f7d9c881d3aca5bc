"""The emulator as one object: a population, an API on a port of the loopback address, a sender of webhooks.

Used in process by tests and the demo; `python -m controller.emulator` runs it as a program of its own.
What a person would do in Clerk's dashboard or as a user (sign up, edit, delete) are its methods.
"""

from __future__ import annotations

import base64
import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from controller.core.users import Environment, Instance
from controller.emulator.api import Account, BackendAPI
from controller.emulator.control import ControlAPI
from controller.emulator.events import deleted_user
from controller.emulator.faults import Fault, Faults
from controller.emulator.limits import REQUESTS_PER_WINDOW, RateLimiter, RequestCounter
from controller.emulator.sessions import Sessions
from controller.emulator.users import BULK_FROM, BULK_UNTIL, Users
from controller.emulator.webhooks import WebhookSender, WebhookSettings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

HOST = "127.0.0.1"
DEFAULT_RATE_LIMIT = -1
"""Stands for the limit that Clerk has for the environment."""

_KEY_PREFIX = {Environment.DEVELOPMENT: "sk_test_", Environment.PRODUCTION: "sk_live_"}
_ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class EmulatorSettings:
    """What an instance is like. Everything random about it follows from `seed`.

    `port` 0 takes a free one. `rate_limit` is in requests per 10 s; None switches it off.
    `deleted_cursor_works`: Clerk does not say what `starting_after` a user deleted meanwhile does; by default
    it is refused with 422.
    """

    seed: int = 0
    port: int = 0
    environment: Environment = Environment.DEVELOPMENT
    rate_limit: int | None = DEFAULT_RATE_LIMIT
    deleted_cursor_works: bool = False
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)


class ClerkEmulator:
    """A Clerk instance of one's own; use it as an async context manager, or `start` and `stop` it."""

    def __init__(self, settings: EmulatorSettings | None = None, *, users: int = 0) -> None:
        """`users`: how many have signed up before it starts."""
        self.settings = EmulatorSettings() if settings is None else settings
        chance = random.Random(f"instance {self.settings.seed}")
        environment = self.settings.environment
        self.instance = Instance(f"ins_2{_text(chance, 26)}", environment)
        self.secret_key = f"{_KEY_PREFIX[environment]}{_text(chance, 42)}"
        webhooks = self.settings.webhooks
        if not webhooks.secrets:
            made_up = f"whsec_{base64.b64encode(chance.randbytes(24)).decode()}"
            webhooks = replace(webhooks, secrets=(made_up,))
        self.users = Users(seed=self.settings.seed, now=lambda: time.time_ns() // 1_000_000)
        self.faults = Faults()
        self.requests = RequestCounter()
        limit = self.settings.rate_limit
        self.limiter = RateLimiter(REQUESTS_PER_WINDOW[environment] if limit == DEFAULT_RATE_LIMIT else limit)
        self.webhooks = WebhookSender(webhooks, instance_id=self.instance.id)
        self.sessions = Sessions(self.instance.id)
        self._runner: web.AppRunner | None = None
        self._port: int | None = None
        if users:
            self.add_users(users)

    @property
    def url(self) -> str:
        """Where it listens, without `/v1`.

        Raises:
            RuntimeError: it has not been started.
        """
        if self._port is None:
            message = "the emulator has not been started"
            raise RuntimeError(message)
        return f"http://{HOST}:{self._port}"

    @property
    def webhook_secret(self) -> str:
        """The newest secret that signs webhooks, `whsec_...`."""
        return self.webhooks.settings.secrets[0]

    async def start(self) -> Self:
        """Listen. A second start after a stop takes the same port again."""
        await self.webhooks.open()
        account = Account(
            instance=self.instance,
            secret_key=self.secret_key,
            users=self.users,
            deleted_cursor_works=self.settings.deleted_cursor_works,
            delete_user=self.delete,
            sessions=self.sessions,
        )
        app = web.Application()
        app.add_routes(BackendAPI(account, self.faults, self.limiter, self.requests).routes())
        app.add_routes(ControlAPI(self).routes())
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self._port or self.settings.port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Stop listening, give up open requests and webhooks under way; the users stay."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self.webhooks.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def count(self) -> int:
        """How many users live."""
        return len(self.users)

    def add_users(self, count: int, *, created_from: int = BULK_FROM, created_until: int = BULK_UNTIL) -> list[str]:
        """Add users without webhooks, created evenly over the milliseconds given; return their ids, oldest first."""
        return self.users.add(count, created_from=created_from, created_until=created_until)

    def sign_up(self, user_id: str | None = None, *, created_at: int | None = None, webhook: bool = True) -> str:
        """Let one user sign up, with `user.created`; return the id.

        Raises:
            ValueError: a living user has that id.
        """
        signed_up = self.users.sign_up(user_id, created_at=created_at)
        if webhook:
            self.webhooks.send("user.created", self.users.describe(signed_up))
        return signed_up

    def edit(self, user_id: str, *, webhook: bool = True, **changes: Any) -> None:
        """Change fields of a user, with `user.updated`.

        Raises:
            LookupError: no such user.
            ValueError: a field that cannot be set.
        """
        self.users.edit(user_id, changes)
        if webhook:
            self.webhooks.send("user.updated", self.users.describe(user_id))

    def delete(self, user_id: str, *, webhook: bool = True) -> None:
        """Delete one user, with `user.deleted`.

        Raises:
            LookupError: no such user.
        """
        if not self.delete_many([user_id], webhook=webhook):
            raise LookupError(user_id)

    def delete_many(self, user_ids: Iterable[str], *, webhook: bool = True) -> list[str]:
        """Delete those of the users who live, with `user.deleted` for each; return their ids."""
        ids = list(user_ids)
        if not webhook:
            return self.users.delete(ids)
        external = {each: self.users.describe(each)["external_id"] for each in ids if each in self.users}
        deleted = self.users.delete(ids)
        for user_id in deleted:
            self.webhooks.send("user.deleted", deleted_user(user_id, external[user_id]))
        return deleted

    def switch_on(self, fault: Fault) -> int:
        """Switch a fault of the API on; return the number that `faults.switch_off` takes."""
        return self.faults.switch_on(fault)


def _text(chance: random.Random, length: int) -> str:
    return "".join(chance.choices(_ALPHANUMERIC, k=length))
