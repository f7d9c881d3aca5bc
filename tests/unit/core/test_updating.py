"""Mapped columns, by runs and by events, on fakes."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest

from controller.core.absorbing import absorb, settle
from controller.core.claims import Claim, ClaimKind
from controller.core.events import Delivery, Event
from controller.core.outcomes import Absorbed, Changes, Settled, Updating
from controller.core.plans import UpdateProfiles
from controller.core.targets import Action, OnUserCreated, Spec, Webhook
from controller.core.updating import REFUSED
from controller.core.users import Profile
from controller.errors import ClerkUnavailable
from tests.support.contracts.mapping import MAPPED, MAPPING, NEW, NOTHING, OLD, T1, T2, T3
from tests.support.contracts.store import LEASE
from tests.support.fakes.clock import START, FakeClock
from tests.support.fakes.directory import INSTANCE, FakeDirectory, user
from tests.support.fakes.store import FakeRun, FakeStore
from tests.unit.core.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from controller.core.users import UserId


@pytest.fixture
def world() -> World:
    """Ten users in step, whose columns hold nothing."""
    world = World(synced=10)
    world.store.target, world.directory.mapping = MAPPED, MAPPING
    for number in range(10):
        world.store.set_values(user(number), NOTHING)
    return world


def values(world: World, number: int) -> tuple[Any, ...]:
    (row,) = [row for row in world.store.tables["user_progress"] if row.user_id == user(number)]
    return row.values


async def test_a_run_brings_outdated_columns_in_step_and_counts_them(world: World) -> None:
    world.directory.edit(user(1), T1, *NEW)
    world.directory.edit(user(2), T1, *OLD)

    outcome = await world.sweep(Action.FIX_PROGRESS)

    assert (outcome.found.outdated, outcome.remaining.outdated, outcome.remaining.total) == (2, 0, 0)
    assert outcome.changes == Changes(profiles_updated=2)
    assert (values(world, 1), values(world, 2), values(world, 3)) == (NEW, OLD, NOTHING)


async def test_a_missing_profile_is_created_with_its_values(world: World) -> None:
    world.directory.sign_up(user(50))
    world.directory.edit(user(50), T1, *NEW)

    outcome = await world.sweep()

    assert (outcome.found.missing, outcome.found.outdated) == (1, 0)
    assert outcome.changes == Changes(profiles_created=1)
    assert values(world, 50) == NEW


@pytest.mark.parametrize(
    ("actions", "dry_run"), [((Action.ANALYZE,), False), ((Action.CLEANUP,), False), ((Action.FULL_SYNC,), True)]
)
async def test_outdated_columns_are_only_reported_where_nothing_may_be_written(
    world: World, actions: tuple[Action, ...], *, dry_run: bool
) -> None:
    world.directory.edit(user(1), T1, *NEW)

    outcome = await world.sweep(*actions, dry_run=dry_run)

    assert (outcome.found.outdated, outcome.remaining.total) == (1, 1)
    assert outcome.changes == Changes(profiles_updated=int(dry_run))
    assert values(world, 1) == NOTHING


async def test_the_plan_says_how_many_are_outdated_and_nobody_is_asked_to_permit_it(world: World) -> None:
    world.directory.edit(user(1), T1, *NEW)

    outcome = await world.sweep()

    assert outcome.plan.changes == (UpdateProfiles(1),)
    assert world.watcher.asked == []


async def test_columns_are_brought_in_step_though_a_person_declines_the_removals(world: World) -> None:
    world.gone(1)
    world.directory.edit(user(1), T1, *NEW)
    world.watcher.permits = False

    outcome = await world.sweep()

    assert outcome.declined
    assert outcome.changes == Changes(profiles_updated=1)


async def test_the_outdated_are_shown(world: World) -> None:
    world.directory.edit(user(1), T1, *NEW)
    world.watcher.shows = True

    await world.sweep(Action.ANALYZE)

    assert world.watcher.shown == {"outdated": [user(1)]}


async def test_who_was_updated_just_before_is_asked_for_again_and_nobody_else(world: World) -> None:
    for number, updated_at in ((1, int(START.timestamp() * 1000)), (2, T1)):
        profile = world.directory.edit(user(number), updated_at, *OLD)
        await world.store.update_profile(Delivery(f"msg_{number}", "user.updated"), profile, inserts=True)
        world.store.versions[user(number)] = updated_at
    outcome = await world.sweep()

    assert world.directory.asked["profiles"] == [user(1)]
    assert outcome.changes == Changes(profiles_updated=2)


async def test_an_event_beside_a_run_is_never_overwritten_by_what_was_listed(world: World) -> None:
    world.directory.edit(user(1), T1, *OLD)
    late = Profile(user(1), T2, NEW)

    class Run(FakeRun):
        async def update_profiles(
            self, user_ids: Sequence[UserId], confirmed: Sequence[Profile], since: datetime
        ) -> Updating:
            self.store.versions[late.user_id] = late.updated_at
            self.store.set_values(late.user_id, late.values)
            return await super().update_profiles(user_ids, confirmed, since)

    world.store.run_type = Run

    outcome = await world.sweep()

    assert values(world, 1) == NEW
    assert outcome.changes == Changes()


async def test_values_that_the_database_refuses_are_a_warning(world: World) -> None:
    world.directory.edit(user(1), T1, *NEW)

    class Run(FakeRun):
        async def update_profiles(
            self, user_ids: Sequence[UserId], confirmed: Sequence[Profile], since: datetime
        ) -> Updating:
            del confirmed, since
            return Updating(0, users_left=len(user_ids))

        def misfits(self) -> Sequence[str]:
            return ["plan does not fit."]

    world.store.run_type = Run

    outcome = await world.sweep()

    assert outcome.warnings == ("plan does not fit.", REFUSED.format(1))
    assert outcome.remaining.outdated == 1


async def test_without_a_mapping_nothing_of_it_is_asked(world: World) -> None:
    world.directory.mapping = ()
    world.directory.edit(user(1), T1, *NEW)

    outcome = await world.sweep()

    assert outcome.found.outdated == 0
    assert (world.directory.calls["profiles"], world.directory.calls["profile"]) == (0, 0)


class Service:
    """The webhook service's view."""

    def __init__(self) -> None:
        self.directory = FakeDirectory(mapping=MAPPING)
        self.clock = FakeClock()
        self.store = FakeStore(self.clock, MAPPED, pinned=INSTANCE.id)
        self.spec = Spec("team/app", target=MAPPED)

    async def deliver(self, event_type: str, profile: Profile | None, message_id: str = "msg_1") -> Absorbed:
        event = Event(event_type, INSTANCE.id, user(1), profile=profile)
        return await absorb(event, Delivery(message_id, event_type), self.spec, self.store)

    async def settle_due(self) -> list[Settled]:
        return [
            await settle(claim, self.spec, self.directory, self.store, self.clock)
            for claim in await self.store.take_claims(10, LEASE)
        ]

    def values(self) -> list[tuple[Any, ...]]:
        return [row.values for row in self.store.tables["user_progress"] if row.user_id == user(1)]

    def claims(self) -> list[ClaimKind]:
        return [claim.kind for claim, _ in self.store.claims.values()]


@pytest.fixture
def service() -> Service:
    """A user signed up and edited twice."""
    service = Service()
    service.directory.sign_up(user(1))
    service.directory.edit(user(1), T3, *NEW)
    return service


async def test_an_event_writes_the_values_that_it_has(service: Service) -> None:
    assert await service.deliver("user.created", Profile(user(1), T2, OLD)) is Absorbed.CREATED
    assert service.values() == [OLD]
    assert await service.deliver("user.updated", Profile(user(1), T3, NEW), "msg_2") is Absorbed.UPDATED
    assert service.values() == [NEW]
    assert service.directory.calls.total() == 0


async def test_an_update_before_the_sign_up_creates_the_profile_once_clerk_knows_the_user(service: Service) -> None:
    assert await service.deliver("user.updated", Profile(user(1), T2, OLD)) is Absorbed.DOUBTED
    assert service.values() == []
    assert await service.settle_due() == [Settled.UPDATED]
    assert service.values() == [NEW]


async def test_an_update_about_nobody_creates_nothing(service: Service) -> None:
    service.directory.delete(user(1))
    await service.deliver("user.updated", Profile(user(1), T2, OLD))
    assert await service.settle_due() == [Settled.GONE]
    assert (service.values(), service.claims()) == ([], [])


@pytest.mark.parametrize("suspend", [False, True])
async def test_where_sign_ups_are_ignored_an_update_creates_nothing_and_keeps_rows_in_step(
    service: Service, *, suspend: bool
) -> None:
    webhook = Webhook(on_user_created=OnUserCreated.IGNORE)
    service.spec = Spec("team/app", target=MAPPED, webhook=webhook, suspend=suspend)
    assert await service.deliver("user.created", Profile(user(1), T1, OLD)) is Absorbed.IGNORED
    await service.deliver("user.updated", Profile(user(1), T3, NEW), "msg_2")
    await service.settle_due()
    assert (service.values(), service.claims()) == ([], [])
    service.store.add_row("user_progress", user(1))
    await service.deliver("user.updated", Profile(user(1), T3, NEW), "msg_3")
    await service.settle_due()
    assert (service.values(), service.claims()) == ([NEW], [])


async def test_a_doubted_sign_up_gets_the_values_that_clerk_answers(service: Service) -> None:
    event = Event("user.created", INSTANCE.id, user(1), doubtful=True, profile=Profile(user(1), T1, OLD))
    assert await absorb(event, Delivery("msg_1", event.type), service.spec, service.store) is Absorbed.DOUBTED
    assert service.claims() == [ClaimKind.CREATION]
    assert await service.settle_due() == [Settled.UPDATED]
    assert (service.values(), service.claims()) == ([NEW], [])


async def test_an_update_without_a_description_of_the_user_is_asked_for(service: Service) -> None:
    assert await service.deliver("user.updated", None) is Absorbed.DOUBTED
    assert await service.settle_due() == [Settled.UPDATED]
    assert service.values() == [NEW]


async def test_without_a_mapping_an_update_is_ignored(service: Service) -> None:
    service.spec = Spec("team/app")
    assert await service.deliver("user.updated", None) is Absorbed.IGNORED
    assert service.store.delivered == set()


async def test_a_dry_run_writes_no_values(service: Service) -> None:
    service.spec = Spec("team/app", target=MAPPED, dry_run=True)
    assert await service.deliver("user.updated", Profile(user(1), T3, NEW)) is Absorbed.DRY_RUN
    assert service.values() == []


async def test_an_update_while_suspended_is_caught_up_with_what_clerk_says_then(service: Service) -> None:
    service.spec = Spec("team/app", target=MAPPED, suspend=True)
    assert await service.deliver("user.updated", Profile(user(1), T2, OLD)) is Absorbed.RECORDED
    assert (service.claims(), service.values()) == ([ClaimKind.CATCH_UP], [])
    assert await service.settle_due() == [Settled.UPDATED]
    assert (service.claims(), service.values()) == ([], [NEW])


async def test_who_is_deleted_while_he_is_caught_up_is_proved_gone_later(service: Service) -> None:
    claim = Claim(1, user(1), ClaimKind.CATCH_UP, 0, 0)
    service.store.claims[1] = (claim, service.clock.now())
    service.directory.before = lambda method: service.directory.users.clear() if method == "profile" else None
    assert await service.settle_due() == [Settled.POSTPONED]
    service.clock.advance(LEASE)
    assert await service.settle_due() == [Settled.REMOVED]


async def test_a_tie_is_settled_by_what_clerk_says(service: Service) -> None:
    await service.deliver("user.created", Profile(user(1), T3, OLD))
    assert await service.deliver("user.updated", Profile(user(1), T3, NOTHING), "msg_2") is Absorbed.DOUBTED
    assert service.claims() == [ClaimKind.REFRESH]
    assert await service.settle_due() == [Settled.UPDATED]
    assert (service.claims(), service.values()) == ([], [NEW])


async def test_a_tie_about_a_user_who_is_gone_writes_nothing_and_removes_nothing(service: Service) -> None:
    await service.deliver("user.created", Profile(user(1), T3, OLD))
    await service.deliver("user.updated", Profile(user(1), T3, NOTHING), "msg_2")
    service.directory.delete(user(1))
    assert await service.settle_due() == [Settled.GONE]
    assert (service.claims(), service.values()) == ([], [OLD])


async def test_a_tie_without_an_answer_stays(service: Service) -> None:
    await service.deliver("user.updated", None)
    service.directory.errors["profile"] = ClerkUnavailable("away")
    with pytest.raises(ClerkUnavailable):
        await service.settle_due()
    assert service.claims() == [ClaimKind.REFRESH]


EVENTS = [
    ("user.created", Profile(user(1), T1, NOTHING)),
    ("user.updated", Profile(user(1), T2, OLD)),
    ("user.updated", Profile(user(1), T3, NEW)),
]


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("times", [1, 2])
async def test_in_any_order_and_repeated_a_deleted_user_ends_without_a_row(
    service: Service, order: tuple[int, ...], times: int
) -> None:
    service.directory.delete(user(1))
    events = [*EVENTS, ("user.deleted", None)]
    for number in order * times:
        event_type, profile = events[number]
        await service.deliver(event_type, profile, f"msg_{number}")
        await service.settle_due()
    assert service.values() == []


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_in_any_order_and_repeated_a_living_user_ends_with_the_latest_values(
    service: Service, order: tuple[int, ...]
) -> None:
    for number in order * 2:
        event_type, profile = EVENTS[number]
        await service.deliver(event_type, profile, f"msg_{number}")
        await service.settle_due()
    assert service.values() == [NEW]
