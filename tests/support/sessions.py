"""Session tokens of emulated instances, and what verifies them; keys are made once, as that takes a while."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import aiohttp

from controller.core.leaving import SigningKey
from controller.core.targets import AccountDeletion
from controller.emulator.sessions import Sessions
from tests.support.fakes.directory import INSTANCE
from tests.support.webhooks import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ORIGIN = "https://app.example.com"
OTHER_ORIGIN = "https://other.example.com"
OTHER_INSTANCE = "ins_2AnotherInstance"


@cache
def sessions(instance_id: str = INSTANCE.id, number: int = 0) -> Sessions:
    """The sessions of an instance; another `number` has another key."""
    del number
    return Sessions(instance_id)


def keys_of(*given: Sessions) -> Sequence[SigningKey]:
    """What Clerk's key sets say of them."""
    keys = []
    for each in given:
        numbers = each.public_key.public_numbers()
        keys.append(SigningKey(each.key_set()["keys"][0]["kid"], numbers.n, numbers.e))
    return keys


def token(user_id: str, origin: str = ORIGIN, **claims: Any) -> str:
    """A token of the instance of the fakes."""
    return sessions().token(user_id, origin, **claims)


def bearer(token_text: str) -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"Bearer {token_text}"}


PATH = "/api/user/delete"
TERMS = AccountDeletion(enabled=True, authorized_parties=(ORIGIN, OTHER_ORIGIN))


async def ask(
    url: str, headers: Mapping[str, str] | None = None, *, method: str = "DELETE", query: str = "", body: bytes = b""
) -> Answer:
    """Ask for a deletion as a front-end does, or as it should not."""
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.request(method, f"{url}{PATH}{query}", headers=headers, data=body or None) as response,
    ):
        is_json = response.content_type == "application/json"
        return Answer(response.status, response.headers, await response.json() if is_json else await response.text())
