"""One event, and the claims that events leave behind, on fakes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.absorbing import (
    HOLDBACK_DELAYS,
    PRESENT_DELAYS,
    RETRY_DELAY,
    SECOND_SWEEP_DELAY,
    absorb,
    retry_delay,
    settle,
)
from controller.core.claims import Claim, ClaimKind
from controller.core.events import Delivery, Event
from controller.core.outcomes import Absorbed, Settled
from controller.core.proofs import MAX_AGE
from controller.core.targets import Deletion, Limits, OnUserCreated, OnUserDeleted, Spec, Webhook
from controller.errors import ClerkAnswerOdd, ClerkRefused, ClerkUnavailable, UserSyncError
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.directory import INSTANCE, FakeDirectory, user
from tests.support.fakes.store import FakeStore

if TYPE_CHECKING:
    from controller.core.users import UserId

LEASE = timedelta(minutes=1)


@dataclass
class Service:
    """The webhook service's view: one database, one instance."""

    clock: FakeClock = field(default_factory=FakeClock)
    directory: FakeDirectory = field(default_factory=FakeDirectory)
    spec: Spec = field(default_factory=lambda: Spec("team/app"))
    store: FakeStore = field(init=False)
    messages: int = 0

    def __post_init__(self) -> None:
        """Pin the database."""
        self.store = FakeStore(self.clock, pinned=INSTANCE.id)

    async def deliver(
        self, event_type: str, user_id: UserId | None, message_id: str | None = None, *, doubtful: bool = False
    ) -> Absorbed:
        self.messages += 1
        delivery = Delivery(message_id or f"msg_{self.messages}", event_type)
        return await absorb(Event(event_type, INSTANCE.id, user_id, doubtful), delivery, self.spec, self.store)

    async def settle_due(self) -> list[Settled]:
        return [
            await settle(claim, self.spec, self.directory, self.store, self.clock)
            for claim in await self.store.take_claims(10, LEASE)
        ]


@pytest.fixture
def service() -> Service:
    return Service()


async def test_a_sign_up_creates_one_profile(service: Service) -> None:
    assert await service.deliver("user.created", user(1)) is Absorbed.CREATED
    assert service.store.users("user_progress") == {user(1)}


async def test_the_same_message_five_times_has_one_effect(service: Service) -> None:
    answers = [await service.deliver("user.created", user(1), "msg_same") for _ in range(5)]

    assert answers == [Absorbed.CREATED, *[Absorbed.REPEATED] * 4]
    assert len(service.store.tables["user_progress"]) == 1


async def test_a_second_message_about_the_same_user_finds_the_profile(service: Service) -> None:
    await service.deliver("user.created", user(1))

    assert await service.deliver("user.created", user(1)) is Absorbed.PRESENT


async def test_a_sign_up_after_the_deletion_creates_nothing(service: Service) -> None:
    await service.deliver("user.deleted", user(1))
    await service.settle_due()

    assert await service.deliver("user.created", user(1)) is Absorbed.TOMBSTONED
    assert service.store.users() == set()


async def test_an_announced_deletion_is_a_claim_and_touches_no_row(service: Service) -> None:
    service.store.add_users(user(1))

    assert await service.deliver("user.deleted", user(1)) is Absorbed.CLAIMED
    assert service.store.users() == {user(1)}
    assert service.directory.calls.total() == 0


@pytest.mark.parametrize("event_type", ["user.updated", "session.created", "email.created", "user.somethingnew"])
async def test_other_types_are_ignored(service: Service, event_type: str) -> None:
    assert await service.deliver(event_type, user(1)) is Absorbed.IGNORED
    assert service.store.delivered == set()


async def test_an_event_that_names_nobody_is_ignored(service: Service) -> None:
    assert await service.deliver("user.deleted", None) is Absorbed.IGNORED
    assert service.store.claims == {}


@pytest.mark.parametrize("event_type", ["user.created", "user.deleted"])
async def test_a_dry_run_writes_nothing(service: Service, event_type: str) -> None:
    service.spec = Spec("team/app", dry_run=True)

    assert await service.deliver(event_type, user(1)) is Absorbed.DRY_RUN
    assert (service.store.delivered, service.store.claims, service.store.users()) == (set(), {}, set())


@pytest.mark.parametrize("event_type", ["user.created", "user.deleted"])
async def test_while_suspended_the_id_is_recorded_and_nothing_else(service: Service, event_type: str) -> None:
    service.spec = Spec("team/app", suspend=True)
    service.store.add_users(user(2))

    assert await service.deliver(event_type, user(1)) is Absorbed.RECORDED
    assert service.store.users() == {user(2)}
    assert [claim.kind for claim, _ in service.store.claims.values()] == [ClaimKind.CATCH_UP]


async def test_a_proved_claim_removes_the_user_and_nobody_else(service: Service) -> None:
    service.store.add_users(user(1), user(2))
    service.directory.sign_up(user(2))
    await service.deliver("user.deleted", user(1))

    assert await service.settle_due() == [Settled.REMOVED]
    assert service.store.users() == {user(2)}
    assert service.store.tombstones == {user(1)}
    assert [claim.kind for claim, _ in service.store.claims.values()] == [ClaimKind.SECOND_SWEEP]


async def test_a_claim_without_a_row_still_leaves_a_tombstone(service: Service) -> None:
    await service.deliver("user.deleted", user(1))
    await service.settle_due()

    assert service.store.tombstones == {user(1)}


async def test_a_claim_about_a_living_user_touches_no_row_and_is_discarded_in_the_end(service: Service) -> None:
    service.store.add_users(user(1))
    service.directory.sign_up(user(1))
    await service.deliver("user.deleted", user(1))

    settled = []
    for delay in (*PRESENT_DELAYS, timedelta()):
        settled += await service.settle_due()
        service.clock.advance(delay)

    assert settled == [*[Settled.POSTPONED] * len(PRESENT_DELAYS), Settled.DISCARDED]
    assert service.store.users() == {user(1)}
    assert service.store.claims == {}
    assert service.store.tombstones == set()


async def test_a_claim_is_proved_later_if_clerk_is_slow_to_forget(service: Service) -> None:
    service.store.add_users(user(1))
    service.directory.sign_up(user(1))
    await service.deliver("user.deleted", user(1))
    await service.settle_due()
    service.directory.delete(user(1))
    service.clock.advance(PRESENT_DELAYS[0])

    assert await service.settle_due() == [Settled.REMOVED]


async def test_a_postponed_claim_is_not_due_before_its_time(service: Service) -> None:
    service.directory.sign_up(user(1))
    await service.deliver("user.deleted", user(1))
    await service.settle_due()
    service.clock.advance(PRESENT_DELAYS[0] - timedelta(milliseconds=1))

    assert await service.settle_due() == []


@pytest.mark.parametrize("error", [ClerkUnavailable("away"), ClerkRefused("no"), ClerkAnswerOdd("odd")])
@pytest.mark.parametrize("method", ["look_up", "instance"])
async def test_a_claim_without_an_answer_touches_no_row_and_stays(
    service: Service, error: UserSyncError, method: str
) -> None:
    service.store.add_users(user(1))
    await service.deliver("user.deleted", user(1))
    service.directory.errors[method] = error

    with pytest.raises(type(error)):
        await service.settle_due()

    assert service.store.users() == {user(1)}
    assert len(service.store.claims) == 1


async def test_a_claim_whose_proof_grew_old_stays(service: Service) -> None:
    service.store.add_users(user(1))
    await service.deliver("user.deleted", user(1))
    service.directory.before = lambda _method: service.clock.advance(MAX_AGE)

    assert await service.settle_due() == [Settled.POSTPONED]
    assert service.store.users() == {user(1)}
    assert [claim.attempts for claim, _ in service.store.claims.values()] == [1]


async def test_a_claim_whose_rows_are_held_stays(service: Service) -> None:
    service.store.add_users(user(1))
    service.store.unremovable.add(user(1))
    await service.deliver("user.deleted", user(1))

    assert await service.settle_due() == [Settled.POSTPONED]
    assert service.store.users() == {user(1)}


@pytest.mark.parametrize(("lives", "settled"), [(True, Settled.CREATED), (False, Settled.REMOVED)])
async def test_a_recorded_user_is_brought_in_step_on_resume(service: Service, *, lives: bool, settled: Settled) -> None:
    service.spec = Spec("team/app", suspend=True)
    await service.deliver("user.created", user(1))
    if lives:
        service.directory.sign_up(user(1))

    assert await service.settle_due() == [settled]
    assert service.store.users() == ({user(1)} if lives else set())
    left = [] if lives else [ClaimKind.SECOND_SWEEP]
    assert [claim.kind for claim, _ in service.store.claims.values()] == left


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 5), (1, 10), (2, 20), (6, 320), (7, 600), (1000, 600)])
def test_retries_back_off_to_ten_minutes(attempts: int, seconds: int) -> None:
    claim = Claim(1, user(1), ClaimKind.DELETION, attempts=attempts, present_answers=0)

    assert retry_delay(claim) == timedelta(seconds=seconds)


async def removed(service: Service) -> None:
    """One user is removed as `user.deleted` asked."""
    service.store.add_users(user(1), user(2))
    service.directory.sign_up(user(2))
    await service.deliver("user.deleted", user(1))
    assert await service.settle_due() == [Settled.REMOVED]


async def test_what_a_live_token_wrote_after_the_removal_is_swept_after_90_seconds(service: Service) -> None:
    await removed(service)
    service.store.add_row("tasks", user(1))
    service.clock.advance(SECOND_SWEEP_DELAY - timedelta(seconds=1))
    assert await service.settle_due() == []
    service.clock.advance(timedelta(seconds=1))

    assert await service.settle_due() == [Settled.SWEPT]
    assert service.store.users() == {user(2)}
    assert service.store.claims == {}


async def test_a_second_sweep_asks_clerk_only_where_rows_came_back(service: Service) -> None:
    await removed(service)
    asked = service.directory.calls["look_up"]
    service.clock.advance(SECOND_SWEEP_DELAY)

    assert await service.settle_due() == [Settled.SWEPT]
    assert service.directory.calls["look_up"] == asked
    assert service.store.claims == {}


async def test_a_second_sweep_of_a_user_who_lives_again_removes_nothing(service: Service) -> None:
    await removed(service)
    service.store.add_row("tasks", user(1))
    service.directory.sign_up(user(1))
    service.clock.advance(SECOND_SWEEP_DELAY)

    assert await service.settle_due() == [Settled.POSTPONED]
    assert user(1) in service.store.users("tasks")


async def test_a_proved_deletion_beyond_the_limits_waits_and_goes_once_they_permit_it(service: Service) -> None:
    service.spec = Spec("team/app", deletion=Deletion(limits=Limits(users=1)))
    service.store.add_users(*map(user, range(20)))
    for number in (1, 2):
        await service.deliver("user.deleted", user(number))

    assert await service.settle_due() == [Settled.REMOVED, Settled.HELD_BACK]
    assert user(2) in service.store.users()
    assert user(2) not in service.store.tombstones
    service.clock.advance(timedelta(hours=24))

    assert Settled.REMOVED in await service.settle_due()
    assert user(2) not in service.store.users()


async def test_an_event_about_a_user_without_rows_uses_nothing_up(service: Service) -> None:
    service.spec = Spec("team/app", deletion=Deletion(limits=Limits(users=0)))
    await service.deliver("user.deleted", user(1))

    assert await service.settle_due() == [Settled.REMOVED]
    assert service.store.tombstones == {user(1)}


HOLDBACK = timedelta(days=7)
HELD = Webhook(on_user_deleted=OnUserDeleted.HOLDBACK, holdback=HOLDBACK)
IGNORED = Webhook(OnUserCreated.IGNORE, OnUserDeleted.IGNORE)


@pytest.mark.parametrize("event_type", ["user.created", "user.deleted"])
@pytest.mark.parametrize("suspend", [False, True])
async def test_what_the_resource_says_to_ignore_leaves_no_trace(
    service: Service, event_type: str, *, suspend: bool
) -> None:
    service.spec = Spec("team/app", webhook=IGNORED, suspend=suspend)
    service.store.add_users(user(1))

    assert await service.deliver(event_type, user(1)) is Absorbed.IGNORED
    assert (service.store.delivered, service.store.claims, service.store.users()) == (set(), {}, {user(1)})


@pytest.mark.parametrize("kept", ["user.created", "user.deleted"])
async def test_one_type_is_ignored_without_the_other(service: Service, kept: str) -> None:
    webhook = Webhook(OnUserCreated.IGNORE) if kept == "user.deleted" else Webhook(on_user_deleted=OnUserDeleted.IGNORE)
    service.spec = Spec("team/app", webhook=webhook)

    answers = {each: await service.deliver(each, user(1)) for each in ("user.created", "user.deleted")}
    assert [each for each, answer in answers.items() if answer is not Absorbed.IGNORED] == [kept]


async def test_a_deletion_that_is_held_back_is_proved_when_the_holdback_is_over_and_not_before(
    service: Service,
) -> None:
    service.spec = Spec("team/app", webhook=HELD)
    service.store.add_users(user(1))

    assert await service.deliver("user.deleted", user(1)) is Absorbed.HELD
    service.clock.advance(HOLDBACK - timedelta(seconds=1))
    assert await service.settle_due() == []
    assert service.directory.calls.total() == 0
    service.clock.advance(timedelta(seconds=1))

    assert await service.settle_due() == [Settled.REMOVED]
    assert service.store.tombstones == {user(1)}


async def test_who_lives_at_the_end_of_the_holdback_keeps_every_row_and_nobody_is_alarmed(service: Service) -> None:
    service.spec = Spec("team/app", webhook=HELD)
    service.store.add_users(user(1))
    service.directory.sign_up(user(1))
    await service.deliver("user.deleted", user(1))
    service.clock.advance(HOLDBACK)

    settled = await service.settle_due()
    service.clock.advance(HOLDBACK_DELAYS[0])
    settled += await service.settle_due()

    assert settled == [Settled.POSTPONED, Settled.LIVES]
    assert (service.store.users(), service.store.claims, service.store.tombstones) == ({user(1)}, {}, set())


async def test_a_second_message_about_the_same_deletion_does_not_begin_the_holdback_anew(service: Service) -> None:
    service.spec = Spec("team/app", webhook=HELD)
    await service.deliver("user.deleted", user(1))
    service.clock.advance(HOLDBACK - timedelta(hours=1))
    assert await service.deliver("user.deleted", user(1)) is Absorbed.HELD
    service.clock.advance(timedelta(hours=1))

    assert await service.settle_due() == [Settled.REMOVED]


async def test_what_came_while_suspended_removes_nobody_whose_holdback_is_not_over(service: Service) -> None:
    service.spec = Spec("team/app", webhook=HELD)
    service.store.add_users(user(1))
    await service.deliver("user.deleted", user(1))
    service.spec = Spec("team/app", suspend=True)
    await service.deliver("user.created", user(1))
    service.spec = Spec("team/app")

    assert await service.settle_due() == [Settled.LEFT]
    assert service.store.users() == {user(1)}
    service.clock.advance(HOLDBACK)
    assert await service.settle_due() == [Settled.REMOVED]


async def test_a_holdback_goes_on_while_the_resource_is_suspended(service: Service) -> None:
    service.spec = Spec("team/app", webhook=HELD, suspend=True)

    assert await service.deliver("user.deleted", user(1)) is Absorbed.RECORDED
    assert await service.settle_due() == []
    service.clock.advance(HOLDBACK)
    service.spec = Spec("team/app", webhook=HELD)
    assert await service.settle_due() == [Settled.REMOVED]


@pytest.mark.parametrize("webhook", [HELD, IGNORED])
async def test_on_resume_nobody_is_removed_whom_the_resource_says_to_leave(service: Service, webhook: Webhook) -> None:
    service.spec = Spec("team/app", suspend=True)
    service.store.add_users(user(1))
    await service.deliver("user.created", user(1))
    service.spec = Spec("team/app", webhook=webhook)

    assert await service.settle_due() == [Settled.LEFT]
    assert (service.store.users(), service.store.claims, service.store.tombstones) == ({user(1)}, {}, set())


async def test_on_resume_no_profile_is_made_where_sign_ups_are_ignored(service: Service) -> None:
    service.spec = Spec("team/app", suspend=True, webhook=Webhook(OnUserCreated.IGNORE))
    service.directory.sign_up(user(1))
    await service.deliver("user.deleted", user(1))

    assert await service.settle_due() == [Settled.LEFT]
    assert (service.store.users(), service.store.claims) == (set(), {})


async def test_a_doubtful_sign_up_creates_nothing_before_clerk_has_answered(service: Service) -> None:
    service.directory.sign_up(user(1))

    assert await service.deliver("user.created", user(1), doubtful=True) is Absorbed.DOUBTED
    assert service.store.users() == set()
    assert await service.settle_due() == [Settled.CREATED]
    assert service.store.users("user_progress") == {user(1)}


async def test_a_doubtful_sign_up_of_nobody_leaves_neither_profile_nor_tombstone(service: Service) -> None:
    await service.deliver("user.created", user(1), doubtful=True)

    settled = await service.settle_due()
    service.clock.advance(RETRY_DELAY)
    settled += await service.settle_due()

    assert settled == [Settled.POSTPONED, Settled.UNKNOWN]
    assert (service.store.users(), service.store.claims, service.store.tombstones) == (set(), {}, set())


async def test_a_doubtful_sign_up_never_removes_a_row(service: Service) -> None:
    service.store.add_users(user(1))
    await service.deliver("user.created", user(1), doubtful=True)
    await service.settle_due()
    service.clock.advance(RETRY_DELAY)

    assert await service.settle_due() == [Settled.UNKNOWN]
    assert user(1) in service.store.users("tasks")


async def test_a_doubtful_sign_up_of_a_deleted_user_creates_nothing(service: Service) -> None:
    service.store.tombstones.add(user(1))
    service.directory.sign_up(user(1))
    await service.deliver("user.created", user(1), doubtful=True)

    await service.settle_due()
    assert service.store.users() == set()
