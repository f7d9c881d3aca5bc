"""Clerk as the histories have it: the truth, and every lie that usersync promises to survive.

One lie is left out: a 404 `resource_not_found` for a living user, asked by id with the right key. That answer is the
proof; nothing can protect from it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from controller.core.users import Environment, Instance, ListedUser, Presence, UserId
from controller.errors import ClerkAnswerOdd, ClerkRefused, ClerkUnavailable, ListingIncomplete
from tests.simulation.connections import ACTOR
from tests.simulation.crashes import Fate, Killed
from tests.simulation.loop import START
from tests.support.fakes.unmapped import Unmapped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from controller.core.leaving import SigningKey
    from controller.errors import UserSyncError
    from tests.simulation.crashes import Process
    from tests.simulation.evidence import Evidence
    from tests.simulation.turns import Turns

INSTANCE = Instance("ins_simulated", Environment.PRODUCTION)
OTHER_INSTANCE = Instance("ins_another", Environment.PRODUCTION)
STRANGER = UserId("user_2Stranger")
"""A user of the other instance."""
PAGE = 3


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
    SLOW = "takes its time"
    VERY_SLOW = "takes longer than a proof is good for"


ANSWER_SECONDS: dict[Lie | None, float] = {Lie.SLOW: 70.0, Lie.VERY_SLOW: 320.0}
QUICK_SECONDS = 0.05


@dataclass
class Clerk:
    """Who lives, since when, and what lie is told."""

    users: dict[UserId, datetime] = field(default_factory=dict)
    gone_at: dict[UserId, float] = field(default_factory=dict)
    lie: Lie | None = None
    about: frozenset[UserId] = frozenset()

    def hides(self, user_id: UserId, *lies: Lie) -> bool:
        return self.lie in lies and user_id in self.about

    def knows(self, user_id: UserId) -> bool:
        """Whether it answers as if the user lived."""
        return user_id in self.users or (user_id in self.gone_at and self.hides(user_id, Lie.GHOSTS))


@dataclass
class LyingDirectory(Unmapped):
    """A `Directory` with one key; it is of the other instance if it was opened while the key was exchanged."""

    clerk: Clerk
    process: Process
    turns: Turns
    evidence: Evidence
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
        raise NotImplementedError

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
            return [] if after else [ListedUser(STRANGER, START)]
        known = dict(self.clerk.users)
        if self.clerk.lie is Lie.GHOSTS:
            known |= {user_id: START - timedelta(days=50) for user_id in self.clerk.about & set(self.clerk.gone_at)}
        order = sorted((created_at, user_id) for user_id, created_at in known.items())
        return [ListedUser(user_id, at) for at, user_id in order if after is None or (at, user_id) > after][:PAGE]

    def _is_hidden(self, user_id: UserId) -> bool:
        if self.clerk.lie is Lie.EMPTY:
            return True
        return self.clerk.hides(user_id, Lie.HIDES_FROM_LISTING, Lie.HIDES_FROM_BOTH)

    async def find(self, user_ids: Sequence[UserId]) -> Mapping[UserId, datetime]:
        await self._answer()
        found = {
            user_id: self.clerk.users.get(user_id, START - timedelta(days=50))
            for user_id in user_ids
            if self.of is INSTANCE
            and self.clerk.knows(user_id)
            and not self.clerk.hides(user_id, Lie.HIDES_FROM_FILTER, Lie.HIDES_FROM_BOTH)
        }
        self.evidence.note_found(ACTOR.get(), found)
        return found

    async def look_up(self, user_id: UserId) -> Presence:
        asked_at = self.turns.loop.time()
        error: UserSyncError
        if self.clerk.lie is Lie.LOOK_UPS_FAIL:
            error = ClerkUnavailable("Clerk answered 500")
        else:
            error = ClerkAnswerOdd("Clerk answered 404 with a code that says nothing of users")
        await self._answer()
        if self.clerk.lie in {Lie.LOOK_UPS_FAIL, Lie.ODD_LOOK_UPS}:
            raise error
        absent = self.of is not INSTANCE or not self.clerk.knows(user_id)
        self.evidence.note_look_up(ACTOR.get(), user_id, asked_at, absent=absent)
        return Presence.ABSENT if absent else Presence.PRESENT

    async def _answer(self) -> None:
        armed = await self.turns.take(self.process)
        await asyncio.sleep(ANSWER_SECONDS.get(self.clerk.lie, QUICK_SECONDS))
        self.process.check()
        if armed is not None and armed.fate is Fate.KILL_AFTER:
            self.process.kill()
            raise Killed
        if armed is not None or self.clerk.lie is Lie.UNAVAILABLE:
            message = "Clerk does not answer"
            raise ClerkUnavailable(message, retry_after=timedelta(seconds=10))
        if self.clerk.lie is Lie.REFUSES:
            message = "Clerk answered 403"
            raise ClerkRefused(message)
