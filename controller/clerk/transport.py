"""Asks Clerk over HTTPS: one limiter, bounded retries, bounded bodies.

Decides what is worth asking again (timeouts, connections lost, damaged bodies, 429, 5xx) and when to give
up; what an answer means is `answers`' matter. The key goes to the base URL alone: no redirect is followed.

stamina decides whether and when a request is tried again, by itself. It cannot hold the *other* requests
back when Clerk asks for silence, so `Retry-After` is the limiter's: the failed request is tried again at
once as far as stamina is concerned, and waits for its place like all the others. stamina also logs every
retry with the message of its cause, which holds no key, body or id. Used by `client`.
"""

from __future__ import annotations

import zlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
import stamina
from aiohttp import hdrs
from yarl import URL

from controller.clerk.answers import Answer
from controller.errors import ClerkRefused, ClerkUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from controller.clerk.limiting import Limiter

API_VERSION = "2026-05-12"
"""Sent with every request, so that a later default of the instance changes nothing for us."""

MAX_BODY: Final = 32 * 1024 * 1024
"""Bytes of a body, both as sent and unpacked. A page of 500 users is about 2 MB; with all metadata that
Clerk allows it stays below 16 MB."""

_CHUNK = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_A_DAY = 86_400
_MAX_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Patience:
    """How long Clerk is waited for.

    `total`, `connect`, `read` bound one attempt; there are `attempts` of them, `first_pause` apart and then
    twice as long each time up to `longest_pause`. Clerk may ask for silence of up to `longest_silence`; a 429
    that does not say for how long means `silence`.
    """

    attempts: int = 5
    total: timedelta = timedelta(seconds=60)
    connect: timedelta = timedelta(seconds=10)
    read: timedelta = timedelta(seconds=20)
    first_pause: timedelta = timedelta(seconds=0.5)
    longest_pause: timedelta = timedelta(seconds=8)
    silence: timedelta = timedelta(seconds=1)
    longest_silence: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a path below `/v1`. `asked` names it in messages and logs, where ids must not stand.

    It may be made more than once, so the method is one that has the same effect again.
    """

    path: str
    asked: str
    parameters: tuple[tuple[str, str], ...] = ()
    method: str = hdrs.METH_GET


class Transport:
    """One session with one key; make it with `open_transport`."""

    def __init__(self, session: aiohttp.ClientSession, base: URL, limiter: Limiter, patience: Patience) -> None:
        """`base` is without `/v1`."""
        self._session = session
        self._base = base / "v1"
        self._limiter = limiter
        self._patience = patience

    async def ask(self, request: Request) -> Answer:
        """Return Clerk's answer: 200, or a 4xx that is not about the key or the rate (2xx are left to decoding).

        Raises:
            ClerkUnavailable: no such answer after all attempts; `retry_after` if Clerk named a time.
            ClerkRefused: 401 or 403.
            ClerkAnswerOdd: a redirect, another status, a body that is too large.
        """
        patience = self._patience
        async for attempt in stamina.retry_context(
            on=self._pause_before_retry,
            attempts=patience.attempts,
            timeout=None,
            wait_initial=patience.first_pause,
            wait_max=patience.longest_pause,
            wait_jitter=patience.first_pause,
        ):
            with attempt:
                async with self._limiter.place():
                    return await self._ask(request)
        raise AssertionError  # pragma: no cover  # the loop returns or raises

    def _pause_before_retry(self, error: Exception) -> bool | timedelta:
        if not isinstance(error, ClerkUnavailable):
            return False
        if error.retry_after is None:
            return True
        # The limiter holds everything back for that long; waiting here as well would wait twice.
        return timedelta() if error.retry_after <= self._patience.longest_silence else False

    async def _ask(self, request: Request) -> Answer:
        url = (self._base / request.path).with_query(request.parameters)
        try:
            async with self._session.request(request.method, url, allow_redirects=False) as response:
                answer = await _read(request, response)
        except TimeoutError as error:
            message = f"Clerk did not answer {request.asked} in time."
            raise ClerkUnavailable(message) from error
        except (_ConnectionLost, aiohttp.ClientError, zlib.error) as error:
            cause = error.__cause__ if isinstance(error, _ConnectionLost) else error
            message = (
                f"No whole answer from Clerk to {request.asked} ({type(cause).__name__}): is {self._base.host} up?"
            )
            raise ClerkUnavailable(message) from error
        self._judge(answer, _seconds(response.headers.get(hdrs.RETRY_AFTER)))
        return answer

    def _judge(self, answer: Answer, retry_after: timedelta | None) -> None:
        """Raise for every answer that no caller can use."""
        status = answer.status
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self._limiter.block(self._patience.silence if retry_after is None else retry_after)
            message = (
                f"Clerk's rate limit for this instance is used up (429 on {answer.asked}{answer.details()}). If the "
                "application needs it, lower spec.clerk.rateLimitShare or lengthen spec.interval."
            )
            raise ClerkUnavailable(message, retry_after=retry_after)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            if retry_after is not None:
                self._limiter.block(retry_after)
            message = f"Clerk failed to answer {answer.asked}: {status}{answer.details()}."
            raise ClerkUnavailable(message, retry_after=retry_after)
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            message = (
                f"Clerk refused the secret key: {status} on {answer.asked}{answer.details()}. It may be revoked, "
                "mistyped, or of a deleted instance; take a valid one from Clerk's dashboard, API keys."
            )
            raise ClerkRefused(message)
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            answer.reject("a redirect, which is never followed; is spec.clerk.apiUrl right")


@asynccontextmanager
async def open_transport(
    secret_key: str, base_url: str, limiter: Limiter, patience: Patience
) -> AsyncGenerator[Transport, None]:
    """Open a session for the key, and close it with all its connections at the end."""
    timeout = aiohttp.ClientTimeout(
        total=patience.total.total_seconds(),
        sock_connect=patience.connect.total_seconds(),
        sock_read=patience.read.total_seconds(),
    )
    async with aiohttp.ClientSession(
        headers={
            hdrs.AUTHORIZATION: f"Bearer {secret_key}",
            hdrs.ACCEPT: "application/json",
            hdrs.ACCEPT_ENCODING: "gzip",
            "Clerk-API-Version": API_VERSION,
        },
        timeout=timeout,
        connector=aiohttp.TCPConnector(limit=_MAX_CONNECTIONS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        middlewares=(_ask_once,),
    ) as session:
        yield Transport(session, URL(base_url), limiter, patience)


class _ConnectionLost(Exception):
    """The connection ended before the answer; why stands in `__cause__`."""


async def _ask_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a request again by itself, past the limiter, when a kept connection is lost."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _ConnectionLost from error


async def _read(request: Request, response: aiohttp.ClientResponse) -> Answer:
    """Read the body in pieces, so that neither a large one nor a zip bomb is ever whole in memory."""
    ray = response.headers.get("CF-Ray")
    unread = Answer(request.asked, response.status, b"", ray)
    encoding = response.headers.get(hdrs.CONTENT_ENCODING, "identity").lower()
    if encoding not in {"gzip", "identity"}:
        unread.reject("the body is in an encoding that was not asked for")
    gzip = zlib.decompressobj(wbits=_GZIP) if encoding == "gzip" else None
    body = bytearray()
    received = 0
    async for chunk in response.content.iter_chunked(_CHUNK):
        received += len(chunk)
        body += chunk if gzip is None else gzip.decompress(chunk, MAX_BODY + 1 - len(body))
        if max(received, len(body)) > MAX_BODY:
            unread.reject(f"the body is larger than {MAX_BODY} bytes")
    if gzip is not None and not gzip.eof:
        message = "the compressed body ends early"
        raise zlib.error(message)
    return Answer(request.asked, response.status, bytes(body), ray, _date(response.headers.get(hdrs.DATE)))


def _date(text: str | None) -> datetime | None:
    """Read the `Date` of an answer, which shows Clerk's clock in whole seconds."""
    try:
        date = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return date if date.tzinfo else None


def _seconds(retry_after: str | None) -> timedelta | None:
    """Read `Retry-After` as Clerk writes it, in whole seconds; anything else is as good as none."""
    text = (retry_after or "").strip()
    if not (text.isascii() and text.isdigit()):
        return None
    return timedelta(seconds=min(int(text[:9]), _A_DAY))
