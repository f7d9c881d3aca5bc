"""The ways in which an emulated Clerk can fail, switched on by a test or the demo.

Decides which faults a request meets; the HTTP API carries them out. The table is closed: a fault is a name
of `FaultName` and the parameters of `Fault`, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from controller.emulator.users import UserQuery


class Endpoint(StrEnum):
    """What a request asks; `FILTER` is `GET /users` with `user_id`."""

    LIST = "list"
    FILTER = "filter"
    COUNT = "count"
    LOOKUP = "lookup"
    DELETE = "delete"
    INSTANCE = "instance"
    JWKS = "jwks"


class FaultName(StrEnum):
    """Every fault there is; the second word tells what the client sees."""

    SERVER_ERROR = "server-error"
    """500, in Clerk's form."""
    FORBIDDEN = "forbidden"
    """403, in Clerk's form."""
    RATE_LIMITED = "rate-limited"
    """429; with `Retry-After: seconds` if `seconds` is set, else without the header."""
    OTHER_404 = "other-404"
    """404 in Clerk's form, with a code other than `resource_not_found`."""
    HTML_404 = "html-404"
    """404 with a page of HTML, as a proxy sends it."""
    HTML_PAGE = "html-page"
    """200 with a page of HTML."""
    SLOW = "slow"
    """The right answer, `seconds` late."""
    TIMEOUT = "timeout"
    """No answer at all, for as long as the client waits."""
    RESET = "reset"
    """The connection is reset before the answer."""
    TRUNCATED_BODY = "truncated-body"
    """Half of the body, then the end of the connection."""
    GARBAGE_GZIP = "garbage-gzip"
    """A body that says it is gzip, and is not."""
    EMPTY_LIST = "empty-list"
    """No users."""
    SHORT_PAGE = "short-page"
    """The first half of the page, as if it were the last page."""
    DUPLICATE_ID = "duplicate-id"
    """The page begins with the user whom the page before ended with; a first page, twice with its own."""
    ORDER_BREAK = "order-break"
    """First and last user of the page exchanged."""
    ODD_ID = "odd-id"
    """The first user of the page has an id that is not `user_...`."""
    HIDE_USERS = "hide-users"
    """The users `ids`, who live, are missing; in a look-up: 404 `resource_not_found`."""
    OTHER_INSTANCE = "other-instance"
    """`GET /instance` names another instance."""
    EMPTY_OBJECT = "empty-object"
    """200 with `{}`."""
    OTHER_USER = "other-user"
    """200 with the object of another user."""
    UNPROCESSABLE = "unprocessable"
    """422, in Clerk's form: the user cannot be deleted."""
    UNANSWERED = "unanswered"
    """What was asked is done, and no answer comes, for as long as the client waits."""
    LIST_INSTEAD = "list-instead"
    """200 with the right object, within a list."""


_USERS = frozenset({Endpoint.LIST, Endpoint.FILTER})
_BY_ID = frozenset({Endpoint.LOOKUP})
_DEFAULT_ENDPOINTS = {
    FaultName.EMPTY_LIST: _USERS,
    FaultName.SHORT_PAGE: _USERS,
    FaultName.DUPLICATE_ID: _USERS,
    FaultName.ORDER_BREAK: _USERS,
    FaultName.ODD_ID: _USERS,
    FaultName.HIDE_USERS: _USERS | _BY_ID | {Endpoint.COUNT},
    FaultName.OTHER_INSTANCE: frozenset({Endpoint.INSTANCE}),
    FaultName.EMPTY_OBJECT: _BY_ID,
    FaultName.OTHER_USER: _BY_ID,
    FaultName.LIST_INSTEAD: _BY_ID,
    FaultName.OTHER_404: _BY_ID,
    FaultName.HTML_404: _BY_ID,
    FaultName.UNPROCESSABLE: frozenset({Endpoint.DELETE}),
}
_EVERYWHERE = frozenset(Endpoint)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, and which requests meet it.

    `endpoint` None: every endpoint that the fault can befall. `page`: the first request to meet it, counted
    from 1 among the requests that it could befall since it was switched on. `times`: how many meet it, None
    for all that follow. `ids`: only requests that name one of these users; for `HIDE_USERS`, whom to hide.
    """

    name: FaultName
    endpoint: Endpoint | None = None
    page: int = 1
    times: int | None = None
    ids: frozenset[str] = frozenset()
    seconds: float | None = None

    def befalls(self, endpoint: Endpoint, named: Collection[str]) -> bool:
        """Whether a request to the endpoint, naming these users, is one to count."""
        if self.endpoint is not None:
            reached = endpoint is self.endpoint
        else:
            reached = endpoint in _DEFAULT_ENDPOINTS.get(self.name, _EVERYWHERE)
        if not reached or self.name is FaultName.HIDE_USERS:
            return reached
        return not self.ids or not self.ids.isdisjoint(named)


class Faults:
    """The faults that are switched on."""

    def __init__(self) -> None:
        """Start with none."""
        self._on: dict[int, Fault] = {}
        self._seen: dict[int, int] = {}
        self._last = 0

    @property
    def on(self) -> dict[int, Fault]:
        """The faults that are switched on, by the number that `switch_on` returned."""
        return dict(self._on)

    def switch_on(self, fault: Fault) -> int:
        """Switch a fault on; return the number that switches it off."""
        self._last += 1
        self._on[self._last] = fault
        self._seen[self._last] = 0
        return self._last

    def switch_off(self, number: int) -> None:
        """Switch one fault off.

        Raises:
            LookupError: it is not on.
        """
        if number not in self._on:
            raise LookupError(number)
        del self._on[number], self._seen[number]

    def clear(self) -> None:
        """Switch all faults off."""
        self._on.clear()
        self._seen.clear()

    def meet(self, endpoint: Endpoint, named: Collection[str] = ()) -> list[Fault]:
        """Count the request against every fault; return those that it meets, in the order switched on."""
        met = []
        for number, fault in self._on.items():
            if not fault.befalls(endpoint, named):
                continue
            self._seen[number] += 1
            request = self._seen[number]
            if request >= fault.page and (fault.times is None or request < fault.page + fault.times):
                met.append(fault)
        return met


def alter_page(faults: Collection[Fault], ids: list[str], query: UserQuery) -> list[str]:
    """Return the ids of a page after the faults that change which users stand on it, and where."""
    for name in (fault.name for fault in faults):
        if name is FaultName.EMPTY_LIST:
            ids = []
        elif name is FaultName.SHORT_PAGE:
            ids = ids[: len(ids) // 2]
        elif name is FaultName.DUPLICATE_ID and ids:
            ids = [query.starting_after or ids[0], *ids][: query.limit]
        elif name is FaultName.ORDER_BREAK and len(ids) > 1:
            ids = [ids[-1], *ids[1:-1], ids[0]]
    return ids


def hidden_users(faults: Collection[Fault]) -> frozenset[str]:
    """Return the users whom the faults hide."""
    return frozenset().union(*(fault.ids for fault in faults if fault.name is FaultName.HIDE_USERS))
