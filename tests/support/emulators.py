"""Asks an emulator of Clerk in process, as a test of the emulator itself does.

`Caller` holds every answer that it gets to Clerk's description, unless told not to.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support.clerk_openapi import hold_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from controller.emulator import ClerkEmulator


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `content` is the decoded JSON, `text` whatever it was."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def content(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The code of the first error."""
        code: str = self.content["errors"][0]["code"]
        return code


class Caller:
    """A client of the emulator that retries nothing and hides nothing."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def get(
        self,
        path: str,
        parameters: Mapping[str, str | int] | Sequence[tuple[str, str]] = (),
        *,
        headers: Mapping[str, str] | None = None,
        held: bool = True,
    ) -> Answer:
        """`path` without /v1; `held` False: the answer is not of Clerk's form, and meant so."""
        return await self._ask("GET", path, parameters, headers, held=held)

    async def delete(self, path: str, *, held: bool = True) -> Answer:
        return await self._ask("DELETE", path, (), None, held=held)

    async def ids(self, parameters: Mapping[str, str | int] | Sequence[tuple[str, str]] = ()) -> list[str]:
        """Return the ids of one page."""
        answer = await self.get("/users", parameters)
        assert answer.status == 200, answer.text
        return [user["id"] for user in answer.content]

    async def _ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str | int] | Sequence[tuple[str, str]],
        headers: Mapping[str, str] | None,
        *,
        held: bool,
    ) -> Answer:
        async with self.session.request(method, f"/v1{path}", params=parameters, headers=headers) as response:
            answer = Answer(response.status, response.headers, await response.text())
        if held:
            hold_answer(method, _template(path), answer.status, answer.content)
        return answer


@asynccontextmanager
async def calling(emulator: ClerkEmulator, *, key: str | None = None, timeout: float = 10.0) -> AsyncIterator[Caller]:  # noqa: ASYNC109  of one request
    """Call the emulator with its own key, unless another is given; `timeout` in seconds for one request."""
    headers = {"Authorization": f"Bearer {emulator.secret_key if key is None else key}"}
    limit = aiohttp.ClientTimeout(total=timeout)
    async with aiohttp.ClientSession(emulator.url, headers=headers, timeout=limit) as session:
        yield Caller(session)


async def until(condition: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Wait until the condition holds.

    Raises:
        TimeoutError: it does not, within the bound.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  the emulator has no event for everything a test can wait for
            await asyncio.sleep(0.001)


def _template(path: str) -> str:
    if path.startswith("/users/") and path != "/users/count":
        return "/users/{user_id}"
    return path
