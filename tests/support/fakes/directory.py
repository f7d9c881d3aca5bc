"""Clerk in memory, with every lie that the core must survive.

Passes the contract tests of `tests.support.contracts.directory`, as the real client does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from controller.core.leaving import SigningKey
from controller.core.users import Environment, Instance, ListedUser, Presence, Profile, UserId
from controller.errors import ClerkAnswerOdd

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

    from controller.core.mapping import MappedColumn
    from controller.errors import UserSyncError

INSTANCE = Instance("ins_2TheInstanceOfTheTests", Environment.DEVELOPMENT)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


def user(number: int) -> UserId:
    """Return an id of Clerk's form; the ids of rising numbers rise in byte order."""
    return UserId(f"user_2{number:08d}")


@dataclass
class FakeDirectory:
    """One instance, and how it lies.

    - `users`: who lives, with `created_at`; change it at any time.
    - `mapping`: which columns are mapped; `edited`: `updated_at` in milliseconds and values of those who were edited.
    - `hidden_from_listing`, `hidden_from_filter`: living users whom `list_users`, `find` leave out.
    - `lying_look_up`: living users whom `look_up` calls absent; `odd_look_up`: it raises ClerkAnswerOdd.
    - `errors`: by the method's name, what it raises; the listing raises it after `pages_before_error` pages.
    - `before`: called with the method's name before each answer, for what happens meanwhile.
    - `turns_of_a_look_up`: how often the event loop goes round before its answer; `look_ups_under_way` now.
    - `open_listings`: how many listings have neither ended nor been closed.
    - `keys`: what session tokens are signed with.
    - `calls`: how often each method was asked; `asked`: all ids given to `find`, `look_up` and `profiles`.
    """

    users: dict[UserId, datetime] = field(default_factory=dict)
    of: Instance = INSTANCE
    keys: Sequence[SigningKey] = (SigningKey(INSTANCE.id, 0, 0),)
    page_size: int = 500
    hidden_from_listing: set[UserId] = field(default_factory=set)
    hidden_from_filter: set[UserId] = field(default_factory=set)
    lying_look_up: set[UserId] = field(default_factory=set)
    odd_look_up: set[UserId] = field(default_factory=set)
    errors: dict[str, UserSyncError] = field(default_factory=dict)
    pages_before_error: int = 0
    before: Callable[[str], None] = lambda _method: None
    open_listings: int = 0
    turns_of_a_look_up: int = 1
    look_ups_under_way: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    asked: dict[str, list[UserId]] = field(default_factory=lambda: {"find": [], "look_up": [], "profiles": []})
    mapping: tuple[MappedColumn, ...] = ()
    edited: dict[UserId, tuple[int, tuple[Any, ...]]] = field(default_factory=dict)

    def sign_up(self, *user_ids: UserId, created_at: datetime = LONG_AGO) -> None:
        """Let users sign up, a second apart."""
        for place, user_id in enumerate(user_ids):
            self.users[user_id] = created_at + timedelta(seconds=place)

    def delete(self, *user_ids: UserId) -> None:
        """Delete living users."""
        for user_id in user_ids:
            del self.users[user_id]

    def edit(self, user_id: UserId, updated_at: int, *values: Any) -> Profile:
        """Set what is mapped of a user; returns what an event about it tells."""
        self.edited[user_id] = (updated_at, values)
        return Profile(user_id, updated_at, values)

    @property
    def maps(self) -> bool:
        return bool(self.mapping)

    def profile_of(self, user_id: UserId) -> Profile | None:
        """What is mapped of a user; of one who was never edited, nothing but NULL."""
        if not self.mapping:
            return None
        updated_at, values = self.edited.get(user_id, (0, (None,) * len(self.mapping)))
        return Profile(user_id, updated_at, values)

    async def profiles(self, user_ids: Sequence[UserId]) -> Sequence[Profile]:
        self._answer("profiles", user_ids)
        found = [self.profile_of(user_id) for user_id in user_ids if user_id in self.users]
        return [profile for profile in found if profile is not None]

    async def profile(self, user_id: UserId) -> Profile | None:
        self._answer("profile", [user_id])
        if user_id in self.odd_look_up:
            message = "Clerk answered with another user than the one asked for"
            raise ClerkAnswerOdd(message)
        return self.profile_of(user_id) if user_id in self.users else None

    async def instance(self) -> Instance:
        self._answer("instance")
        return self.of

    async def signing_keys(self) -> Sequence[SigningKey]:
        self._answer("signing_keys")
        return self.keys

    async def delete_user(self, user_id: UserId) -> None:
        self._answer("delete_user")
        self.users.pop(user_id, None)

    async def list_users(self) -> AsyncGenerator[Sequence[ListedUser], None]:
        self.calls["list_users"] += 1
        self.before("list_users")
        listed = [
            ListedUser(user_id, created_at, self.profile_of(user_id))
            for user_id, created_at in sorted(self.users.items(), key=lambda each: (each[1], each[0]))
            if user_id not in self.hidden_from_listing
        ]
        error = self.errors.get("list_users")
        pages = [listed[start : start + self.page_size] for start in range(0, len(listed), self.page_size)]
        self.open_listings += 1
        try:
            for page in pages[: self.pages_before_error] if error else pages:
                yield page
        finally:
            self.open_listings -= 1
        if error is not None:
            raise error

    async def find(self, user_ids: Sequence[UserId]) -> Mapping[UserId, datetime]:
        self._answer("find", user_ids)
        return {
            user_id: self.users[user_id]
            for user_id in user_ids
            if user_id in self.users and user_id not in self.hidden_from_filter
        }

    async def look_up(self, user_id: UserId) -> Presence:
        self._answer("look_up", [user_id])
        self.look_ups_under_way += 1
        for _ in range(self.turns_of_a_look_up):
            await asyncio.sleep(0)
        self.look_ups_under_way -= 1
        if user_id in self.odd_look_up:
            message = "Clerk answered with another user than the one asked for"
            raise ClerkAnswerOdd(message)
        lives = user_id in self.users and user_id not in self.lying_look_up
        return Presence.PRESENT if lives else Presence.ABSENT

    def _answer(self, method: str, user_ids: Iterable[UserId] = ()) -> None:
        self.calls[method] += 1
        if method in self.asked:
            self.asked[method] += user_ids
        self.before(method)
        if method in self.errors:
            raise self.errors[method]
