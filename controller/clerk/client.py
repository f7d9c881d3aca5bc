"""Clerk through one secret key: the `Directory` and the `Accounts` of the core.

Decides what each answer means for a user: present, absent, deleted, or neither (which raises). The one thing that it
ever changes in Clerk is that a user is deleted, through `Accounts`. Made by `controller.runtime`.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self

from controller.clerk.answers import (
    RESOURCE_NOT_FOUND,
    read_deleted,
    read_instance,
    read_signing_keys,
    read_total_count,
    read_user,
    read_users,
)
from controller.clerk.limiting import Limiter, requests_allowed
from controller.clerk.listing import DEFAULT_BREADTH, list_users
from controller.clerk.profiles import profile_reader
from controller.clerk.side_by_side import side_by_side
from controller.clerk.transport import Patience, Request, Transport, open_transport
from controller.core.users import Environment, Instance, ListedUser, Presence, UserId, parse_user_id
from controller.errors import ClerkAnswerOdd, ClerkRefused, InvalidSpec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from datetime import datetime

    from controller.clerk.answers import Answer
    from controller.clerk.profiles import ProfileReader
    from controller.core.leaving import SigningKey
    from controller.core.mapping import MappedColumn
    from controller.core.ports import Clock
    from controller.core.users import Profile

FILTER_IDS: Final = 100
"""How many `user_id` one request may name."""

FILTERS_AT_ONCE = 8

REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Answers to a deletion that asking again does not change; 401 and 403 are the transport's."""

_ENVIRONMENTS = {"sk_live_": Environment.PRODUCTION, "sk_test_": Environment.DEVELOPMENT}
_KEY = re.compile("sk_(live|test)_[!-~]+", re.ASCII)


class Clerk:
    """One instance, one session, one rate limiter; open it with `Clerk.open`."""

    def __init__(self, transport: Transport, environment: Environment, mapping: tuple[MappedColumn, ...] = ()) -> None:
        """`environment`: what the key says of the instance; `mapping`: what is to be read of users beside their ids."""
        self._transport = transport
        self._environment = environment
        self._reader = profile_reader(mapping) if mapping else None
        self._instance: Instance | None = None
        self._asking_instance = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(  # noqa: PLR0913 - two of them have a default that is right
        cls,
        secret_key: str,
        *,
        base_url: str,
        share: float,
        clock: Clock,
        mapping: tuple[MappedColumn, ...] = (),
        patience: Patience | None = None,
    ) -> AsyncGenerator[Self, None]:
        """Open a session, closed at the end.

        `base_url` is without `/v1`, and one that the key may be sent to (`settings.ClerkURLs.check`).
        `share` (0 < share <= 1) is the part of the instance's rate limit that this object may use.

        Raises:
            InvalidSpec: not a secret key of Clerk; it is never sent.
        """
        environment = _environment(secret_key)
        patience = Patience() if patience is None else patience
        limiter = Limiter(requests_allowed(environment, share), clock, patience=patience.longest_silence)
        async with open_transport(secret_key, base_url, limiter, patience) as transport:
            yield cls(transport, environment, mapping)

    async def instance(self) -> Instance:
        """Return the instance of the key, asked for once: a key cannot change its instance.

        Raises:
            ClerkAnswerOdd: no instance, or not of the environment that the key names.
        """
        async with self._asking_instance:
            if self._instance is None:
                self._instance = await self._ask_instance()
            return self._instance

    async def read_clock(self) -> datetime | None:
        """Return the time by Clerk's clock, cut to the second, of an answer asked for now; None if it has no date."""
        return (await self._transport.ask(Request("instance", "GET /v1/instance"))).date

    def list_users(self) -> AsyncGenerator[Sequence[ListedUser], None]:
        """Yield every user once, in pages; see `controller.clerk.listing`.

        Raises:
            ListingIncomplete: not complete, or not consistent.
        """
        return list_users(_Users(self._transport), DEFAULT_BREADTH, self._reader)

    async def find(self, user_ids: Sequence[UserId]) -> Mapping[UserId, datetime]:
        """Ask by the `user_id` filter who of `user_ids` exists, and since when.

        Raises:
            ClerkAnswerOdd: somebody is named who was not asked for, or twice.
        """
        return {user.id: user.created_at for user in await self._find(user_ids, None)}

    @property
    def maps(self) -> bool:
        """Whether columns are mapped."""
        return self._reader is not None

    async def profiles(self, user_ids: Sequence[UserId]) -> Sequence[Profile]:
        """Ask by the `user_id` filter what is mapped of those of `user_ids` who exist.

        Raises:
            ClerkAnswerOdd: somebody is named who was not asked for, or twice.
        """
        return [user.profile for user in await self._find(user_ids, self._reader) if user.profile is not None]

    async def _find(self, user_ids: Sequence[UserId], reader: ProfileReader | None) -> list[ListedUser]:
        asked = list(dict.fromkeys(user_ids))
        batches = [asked[start : start + FILTER_IDS] for start in range(0, len(asked), FILTER_IDS)]
        found: list[ListedUser] = []
        for start in range(0, len(batches), FILTERS_AT_ONCE):
            answers = await side_by_side(
                self._filter(batch, reader) for batch in batches[start : start + FILTERS_AT_ONCE]
            )
            for users in answers:
                found += users
        return found

    async def look_up(self, user_id: UserId) -> Presence:
        """Ask for one user. Absent is 404 with `resource_not_found` and no other code.

        Raises:
            ClerkAnswerOdd: neither this user nor that 404.
        """
        return Presence.ABSENT if await self._ask_user(user_id, None) is None else Presence.PRESENT

    async def profile(self, user_id: UserId) -> Profile | None:
        """Ask for what is mapped of one user; None where he is absent, as `look_up` says it.

        Raises:
            ClerkAnswerOdd: neither this user nor that 404.
        """
        user = await self._ask_user(user_id, self._reader)
        return None if user is None else user.profile

    async def _ask_user(self, user_id: UserId, reader: ProfileReader | None) -> ListedUser | None:
        if parse_user_id(user_id) is None:
            # `count` would be another endpoint, and its answer no user.
            message = "only an id of Clerk's form can be looked up"
            raise ValueError(message)
        answer = await self._transport.ask(Request(f"users/{user_id}", "GET /v1/users/{id}"))
        if _is_missing(answer):
            return None
        user = read_user(answer, reader)
        if user.id != user_id:
            answer.reject("it is another user than the one asked for")
        return user

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return the keys that the instance's session tokens are signed with at present.

        Raises:
            ClerkAnswerOdd: it is no set of keys.
        """
        return read_signing_keys(await self._transport.ask(Request("jwks", "GET /v1/jwks")))

    async def delete_user(self, user_id: UserId) -> None:
        """Delete a user; one who is gone already is deleted.

        Raises:
            ClerkRefused: 400, 401, 403, 409 or 422: Clerk will not, however often it is asked.
            ClerkAnswerOdd: neither that nor this user deleted nor missing.
        """
        if parse_user_id(user_id) is None:
            # `DELETE /v1/users/` and more would be another endpoint.
            message = "only an id of Clerk's form can be deleted"
            raise ValueError(message)
        request = Request(f"users/{user_id}", "DELETE /v1/users/{id}", method="DELETE")
        answer = await self._transport.ask(request)
        if _is_missing(answer):
            return
        if answer.status in REFUSALS:
            message = (
                f"Clerk refuses to delete the user: {answer.status} on {answer.asked}{answer.details()}. Look the user "
                "up in Clerk's dashboard, which says what stands in the way."
            )
            raise ClerkRefused(message)
        if read_deleted(answer) not in {None, user_id}:
            answer.reject("it is another user than the one that was to be deleted")

    async def _ask_instance(self) -> Instance:
        answer = await self._transport.ask(Request("instance", "GET /v1/instance"))
        instance = read_instance(answer)
        if instance.environment is not self._environment:
            message = (
                f"Clerk says that {instance.id} is a {instance.environment.value} instance, but the secret key is one "
                f"for {self._environment.value}{answer.details()}. Take a fresh key from Clerk's dashboard, API keys."
            )
            raise ClerkAnswerOdd(message)
        return instance

    async def _filter(self, user_ids: Sequence[UserId], reader: ProfileReader | None) -> list[ListedUser]:
        # Without `limit` Clerk returns ten of a hundred, and ninety living users look gone.
        parameters = (("limit", str(FILTER_IDS)), *(("user_id", user_id) for user_id in user_ids))
        answer = await self._transport.ask(Request("users", "GET /v1/users?user_id", parameters))
        users = read_users(answer, reader)
        named = {user.id for user in users}
        if len(named) < len(users) or not named <= set(user_ids):
            answer.reject("it names a user twice, or one who was not asked for")
        return users


class _Users:
    """The two endpoints that a listing needs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def page(self, parameters: tuple[tuple[str, str], ...]) -> Answer:
        return await self._transport.ask(Request("users", "GET /v1/users", parameters))

    async def count(self, parameters: tuple[tuple[str, str], ...]) -> int:
        answer = await self._transport.ask(Request("users/count", "GET /v1/users/count", parameters))
        return read_total_count(answer)


def _is_missing(answer: Answer) -> bool:
    """Whether the user asked for is not there.

    Raises:
        ClerkAnswerOdd: a 404 that says something else.
    """
    if answer.status != HTTPStatus.NOT_FOUND:
        return False
    if set(answer.codes()) != {RESOURCE_NOT_FOUND}:
        answer.reject(f"a 404 that does not say {RESOURCE_NOT_FOUND} proves nothing")
    return True


def _environment(secret_key: str) -> Environment:
    if not _KEY.fullmatch(secret_key):
        message = (
            "The Clerk secret key is not of the form sk_live_... or sk_test_... (or holds a space or line break); "
            "it was not sent. Take it from the API keys page of Clerk's dashboard."
        )
        raise InvalidSpec(message)
    return next(environment for prefix, environment in _ENVIRONMENTS.items() if secret_key.startswith(prefix))
