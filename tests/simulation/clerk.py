"""Clerk as the histories have it: the truth, and every lie that usersync promises to survive.

One lie is left out: a 404 `resource_not_found` for a living user, asked by id with the right key. That answer is the
proof; nothing can protect from it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from controller.core.mapping import Field, MappedColumn
from controller.core.users import Environment, Instance, ListedUser, Presence, Profile, UserId
from controller.errors import ClerkAnswerOdd, ClerkRefused, ClerkUnavailable, ListingIncomplete
from tests.simulation.connections import ACTOR
from tests.simulation.crashes import Fate, Killed
from tests.simulation.loop import START

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from controller.core.leaving import SigningKey
    from controller.errors import UserSyncError
    from tests.simulation.crashes import Armed, Process
    from tests.simulation.evidence import Evidence
    from tests.simulation.turns import Turns

INSTANCE = Instance("ins_simulated", Environment.PRODUCTION)
OTHER_INSTANCE = Instance("ins_another", Environment.PRODUCTION)
STRANGER = UserId("user_2Stranger")
"""A user of the other instance."""
PAGE = 3
MAPPING = (
    MappedColumn("first_name", Field(("firstName",))),
    MappedColumn("email", Field(("primaryEmailAddress",))),
)
START_MILLISECONDS = int(START.timestamp()) * 1000


class Lie(Enum):
    """How Clerk lies until the next lie."""

    EMPTY = "lists nobody"
    HIDES_FROM_LISTING = "the listing leaves some out"
    HIDES_FROM_FILTER = "the filter leaves some out"
    HIDES_FROM_BOTH = "listing and filter leave some out"
    BREAKS_OFF = "the listing breaks off with an error"
    CONTRADICTS_ITSELF = "the listing has somebody twice, and is refused by our client"
    REPEATS = "the listing has somebody twice, and nobody notices"
    GHOSTS = "still knows who is gone"
    UNAVAILABLE = "answers nothing: 500, 429, timeouts"
    ODD_LOOK_UPS = "answers look-ups oddly: a 404 of another code, a body of another user"
    LOOK_UPS_FAIL = "answers look-ups with 500"
    REFUSES = "refuses the key"
    OTHER_INSTANCE = "is another instance, as the key was exchanged"
    KEEPS = "refuses to delete anybody"
    KEEPS_SECRETLY = "says that it has deleted whom it keeps"
    SLOW = "takes its time"
    VERY_SLOW = "takes longer than a proof is good for"


ANSWER_SECONDS: dict[Lie | None, float] = {Lie.SLOW: 70.0, Lie.VERY_SLOW: 320.0}
QUICK_SECONDS = 0.05


@dataclass
class Clerk:
    """Who lives, since when, and what lie is told; `versions`: each as he was after each edit, the gone too."""

    users: dict[UserId, datetime] = field(default_factory=dict)
    gone_at: dict[UserId, float] = field(default_factory=dict)
    versions: dict[UserId, list[Profile]] = field(default_factory=dict)
    on_deletion: Callable[[UserId], Any] = field(default=lambda _: None)
    lie: Lie | None = None
    about: frozenset[UserId] = frozenset()

    def edit(self, user_id: UserId, now: float, *, mapped: bool = True, same_millisecond: bool = False) -> Profile:
        """Make a user's next version, at so many seconds after the start; the first one too."""
        before = self.versions.setdefault(user_id, [])
        at = START_MILLISECONDS + int(now * 1000)
        if before:
            at = before[-1].updated_at if same_millisecond else max(at, before[-1].updated_at + 1)
        number = len(before) + 1
        # Who has no e-mail address has NULL.
        values = (f"Name {number}", f"{number}@example.org" if number % 3 else None)
        before.append(Profile(user_id, at, before[-1].values if before and not mapped else values))
        return before[-1]

    def delete(self, user_id: UserId, now: float) -> None:
        """Delete a user, and send the message of it."""
        del self.users[user_id]
        self.gone_at[user_id] = now
        self.on_deletion(user_id)

    def hides(self, user_id: UserId, *lies: Lie) -> bool:
        return self.lie in lies and user_id in self.about

    def knows(self, user_id: UserId) -> bool:
        """Whether it answers as if the user lived."""
        return user_id in self.users or (user_id in self.gone_at and self.hides(user_id, Lie.GHOSTS))


@dataclass
class LyingDirectory:
    """A `Directory` with one key; it is of the other instance if it was opened while the key was exchanged."""

    clerk: Clerk
    process: Process
    turns: Turns
    evidence: Evidence
    maps: bool = False
    of: Instance = INSTANCE

    def __post_init__(self) -> None:
        """Read the key."""
        if self.clerk.lie is Lie.OTHER_INSTANCE:
            self.of = OTHER_INSTANCE

    async def instance(self) -> Instance:
        return self.of

    async def signing_keys(self) -> Sequence[SigningKey]:
        raise NotImplementedError

    async def delete_user(self, user_id: UserId) -> None:
        lie = self.clerk.lie
        try:
            armed = await self._reach()
            if lie is Lie.KEEPS:
                message = "Clerk answered 403: this user cannot be deleted"
                raise ClerkRefused(message)  # noqa: TRY301 - refused as all else may be
        except ClerkRefused:
            self.evidence.refused.setdefault(user_id, self.turns.loop.time())
            raise
        if self.of is INSTANCE and user_id in self.clerk.users and lie is not Lie.KEEPS_SECRETLY:
            self.clerk.delete(user_id, self.turns.loop.time())
        self._answer_reaches_us(armed)

    async def list_users(self) -> AsyncGenerator[Sequence[ListedUser], None]:
        listing = self.evidence.begin_listing(ACTOR.get())
        after: tuple[datetime, UserId] | None = None
        pages = 0
        while True:
            await self._answer()
            page = self._page(after)
            if pages >= 1 and self.clerk.lie is Lie.BREAKS_OFF:
                message = "Clerk broke off in the middle of the listing"
                raise ClerkUnavailable(message)
            if pages >= 1 and self.clerk.lie is Lie.CONTRADICTS_ITSELF:
                message = "the listing has a user twice"
                raise ListingIncomplete(message)
            if not page:
                return
            pages += 1
            after = (page[-1].created_at, page[-1].id)
            shown = [user for user in page if not self._is_hidden(user.id)]
            if self.clerk.lie is Lie.REPEATS:
                shown += shown[:1]
            listing.users |= {user.id for user in shown}
            yield shown

    def _page(self, after: tuple[datetime, UserId] | None) -> list[ListedUser]:
        if self.of is OTHER_INSTANCE:
            profile = Profile(STRANGER, START_MILLISECONDS, ("Stranger", None)) if self.maps else None
            return [] if after else [ListedUser(STRANGER, START, profile)]
        known = dict(self.clerk.users)
        if self.clerk.lie is Lie.GHOSTS:
            known |= {user_id: START - timedelta(days=50) for user_id in self.clerk.about & set(self.clerk.gone_at)}
        order = sorted((created_at, user_id) for user_id, created_at in known.items())
        rest = [(at, user_id) for at, user_id in order if after is None or (at, user_id) > after]
        return [ListedUser(user_id, at, self._latest(user_id)) for at, user_id in rest[:PAGE]]

    def _latest(self, user_id: UserId) -> Profile | None:
        return self.clerk.versions[user_id][-1] if self.maps else None

    def _is_hidden(self, user_id: UserId) -> bool:
        if self.clerk.lie is Lie.EMPTY:
            return True
        return self.clerk.hides(user_id, Lie.HIDES_FROM_LISTING, Lie.HIDES_FROM_BOTH)

    async def find(self, user_ids: Sequence[UserId]) -> Mapping[UserId, datetime]:
        await self._answer()
        found = {
            user_id: self.clerk.users.get(user_id, START - timedelta(days=50)) for user_id in self._filtered(user_ids)
        }
        self.evidence.note_found(ACTOR.get(), found)
        return found

    async def profiles(self, user_ids: Sequence[UserId]) -> Sequence[Profile]:
        await self._answer()
        return [self.clerk.versions[user_id][-1] for user_id in self._filtered(user_ids)]

    def _filtered(self, user_ids: Sequence[UserId]) -> list[UserId]:
        return [
            user_id
            for user_id in user_ids
            if self.of is INSTANCE
            and self.clerk.knows(user_id)
            and not self.clerk.hides(user_id, Lie.HIDES_FROM_FILTER, Lie.HIDES_FROM_BOTH)
        ]

    async def look_up(self, user_id: UserId) -> Presence:
        asked_at = self.turns.loop.time()
        absent = await self._is_absent(user_id)
        self.evidence.note_look_up(ACTOR.get(), user_id, asked_at, absent=absent)
        return Presence.ABSENT if absent else Presence.PRESENT

    async def profile(self, user_id: UserId) -> Profile | None:
        return None if await self._is_absent(user_id) else self.clerk.versions[user_id][-1]

    async def _is_absent(self, user_id: UserId) -> bool:
        error: UserSyncError
        if self.clerk.lie is Lie.LOOK_UPS_FAIL:
            error = ClerkUnavailable("Clerk answered 500")
        else:
            error = ClerkAnswerOdd("Clerk answered 404 with a code that says nothing of users")
        await self._answer()
        if self.clerk.lie in {Lie.LOOK_UPS_FAIL, Lie.ODD_LOOK_UPS}:
            raise error
        return self.of is not INSTANCE or not self.clerk.knows(user_id)

    async def _answer(self) -> None:
        self._answer_reaches_us(await self._reach())

    async def _reach(self) -> Armed | None:
        """Wait until Clerk has what it was asked; what it does then may have its effect before its answer is lost."""
        armed = await self.turns.take(self.process)
        await asyncio.sleep(ANSWER_SECONDS.get(self.clerk.lie, QUICK_SECONDS))
        self.process.check()
        if self.clerk.lie is Lie.UNAVAILABLE or (armed is not None and armed.fate is Fate.DROP_BEFORE):
            raise _away()
        if self.clerk.lie is Lie.REFUSES:
            message = "Clerk answered 403"
            raise ClerkRefused(message)
        return armed

    def _answer_reaches_us(self, armed: Armed | None) -> None:
        if armed is not None and armed.fate is Fate.KILL_AFTER:
            self.process.kill()
            raise Killed
        if armed is not None:
            raise _away()


def _away() -> ClerkUnavailable:
    message = "Clerk does not answer"
    return ClerkUnavailable(message, retry_after=timedelta(seconds=10))
