"""The secrets of one resource, as they were read last, and what is signed with them.

Decides when they are read again: at intervals, and sooner when a signature is of no known secret, but never as often
as strangers like. Used by `endpoints`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from controller.errors import KubernetesUnavailable, TransientError, UserSyncError
from controller.web.refusals import RefusalKind, Refused
from controller.web.signatures import Verifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from multidict import CIMultiDictProxy

    from controller.core.targets import Spec
    from controller.settings import Access, Credentials

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 8.0
"""How long a request waits for a first attempt under way; Svix gives up after 15."""
REREAD_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is to be served; two that are equal are served by the same endpoint.

    `origin` is what else tells two declarations of one spec apart, such as the names of the Secrets.
    """

    spec: Spec
    origin: Hashable
    read_credentials: Callable[[], Awaitable[Credentials]] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often secrets are read: at most every `reread` where a signature fails, every `refresh` in any case.

    Without the latter, a leaked secret that was taken out of the Secret would go on being believed.
    """

    reread: timedelta = timedelta(seconds=10)
    refresh: timedelta = timedelta(seconds=60)


class Keyring:
    """Reads a resource's secrets while `run` runs; `on_change` hears when key or database are other ones."""

    def __init__(self, declaration: Declaration, rhythm: Rhythm, on_change: Callable[[], None]) -> None:
        self.credentials: Credentials | None = None
        self.error: UserSyncError | None = None
        self._declaration = declaration
        self._rhythm = rhythm
        self._on_change = on_change
        self._verifier: Verifier | None = None
        self._was_read = asyncio.Event()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._log = log.bind(resource=declaration.spec.name)

    async def run(self) -> None:
        """Read the secrets at intervals, until cancelled."""
        while True:
            async with self._reading:
                await self._read()
            await asyncio.sleep((self._rhythm.refresh if self._verifier else self._rhythm.reread).total_seconds())

    async def known(self) -> Credentials:
        """Return what was read last, waiting for the first attempt.

        Raises:
            TransientError, PermanentError: why nothing could be read.
        """
        await wait_patiently(self._was_read)
        if self.credentials is None:
            # without this, each request of an outage would leave its frames in the one error
            raise (self.error or not_ready(self._declaration.spec)).with_traceback(None)
        return self.credentials

    async def verify(self, headers: CIMultiDictProxy[str], body: bytes) -> str:
        """Return the id of a message that is from Clerk; an unknown signature lets the secrets be read again.

        Raises:
            Refused: it is not from Clerk.
            TransientError, PermanentError: the secrets cannot be read, so nobody can tell.
        """
        await self.known()
        verifier = self._verifier
        try:
            return self._known_verifier().verify(headers, body)
        except Refused as refused:
            if refused.kind is not RefusalKind.SIGNATURE:
                raise
            # strangers must not fill our places by waiting for an API server that hangs
            with suppress(TimeoutError):
                async with asyncio.timeout(REREAD_PATIENCE_SECONDS):
                    await self.read_again()
            if self._verifier is verifier:
                raise
        return self._known_verifier().verify(headers, body)

    async def read_again(self) -> None:
        """Read the secrets, unless that was done just now."""
        async with self._reading:
            since = asyncio.get_running_loop().time() - self._read_at
            if since >= self._rhythm.reread.total_seconds():
                await self._read()

    def _known_verifier(self) -> Verifier:
        if self._verifier is None:
            raise (self.error or not_ready(self._declaration.spec)).with_traceback(None)
        return self._verifier

    async def _read(self) -> None:
        self._read_at = asyncio.get_running_loop().time()
        try:
            credentials = await self._declaration.read_credentials()
            verifier = Verifier(credentials.webhook_secrets)
        except UserSyncError as error:
            self._note(error)
            # what was read before an outage is still the best that is known; a Secret that is gone is an answer
            if self.credentials is not None and not isinstance(error, KubernetesUnavailable):
                self.credentials = self._verifier = None
                self._on_change()
        else:
            self._take(credentials, verifier)
        self._was_read.set()

    def _take(self, credentials: Credentials, verifier: Verifier) -> None:
        before, self.credentials, self.error = self.credentials, credentials, None
        if before == credentials:
            return
        self._verifier = verifier
        if before is not None:
            self._log.info("secrets_changed")
        if before is None or _opens_with(before) != _opens_with(credentials):
            self._on_change()

    def _note(self, error: UserSyncError) -> None:
        if str(error) != str(self.error):
            self._log.warning("secrets_not_read", reason=error.reason, error=str(error))
        self.error = error


async def wait_patiently(event: asyncio.Event) -> None:
    """Wait for the event as long as a request can."""
    if event.is_set():
        # as for nearly every request, each of which would pay for a timer
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await event.wait()


def not_ready(spec: Spec) -> TransientError:
    """Say that the first attempt is still under way."""
    return TransientError(f"{spec.name} is being opened.")


def _opens_with(credentials: Credentials) -> tuple[str, Access]:
    return credentials.clerk_secret_key, credentials.database
