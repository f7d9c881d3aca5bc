"""`GET /users` and `GET /users/count` in memory, with the freedoms that Clerk's description leaves open."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controller.clerk.answers import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Users = list[tuple[int, str]]
"""Milliseconds of creation and id."""


def numbered(times: Sequence[int]) -> Users:
    """Return users created at these times."""
    return sorted((at, f"user_2{place:07d}") for place, at in enumerate(times))


def page_of(users: Sequence[tuple[int, str]]) -> Answer:
    """Return an answer that lists these users."""
    content = [{"object": "user", "id": user_id, "created_at": at, "banned": False} for at, user_id in users]
    return Answer("GET /v1/users", 200, json.dumps(content).encode())


@dataclass
class FakeSource:
    """Clerk's side of a listing.

    `inclusive`: whether the bounds of `created_at` include their own millisecond, which nobody has written down.
    `largest`: a limit beyond it is answered with ten users. `alter`: what befalls a page, by its number from 1.
    `on_page`: what happens before a page is answered. `pages`, `counts`: the questions so far.
    """

    users: Users
    inclusive: bool = False
    largest: int = 500
    alter: Callable[[int, Answer], Answer] = lambda _number, answer: answer
    on_page: Callable[[int], None] = lambda _number: None
    under_way: int = 0
    pages: list[dict[str, str]] = field(default_factory=list)
    counts: list[dict[str, str]] = field(default_factory=list)

    async def page(self, parameters: tuple[tuple[str, str], ...]) -> Answer:
        self.pages.append(dict(parameters))
        number = len(self.pages)
        self.under_way += 1
        try:
            await asyncio.sleep(0.1)
        finally:
            self.under_way -= 1
        self.on_page(number)
        asked = dict(parameters)
        found = self._filtered(asked)
        if asked["order_by"] == "-created_at":
            found.reverse()
        cursor = asked.get("starting_after")
        if cursor is not None:
            ids = [user_id for _, user_id in found]
            if cursor not in ids:
                return Answer("GET /v1/users", 422, b'{"errors":[{"code":"form_param_value_invalid"}]}')
            found = found[ids.index(cursor) + 1 :]
        limit = int(asked["limit"])
        return self.alter(number, page_of(found[: limit if limit <= self.largest else 10]))

    async def count(self, parameters: tuple[tuple[str, str], ...]) -> int:
        self.counts.append(dict(parameters))
        await asyncio.sleep(0.1)
        return len(self._filtered(dict(parameters)))

    def _filtered(self, asked: dict[str, str]) -> Users:
        after = int(asked.get("created_at_after", -1)) - self.inclusive
        before = int(asked.get("created_at_before", 10**15)) + self.inclusive
        return [user for user in sorted(self.users) if after < user[0] < before]
