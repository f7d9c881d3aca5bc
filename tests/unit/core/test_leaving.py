"""A user leaves on his own request: Clerk first, then the rows; and what happens while Clerk will not."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.leaving import settle_request
from controller.core.outcomes import Settled
from controller.errors import ClerkAnswerOdd, ClerkRefused, ClerkUnavailable, RequestRefused
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.directory import FakeDirectory, user
from tests.support.fakes.store import FakeStore

if TYPE_CHECKING:
    from controller.core.claims import Claim
    from controller.errors import UserSyncError

USER, OTHER = user(1), user(2)
LEASE = timedelta(seconds=30)


@dataclass
class World:
    """Two users with rows, the first of whom asks."""

    clock: FakeClock = field(default_factory=FakeClock)
    directory: FakeDirectory = field(default_factory=FakeDirectory)
    store: FakeStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = FakeStore(self.clock, pinned=self.directory.of.id)
        self.directory.sign_up(USER, OTHER)
        self.store.add_users(USER, OTHER)

    async def ask(self) -> Claim:
        claim = await self.store.request_removal(USER, LEASE)
        assert claim is not None
        return claim

    async def settle(self, claim: Claim) -> Settled:
        return await settle_request(claim, self.directory, self.directory, self.store, self.clock)


@pytest.fixture
def world() -> World:
    return World()


async def test_clerk_deletes_him_and_then_all_his_rows_go(world: World) -> None:
    assert await world.settle(await world.ask()) is Settled.REMOVED
    assert set(world.directory.users) == {OTHER}
    assert world.store.users() == {OTHER}
    assert (world.store.tombstones, world.store.archived) == ({USER}, [])


async def test_what_the_archive_has_of_him_goes_too(world: World) -> None:
    world.store.archived += [(table, row) for table, rows in world.store.tables.items() for row in rows]
    await world.settle(await world.ask())
    assert {row.user_id for _, row in world.store.archived} == {OTHER}


@pytest.mark.parametrize(
    "error", [ClerkUnavailable("away"), ClerkAnswerOdd("a redirect")], ids=lambda error: type(error).__name__
)
async def test_without_clerks_word_no_row_goes_and_the_request_stands(world: World, error: UserSyncError) -> None:
    claim = await world.ask()
    world.directory.errors["delete_user"] = error
    with pytest.raises(type(error)):
        await world.settle(claim)
    assert world.store.users() == {USER, OTHER}
    assert claim.id in world.store.claims
    assert not world.store.tombstones


@pytest.mark.parametrize("error", [ClerkUnavailable("away"), ClerkRefused("key revoked")])
async def test_deleted_in_clerk_but_not_proved_gone_he_keeps_his_rows_until_he_is(
    world: World, error: UserSyncError
) -> None:
    claim = await world.ask()
    world.directory.errors["look_up"] = error
    with pytest.raises(type(error)):
        await world.settle(claim)
    assert world.store.users() == {USER, OTHER}
    assert claim.id in world.store.claims
    del world.directory.errors["look_up"]
    assert await world.settle(claim) is Settled.REMOVED


async def test_a_clerk_that_still_shows_him_is_asked_again_later(world: World) -> None:
    class Ghostly(FakeDirectory):
        async def delete_user(self, user_id: object) -> None:
            del user_id

    world.directory = Ghostly(users=world.directory.users)
    claim = await world.ask()
    assert await world.settle(claim) is Settled.POSTPONED
    assert world.store.users() == {USER, OTHER}
    assert world.store.claims[claim.id][0].attempts == 1


async def test_refused_for_good_the_request_is_lifted_and_nothing_was_done(world: World) -> None:
    claim = await world.ask()
    world.directory.errors["delete_user"] = ClerkRefused("422: cannot be deleted")
    with pytest.raises(RequestRefused, match=r"Nothing was deleted.*cannot be deleted"):
        await world.settle(claim)
    assert world.store.users() == {USER, OTHER}
    assert not world.store.claims
    assert not world.store.tombstones


async def test_a_key_revoked_after_clerk_has_deleted_him_lifts_nothing(world: World) -> None:
    claim = await world.ask()
    world.directory.errors["look_up"] = ClerkUnavailable("away")
    with pytest.raises(ClerkUnavailable):
        await world.settle(claim)
    world.directory.errors["delete_user"] = world.directory.errors["look_up"] = ClerkRefused("401: key revoked")
    with pytest.raises(ClerkRefused):
        await world.settle(claim)
    assert world.store.users() == {USER, OTHER}
    world.directory.errors.clear()
    assert await world.settle(claim) is Settled.REMOVED
    assert (world.store.users(), world.store.receipts[0].requested_by) == ({OTHER}, "own request")


async def test_a_key_revoked_after_he_was_buried_lifts_nothing(world: World) -> None:
    claim = await world.ask()
    world.store.tombstones.add(USER)
    world.directory.errors["delete_user"] = ClerkRefused("401: key revoked")
    with pytest.raises(ClerkRefused):
        await world.settle(claim)
    assert claim.id in world.store.claims


async def test_settled_twice_it_has_one_receipt(world: World) -> None:
    claim = await world.ask()
    await world.settle(claim)
    assert await world.settle(claim) is Settled.POSTPONED
    assert len(world.store.receipts) == 1


async def test_a_user_with_very_many_rows_goes_by_and_by(world: World) -> None:
    world.store.bound, world.store.bite = 3, 1
    claim = await world.ask()
    assert await world.settle(claim) is Settled.CONTINUED
    while await world.settle(claim) is Settled.CONTINUED:
        pass
    assert world.store.users() == {OTHER}
    receipt = await world.store.receipt_of_request(USER)
    assert receipt is not None


async def test_rows_that_the_database_holds_let_him_wait(world: World) -> None:
    world.store.unremovable.add(USER)
    claim = await world.ask()
    assert await world.settle(claim) is Settled.POSTPONED
    assert set(world.directory.users) == {OTHER}
    assert await world.store.receipt_of_request(USER) is None
