"""Lists every user of an instance once, in several windows of `created_at` side by side.

Decides how the listing is parted, and whether it was complete and consistent; anything that contradicts
itself ends it with `ListingIncomplete`. It knows no HTTP: a `Source` answers. Used by `client`.

- **No offsets.** A deletion during an offset listing shifts a living user out of it, and the counts still
  agree. Each window is one chain of cursors, oldest first.
- **Windows** meet at whole seconds. Whether Clerk's bounds include their own millisecond is not written
  anywhere, so each window asks from one millisecond earlier and keeps what is its own: nobody at a bound is
  lost or listed twice, whatever the bounds mean, and no id need be remembered. The outermost bounds are open.
- **Duplicates within a chain.** Users come in order of `created_at`, which is checked over all pages; so the
  same user again is of the same millisecond, and only the ids of the latest one are remembered. Who is moved to
  another millisecond meanwhile (Clerk lets an application set `created_at`) may come twice: no harm.
- **A cursor whose user was deleted meanwhile** may be refused: the chain then goes on from its latest millisecond.
  Should Clerk answer it with an empty page instead, the counts show that the rest is missing.
- **Ahead of the consumer** each window runs by one page, and no further.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from controller.clerk.answers import milliseconds, read_users
from controller.clerk.side_by_side import side_by_side
from controller.errors import ClerkAnswerOdd, ListingIncomplete

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

    from controller.clerk.answers import Answer
    from controller.clerk.profiles import ProfileReader
    from controller.core.users import ListedUser, UserId

PAGE: Final = 500
"""Clerk's largest page. A larger limit is no error there: it is answered with ten users."""

QUESTIONS_PER_WINDOW = 4
"""Bounds the counts that the search for window bounds may cost where users signed up very unevenly."""

TOLERATED_IN = 10_000
"""One user in so many may be missing against both counts: listed count and counts can only differ rightly
where users came and went during the listing, which takes seconds to minutes. It is less than one page up to
five million users, so no lost page hides in it, and nothing for fewer than 10,000 users."""

_MILLISECOND = timedelta(milliseconds=1)
_CURSOR_REFUSED = frozenset({400, 404, 422})

Parameters = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Breadth:
    """How far a listing is parted.

    - `window_users`: up to so many users, one chain is fast enough, and asking where to part it would cost more
      than it saves.
    - `chains` at once: with answers in 300 ms still more than half of a production instance's limit.
    - `windows_per_chain`: several, so that no chain is left alone with a long last window.
    """

    window_users: int = 16 * PAGE
    chains: int = 16
    windows_per_chain: int = 3

    def window_size(self, users: int) -> int:
        """Return how many of `users` a window should hold."""
        return max(self.window_users, math.ceil(users / (self.chains * self.windows_per_chain)))


DEFAULT_BREADTH = Breadth()


class Source(Protocol):
    """`GET /users` and `GET /users/count`."""

    async def page(self, parameters: Parameters) -> Answer:
        """Answer a listing."""

    async def count(self, parameters: Parameters) -> int:
        """Answer how many users there are."""


@dataclass(frozen=True, slots=True)
class Window:
    """Users created from `start` on and before `end`; None is open."""

    start: datetime | None = None
    end: datetime | None = None

    def parameters(self) -> Parameters:
        """Return filters that let through everybody in the window, and at most a neighbour at the bound."""
        parameters: Parameters = ()
        if self.start is not None:
            parameters += (("created_at_after", str(milliseconds(self.start - _MILLISECOND))),)
        if self.end is not None:
            parameters += (("created_at_before", str(milliseconds(self.end))),)
        return parameters

    def owns(self, moment: datetime) -> bool:
        """Whether a user created then is this window's to list."""
        return (self.start is None or self.start <= moment) and (self.end is None or moment < self.end)

    def admits(self, moment: datetime) -> bool:
        """Whether a user created then may be among the answers to `parameters`."""
        early = self.start is not None and moment < self.start - _MILLISECOND
        late = self.end is not None and moment > self.end
        return not (early or late)


class Chain:
    """The pages of one window, checked; `finished` once the last one is in."""

    def __init__(self, source: Source, window: Window, reader: ProfileReader | None = None) -> None:
        """Nothing is asked yet. `reader`: of what is mapped."""
        self.finished = False
        self._source = source
        self._reader = reader
        self._window = window
        self._filters = window.parameters()
        self._cursor: UserId | None = None
        self._latest: datetime | None = None
        self._ids_of_latest: set[UserId] = set()
        self._rewound_to: datetime | None = None
        self._repeating = False

    async def next_page(self) -> list[ListedUser]:
        """Ask for the next page; return the users of it that this window owns.

        Raises:
            ListingIncomplete: the page contradicts the ones before, or Clerk's promises.
            ClerkAnswerOdd: it is no list of users.
        """
        answer = await self._source.page(self._parameters())
        if self._cursor is not None and answer.status in _CURSOR_REFUSED:
            self._rewind(answer)
            answer = await self._source.page(self._parameters())
        users = read_users(answer, self._reader)
        if len(users) > PAGE:
            _reject(f"a page holds {len(users)} users, and {PAGE} were asked for")
        kept = [user for user in users if self._is_new(user) and self._window.owns(user.created_at)]
        self.finished = len(users) < PAGE
        if users:
            self._cursor = users[-1].id
        return kept

    def _parameters(self) -> Parameters:
        # Without a sign, `created_at` means ascending; a plus would have to survive as %2B.
        parameters = (("limit", str(PAGE)), ("order_by", "created_at"), *self._filters)
        return parameters if self._cursor is None else (*parameters, ("starting_after", self._cursor))

    def _rewind(self, answer: Answer) -> None:
        """Go on from the latest millisecond: the user at the cursor may have been deleted meanwhile.

        What Clerk does with such a cursor is not written anywhere; a refusal is one of the things it may do.
        """
        if self._latest == self._rewound_to or self._latest is None:
            _reject(f"it cannot be continued ({answer.status}{answer.details()})")
        self._filters = Window(self._latest, self._window.end).parameters()
        self._cursor = None
        self._rewound_to = self._latest
        self._repeating = True

    def _is_new(self, user: ListedUser) -> bool:
        """Check a user's place; False for one who is repeated because of a rewind."""
        if self._repeats_the_millisecond_before(user):
            return False
        if user.created_at != self._latest:
            self._move_on(user.created_at)
        if user.id not in self._ids_of_latest:
            self._ids_of_latest.add(user.id)
            return True
        if not self._repeating:
            _reject("a user stands on it twice")
        return False

    def _repeats_the_millisecond_before(self, user: ListedUser) -> bool:
        # A rewound chain asks from there on, and Clerk's bound may include it.
        return self._repeating and self._latest is not None and user.created_at == self._latest - _MILLISECOND

    def _move_on(self, moment: datetime) -> None:
        if self._latest is not None and moment < self._latest:
            _reject("its users are not in the order asked for")
        if not self._window.admits(moment):
            _reject("it names a user created outside of the window asked for")
        self._latest = moment
        self._ids_of_latest = set()
        self._repeating = False


async def list_users(
    source: Source, breadth: Breadth = DEFAULT_BREADTH, reader: ProfileReader | None = None
) -> AsyncGenerator[list[ListedUser], None]:
    """Yield every user once, in pages, in no particular order; close it to end the requests under way.

    With a `reader` each user has what is mapped of him.

    Raises:
        ListingIncomplete: the listing contradicts itself, Clerk's counts, or the description of the API.
    """
    try:
        before = await source.count(())
        windows = await part(source, before, breadth)
        listed = 0
        chains = [Chain(source, window, reader) for window in windows]
        async with aclosing(_interleave(chains, breadth.chains)) as pages:
            async for page in pages:
                listed += len(page)
                yield page
        check_counts(listed, before, await source.count(()))
    except ClerkAnswerOdd as odd:
        _reject(str(odd), odd)


async def part(source: Source, users: int, breadth: Breadth = DEFAULT_BREADTH) -> list[Window]:
    """Return windows that together cover all time, of about equally many of the `users`.

    Raises:
        ClerkAnswerOdd, ListingIncomplete: a question on the way is answered oddly.
    """
    if users <= breadth.window_users:
        return [Window()]
    oldest, newest = await side_by_side([_first_by(source, "created_at"), _first_by(source, "-created_at")])
    if oldest is None or newest is None:
        return [Window()]
    search = _Search(source, breadth.window_size(users), users)
    inner = await search.bounds(_Count(oldest, 0), _Count(newest + _MILLISECOND, users))
    bounds = [None, *inner, None]
    return [Window(start, end) for start, end in pairwise(bounds)]


def check_counts(listed: int, before: int, after: int) -> None:
    """Hold a finished listing against Clerk's counts from before and after it.

    They do not prove it complete. They show one that ended early because a limit was lowered, a page was cut
    short, or a cursor led nowhere. More users than counted do no harm: nobody is deleted for being listed.

    Raises:
        ListingIncomplete: it misses more than can have come and gone meanwhile.
    """
    least = min(before, after)
    if listed < least - least // TOLERATED_IN:
        _reject(f"it ended after {listed} of {least} users")


@dataclass(frozen=True, slots=True)
class _Count:
    """`users` were created before `moment`."""

    moment: datetime
    users: int


class _Search:
    """Looks for moments that part the users into windows of about `size`."""

    def __init__(self, source: Source, size: int, users: int) -> None:
        self._source = source
        self._size = size
        self._questions = QUESTIONS_PER_WINDOW * math.ceil(users / size)

    async def bounds(self, low: _Count, high: _Count) -> list[datetime]:
        """Return the bounds between two moments, in order.

        Each guess is where the bound would be if users had signed up evenly; the counts on its sides
        then correct it.
        """
        windows = math.ceil((high.users - low.users) / self._size)
        if windows <= 1 or self._questions <= 0:
            return []
        guess = low.moment + (high.moment - low.moment) * (windows // 2 / windows)
        middle = guess.replace(microsecond=0)
        if not low.moment < middle < high.moment:
            return []
        self._questions -= 1
        found = _Count(middle, await self._source.count((("created_at_before", str(milliseconds(middle))),)))
        if not low.users < found.users < high.users:
            # Nobody on one side: the bound would make an empty window.
            return await (self.bounds(found, high) if found.users <= low.users else self.bounds(low, found))
        early, late = await side_by_side([self.bounds(low, found), self.bounds(found, high)])
        return [*early, middle, *late]


async def _first_by(source: Source, order: str) -> datetime | None:
    users = read_users(await source.page((("limit", "1"), ("order_by", order))))
    return users[0].created_at if users else None


async def _interleave(chains: Iterable[Chain], at_once: int) -> AsyncGenerator[list[ListedUser], None]:
    """Yield the pages of all chains as they come, `at_once` of them under way at once."""
    waiting: Iterator[Chain] = iter(chains)
    under_way = {asyncio.create_task(chain.next_page()): chain for chain in islice(waiting, at_once)}
    try:
        while under_way:
            done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                page = task.result()
                chain = under_way.pop(task)
                following = next(waiting, None) if chain.finished else chain
                if following is not None:
                    under_way[asyncio.create_task(following.next_page())] = following
                if page:
                    yield page
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


def _reject(why: str, cause: Exception | None = None) -> NoReturn:
    message = f"Clerk's listing of users is not whole: {why.removesuffix('.')}. Nobody is deleted on it."
    raise ListingIncomplete(message) from cause
