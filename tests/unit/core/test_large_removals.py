"""A run, and a claim, that go on with users who leave in batches, on fakes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.absorbing import PRESENT_DELAYS, settle
from controller.core.claims import ClaimKind
from controller.core.events import Delivery
from controller.core.outcomes import Changes, Settled
from controller.core.proofs import MAX_AGE
from controller.core.targets import Spec
from controller.errors import ClerkUnavailable
from tests.support.fakes.directory import user
from tests.unit.core.world import World

if TYPE_CHECKING:
    from controller.core.users import UserId

ROWS = 10
LEASE = timedelta(minutes=1)


@pytest.fixture
def world() -> World:
    """User 0 is gone and has ten rows beside his profile; three of a table leave at a time."""
    world = World()
    world.store.bound, world.store.bite = 5, 3
    world.gone(1)
    for _ in range(ROWS - 3):
        world.store.add_row("tasks", user(0))
    return world


async def settle_one(world: World) -> Settled:
    (claim,) = await world.store.take_claims(1, LEASE)
    return await settle(claim, Spec("app/x"), world.directory, world.store, world.clock)


async def claim(world: World, user_id: UserId) -> None:
    await world.store.record_claim(Delivery("m1", "user.deleted"), user_id, ClaimKind.DELETION)


async def test_a_run_ends_what_it_begins_with_a_proof_for_each_part(world: World) -> None:
    outcome = await world.sweep()

    assert outcome.changes == Changes(users_removed=1, rows_removed=ROWS + 1)
    # one before he is begun with, one for each of five bites, one for the end
    assert world.directory.asked["look_up"] == [user(0)] * 7


async def test_proofs_are_renewed_however_long_it_takes(world: World) -> None:
    world.directory.before = lambda _method: world.clock.advance(MAX_AGE / 2)

    assert (await world.sweep()).changes.users_removed == 1


async def test_a_user_who_lives_again_is_left_with_a_warning(world: World) -> None:
    def sign_up_again(method: str) -> None:
        if method == "look_up" and len(world.directory.asked["look_up"]) == 3:
            world.directory.sign_up(user(0))

    world.directory.before = sign_up_again
    outcome = await world.sweep()

    assert outcome.changes == Changes(rows_removed=1 + 3, users_left=1)
    assert len(outcome.warnings) == 1
    assert user(0) not in outcome.warnings[0]


async def test_an_odd_answer_leaves_him_without_that_warning(world: World) -> None:
    def turn_odd(method: str) -> None:
        if method == "look_up" and len(world.directory.asked["look_up"]) == 3:
            world.directory.odd_look_up.add(user(0))

    world.directory.before = turn_odd
    outcome = await world.sweep()

    assert outcome.changes == Changes(rows_removed=1 + 3, users_left=1)
    assert outcome.warnings == ()


async def test_who_is_held_ends_no_run_in_an_endless_loop(world: World) -> None:
    await claim(world, user(0))
    assert await settle_one(world) is Settled.CONTINUED
    world.store.unremovable.add(user(0))

    assert (await world.sweep()).changes.users_left == 1


async def test_a_person_who_declines_also_declines_going_on(world: World) -> None:
    await claim(world, user(0))
    await settle_one(world)
    world.watcher.permits = False
    rows = len(world.store.tables["tasks"])

    assert (await world.sweep()).changes.rows_removed == 0
    assert len(world.store.tables["tasks"]) == rows


async def test_a_claim_is_due_again_at_once_until_he_is_gone(world: World) -> None:
    await claim(world, user(0))
    settled = [await settle_one(world) for _ in range(6)]

    assert settled == [*[Settled.CONTINUED] * 5, Settled.REMOVED]
    assert user(0) not in world.store.users()


async def test_a_claim_ends_as_stopped_if_he_lives_after_all(world: World) -> None:
    await claim(world, user(0))
    await settle_one(world)
    world.directory.sign_up(user(0))
    for delay in PRESENT_DELAYS:
        assert await settle_one(world) is Settled.POSTPONED
        world.clock.advance(delay)

    assert await settle_one(world) is Settled.STOPPED
    assert user(0) in world.store.begun


async def test_an_outage_in_the_middle_fails_the_run_and_the_next_goes_on(world: World) -> None:
    def fail(method: str) -> None:
        if method == "look_up" and len(world.directory.asked["look_up"]) == 3:
            world.directory.errors["look_up"] = ClerkUnavailable("away")

    world.directory.before = fail
    with pytest.raises(ClerkUnavailable):
        await world.sweep()
    world.directory.before = lambda _method: None
    world.directory.errors.clear()

    assert (await world.sweep()).changes == Changes(users_removed=1, rows_removed=ROWS - 3)
