"""One resource as the webhook service serves it: its secrets, its database and Clerk, and its worker.

Decides when things are opened anew, and what a request is told while they are not open. An endpoint never changes
its spec: a changed one gets a new endpoint. Used by `resources`, `webhooks` and `account_deletion`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from controller.core.contact import establish
from controller.errors import PermanentError, TransientError, UserSyncError
from controller.web.keyring import Declaration, Keyring, Rhythm, not_ready, wait_patiently
from controller.web.signing_keys import SigningKeys
from controller.web.upkeep import Keeper, Upkeep
from controller.web.worker import Pace, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from multidict import CIMultiDictProxy

    from controller.core.claims import Claim
    from controller.core.outcomes import Settled
    from controller.core.targets import Spec
    from controller.runtime import Served
    from controller.settings import Credentials
    from controller.web.metrics import Metrics

    Opener = Callable[[Spec, Credentials], AbstractAsyncContextManager[Served]]
    """`runtime.open_inbox`, told where Clerk's key may go."""

log = structlog.get_logger(__name__)

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Waits between attempts to open; a signed request cuts them short, down to the first."""
DRAIN_SECONDS = 10.0
"""How long requests and claims under way may take to finish when the endpoint is closed."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all endpoints of a process share."""

    opener: Opener
    metrics: Metrics
    rhythm: Rhythm = field(default_factory=Rhythm)
    pace: Pace = field(default_factory=Pace)
    upkeep: Upkeep = field(default_factory=Upkeep)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open resource whose instance is established."""

    served: Served
    instance_id: str
    since: float
    signing_keys: SigningKeys


class Endpoint:
    """Serves one resource from `start` to `close`."""

    def __init__(self, declaration: Declaration, workshop: Workshop) -> None:
        self.declaration = declaration
        self.spec = declaration.spec
        self.instance_id = declaration.spec.clerk.instance_id
        """As named, or as it was when it was last open; None before that."""
        self.was_open = False
        """Whether its key has been of that instance; before that, anybody can name one."""
        self._workshop = workshop
        self._log = log.bind(resource=self.spec.name)
        self._changed = asyncio.Event()
        self._keyring = Keyring(declaration, workshop.rhythm, self._open_anew)
        self._opened: Opened | None = None
        self._error: UserSyncError | None = None
        self._tried = asyncio.Event()
        self._nudged = asyncio.Event()
        self._closing = False
        self._borrowed = 0
        self._returned = asyncio.Event()
        self._worker: Worker | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        """Begin to read the secrets and to open."""
        self._tasks = (asyncio.create_task(self._keyring.run()), asyncio.create_task(self._keep_open()))

    async def close(self) -> None:
        """Finish requests and claims under way, then close; what takes too long is left to its lease."""
        self._closing = True
        self._open_anew()
        await asyncio.wait(self._tasks[1:], timeout=2 * DRAIN_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def verify(self, headers: CIMultiDictProxy[str], body: bytes) -> str:
        """Return the id of a message that is from Clerk.

        Raises:
            Refused: it is not from Clerk.
            TransientError, PermanentError: the secrets cannot be read, so nobody can tell.
        """
        return await self._keyring.verify(headers, body)

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Opened]:
        """Give what is open, for one event; it is not closed before it is given back.

        Raises:
            TransientError, PermanentError: why it is not open; the next attempt is brought forward.
        """
        self._nudged.set()
        await wait_patiently(self._tried)
        opened = self._opened
        if opened is None:
            raise (self._error or not_ready(self.spec)).with_traceback(None)
        self._borrowed += 1
        try:
            yield opened
        except PermanentError:
            self._reopen_after(opened)
            raise
        finally:
            self._borrowed -= 1
            self._returned.set()

    def wake(self) -> None:
        """Let the worker look for claims now."""
        if self._worker is not None:
            self._worker.wake()

    def settle_now(self, claim: Claim) -> asyncio.Task[Settled | None] | None:
        """Let the worker settle a claim that is leased to us; None if it cannot, and the claim is to be let go."""
        return None if self._worker is None else self._worker.settle_now(claim)

    def _reopen_after(self, failed: Opened) -> None:
        """Open anew, for the password may have changed; but not for every event that a wrong right refuses."""
        if asyncio.get_running_loop().time() - failed.since >= self._workshop.rhythm.reread.total_seconds():
            self._open_anew()

    def _open_anew(self) -> None:
        self._changed.set()
        self._nudged.set()

    async def _keep_open(self) -> None:
        failures = 0
        while not self._closing:
            self._changed.clear()
            try:
                await self._serve_until_changed()
            except UserSyncError as error:
                self._note(error)
            except Exception:  # noqa: BLE001 - the entry point of a resource
                # a fault of ours in one resource must neither end the others nor leave this one for ever silent
                self._log.exception("endpoint_failed")
                self._note(TransientError("A fault of usersync; its log says which."))
            else:
                failures = 0
                continue
            await self._pause(failures)
            failures += 1

    async def _serve_until_changed(self) -> None:
        """Open, establish the instance, work; return when something else is to be opened.

        Raises:
            TransientError, PermanentError: it cannot be opened.
        """
        credentials = await self._keyring.known()
        if self._closing:
            return
        # the first reading of the secrets counts as a change
        self._changed.clear()
        async with self._workshop.opener(self.spec, credentials) as served:
            instance = await establish(served.directory, served.store, named=self.spec.clerk.instance_id)
            self._log.info("serving", instance=instance.id)
            self._error = None
            self.instance_id, self.was_open = instance.id, True
            signing_keys = SigningKeys(served.accounts, instance.id)
            self._opened = Opened(served, instance.id, asyncio.get_running_loop().time(), signing_keys)
            self._tried.set()
            keeping = asyncio.create_task(self._keeper(served).run())
            try:
                await self._work_until_changed(served)
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
                self._opened = None
                self._tried.clear()
                await self._wait_until_returned()
        if not self._closing:
            await self._keyring.read_again()

    async def _work_until_changed(self, served: Served) -> None:
        if self.spec.suspend or self.spec.dry_run:
            await self._changed.wait()
            return
        self._worker = worker = Worker(self.spec, served, self._workshop.metrics, self._workshop.pace)
        working = asyncio.create_task(worker.run())
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait([working, changed], return_when=asyncio.FIRST_COMPLETED)
            worker.stop()
            await asyncio.wait([working], timeout=DRAIN_SECONDS)
            if working.done():
                working.result()
        finally:
            self._worker = None
            working.cancel()
            changed.cancel()
            await asyncio.gather(working, changed, return_exceptions=True)

    def _keeper(self, served: Served) -> Keeper:
        return Keeper(self.spec, served.inbox, self._workshop.metrics, self._workshop.upkeep, self._is_idle)

    def _is_idle(self) -> bool:
        return not self._borrowed and (self._worker is None or self._worker.idle)

    async def _wait_until_returned(self) -> None:
        while self._borrowed:
            self._returned.clear()
            await self._returned.wait()

    async def _pause(self, failures: int) -> None:
        """Wait before the next attempt; after the shortest wait a request may end it."""
        pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
        self._nudged.clear()
        if self._closing:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS[0]):
                await self._changed.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause - RETRY_SECONDS[0]):
                await self._nudged.wait()
        await self._keyring.read_again()

    def _note(self, error: UserSyncError) -> None:
        if str(error) != str(self._error):
            self._log.warning("not_serving", reason=error.reason, error=str(error))
        self._error = error
        self._tried.set()
