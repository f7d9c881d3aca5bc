"""The real client of Clerk, opened on an emulator for a test."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from controller.clerk import Clerk, Patience
from controller.core.users import UserId, parse_user_id
from controller.emulator import ClerkEmulator, EmulatorSettings, Endpoint, Fault, FaultName

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from controller.core.mapping import MappedColumn
    from controller.core.users import Instance

UNHURRIED = EmulatorSettings(rate_limit=None)
"""An emulator whose rate limit stands in nobody's way."""

HASTY = Patience(
    attempts=3,
    read=timedelta(seconds=0.4),
    first_pause=timedelta(milliseconds=1),
    longest_pause=timedelta(milliseconds=4),
    silence=timedelta(milliseconds=2),
)
"""Gives up in about a second what the product gives up in minutes."""


class MonotonicClock:
    """The machine's time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def elapsed(self) -> float:
        return time.monotonic()


@asynccontextmanager
async def clerk_of(
    emulator: ClerkEmulator,
    *,
    share: float = 1.0,
    patience: Patience = HASTY,
    mapping: tuple[MappedColumn, ...] = (),
) -> AsyncGenerator[Clerk, None]:
    """Open the client on a running emulator."""
    async with Clerk.open(
        emulator.secret_key,
        base_url=emulator.url,
        share=share,
        clock=MonotonicClock(),
        mapping=mapping,
        patience=patience,
    ) as clerk:
        yield clerk


def as_user_ids(texts: Iterable[str]) -> list[UserId]:
    """Return ids that are known to be of Clerk's form as such."""
    ids = [parse_user_id(text) for text in texts]
    return [user_id for user_id in ids if user_id is not None]


@dataclass
class EmulatedPopulation:
    """The contract's view of an emulator."""

    directory: Clerk
    emulator: ClerkEmulator

    @property
    def accounts(self) -> Clerk:
        return self.directory

    @property
    def instance(self) -> Instance:
        return self.emulator.instance

    def sign_up(self, count: int, since: datetime) -> list[UserId]:
        first = int(since.timestamp() * 1000)
        return as_user_ids(self.emulator.add_users(count, created_from=first, created_until=first + 1000 * count))

    def delete(self, user_ids: Sequence[UserId]) -> None:
        self.emulator.delete_many(user_ids, webhook=False)

    def hide_from_filter(self, user_id: UserId) -> None:
        self.emulator.switch_on(Fault(FaultName.HIDE_USERS, endpoint=Endpoint.FILTER, ids=frozenset({user_id})))

    def cut_listing_short(self) -> None:
        self.emulator.switch_on(Fault(FaultName.SHORT_PAGE, endpoint=Endpoint.LIST))

    def refuse_deletion(self) -> None:
        self.emulator.switch_on(Fault(FaultName.UNPROCESSABLE))

    def edit(self, user_id: UserId, updated_at: int, address: str | None, name: str | None) -> None:
        changes = {"updated_at": updated_at, "email_address": address, "first_name": name}
        self.emulator.edit(user_id, webhook=False, **changes)

    def answer_oddly(self, user_id: UserId) -> None:
        self.emulator.switch_on(Fault(FaultName.OTHER_USER, ids=frozenset({user_id})))
