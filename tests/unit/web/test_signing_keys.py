"""Keys are fetched when they are needed, follow a rotation, and are never fetched as often as strangers like."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.targets import AccountDeletion
from controller.errors import ClerkUnavailable
from controller.web.refusals import RefusalKind, Refused
from controller.web.signing_keys import STRANGERS_AT_ONCE, KeyRhythm, SigningKeys
from tests.support.fakes.clock import run_skipping
from tests.support.fakes.directory import INSTANCE, FakeDirectory, user
from tests.support.sessions import ORIGIN, OTHER_INSTANCE, keys_of, sessions, token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.leaving import SigningKey

USER = user(1)
# a minute of the skipping loop is none of the machine, by whose time tokens expire
TERMS = AccountDeletion(enabled=True, authorized_parties=(ORIGIN,))
RHYTHM = KeyRhythm()


class Keys:
    """The keys of the fakes' instance, and how often they were fetched."""

    def __init__(self) -> None:
        self.directory = FakeDirectory(keys=keys_of(sessions()))
        self.keys = SigningKeys(self.directory, INSTANCE.id)

    @property
    def fetched(self) -> int:
        return self.directory.calls["signing_keys"]

    async def read(self, text: str) -> None:
        assert (await self.keys.read(text, TERMS)).user_id == USER

    async def refuse(self, text: str) -> None:
        with pytest.raises(Refused) as caught:
            await self.keys.read(text, TERMS)
        assert caught.value.kind is RefusalKind.SIGNATURE

    def rotate(self) -> str:
        """Sign with another key from now on; returns a token of it."""
        newer = sessions(number=1)
        self.directory.keys = keys_of(newer)
        return newer.token(USER, ORIGIN)


async def wait(duration: timedelta) -> None:
    await asyncio.sleep(duration.total_seconds())


FORGED = sessions(OTHER_INSTANCE).token(USER, ORIGIN)


def test_many_tokens_at_once_cost_one_fetch() -> None:
    async def story() -> None:
        keys = Keys()
        await asyncio.gather(*(keys.read(token(USER)) for _ in range(20)))
        await wait(RHYTHM.refresh - timedelta(seconds=1))
        await keys.read(token(USER))
        assert keys.fetched == 1

    run_skipping(story())


def test_a_token_of_a_new_key_is_believed_at_once_and_one_of_the_old_no_more() -> None:
    async def story() -> None:
        keys = Keys()
        await keys.read(token(USER))
        await wait(RHYTHM.refetch)
        newer = keys.rotate()
        await keys.read(newer)
        await wait(RHYTHM.refetch)
        await keys.refuse(token(USER))

    run_skipping(story())


def test_a_key_that_was_taken_away_is_believed_for_five_minutes_at_most() -> None:
    async def story() -> None:
        keys = Keys()
        await keys.read(token(USER))
        keys.rotate()
        await wait(RHYTHM.refresh)
        await keys.refuse(token(USER))

    run_skipping(story())


def test_a_flood_of_forged_tokens_costs_one_fetch_every_five_seconds() -> None:
    async def story() -> None:
        keys = Keys()
        await keys.read(token(USER))
        for _ in range(20):
            await asyncio.gather(*(keys.refuse(FORGED) for _ in range(10)))
            await asyncio.sleep(1)
        assert keys.fetched == 4

    run_skipping(story())


def test_while_clerk_is_away_known_keys_are_believed_for_an_hour() -> None:
    async def story() -> None:
        keys = Keys()
        await keys.read(token(USER))
        keys.directory.errors["signing_keys"] = ClerkUnavailable("Clerk is away")
        await wait(RHYTHM.oldest - timedelta(seconds=1))
        await keys.read(token(USER))
        await wait(timedelta(seconds=2))
        with pytest.raises(ClerkUnavailable):
            await keys.keys.read(token(USER), TERMS)

    run_skipping(story())


def test_without_any_key_nobody_can_tell_and_clerk_is_asked_again_after_five_seconds() -> None:
    async def story() -> None:
        keys = Keys()
        keys.directory.errors["signing_keys"] = ClerkUnavailable("Clerk is away")
        for _ in range(10):
            with pytest.raises(ClerkUnavailable):
                await keys.keys.read(token(USER), TERMS)
        assert keys.fetched == 1
        del keys.directory.errors["signing_keys"]
        await wait(RHYTHM.refetch)
        await keys.read(token(USER))

    run_skipping(story())


class Hanging(FakeDirectory):
    """Answers a first time, and then no more."""

    async def signing_keys(self) -> Sequence[SigningKey]:
        if self.calls["signing_keys"]:
            await asyncio.sleep(3600)
        return await super().signing_keys()


@pytest.mark.parametrize("known_for", [RHYTHM.refetch, RHYTHM.refresh])
def test_while_clerk_hangs_few_forged_tokens_wait_and_the_others_are_asked_to_come_back(known_for: timedelta) -> None:
    async def story() -> None:
        keys = SigningKeys(Hanging(keys=keys_of(sessions())), INSTANCE.id)
        await keys.read(token(USER), TERMS)
        await wait(known_for)
        waiting = {asyncio.create_task(keys.read(FORGED, TERMS)) for _ in range(STRANGERS_AT_ONCE + 20)}
        turned_away, left = await asyncio.wait(waiting, timeout=1)
        assert len(left) == STRANGERS_AT_ONCE
        for tasks, kind in ((turned_away, RefusalKind.BUSY), (left, RefusalKind.SIGNATURE)):
            for refused in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(refused, Refused)
                assert refused.kind is kind
        # the places are free again
        await keys.read(token(USER), TERMS)

    run_skipping(story())


def test_a_clerk_that_hangs_is_not_waited_for_longer_than_a_request_can() -> None:
    async def story() -> None:
        directory = Hanging()
        directory.calls["signing_keys"] = 1
        keys = SigningKeys(directory, INSTANCE.id)
        began = asyncio.get_running_loop().time()
        with pytest.raises(ClerkUnavailable):
            await keys.read(token(USER), TERMS)
        assert asyncio.get_running_loop().time() - began <= RHYTHM.patience.total_seconds() + 0.1

    run_skipping(story())
