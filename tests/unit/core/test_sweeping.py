"""One run, on fakes: what it changes, and above all what it never does."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.approving import SetDigest, set_header
from controller.core.outcomes import Changes
from controller.core.plans import HoldReason, RemoveUsers
from controller.core.ports import Inspection, Phase
from controller.core.proofs import MAX_AGE
from controller.core.sweeping import SECOND_LOOK_AT_MOST
from controller.core.targets import Action, Approval, Deletion, DeletionPolicy, Target
from controller.errors import (
    ClerkAnswerOdd,
    ClerkRefused,
    ClerkUnavailable,
    DatabaseUnavailable,
    ListingIncomplete,
    LockLost,
    TargetBusy,
    UserSyncError,
    WrongInstance,
)
from tests.support.fakes.directory import INSTANCE, user
from tests.support.fakes.store import Receipt
from tests.unit.core.world import NO_LIMITS, World

if TYPE_CHECKING:
    from controller.core.plans import HeldBack
    from controller.core.users import UserId


def rows_of(world: World, user_id: UserId) -> int:
    return sum(row.user_id == user_id for rows in world.store.tables.values() for row in rows)


def nothing_is_gone(world: World) -> bool:
    return not world.store.archived and not world.store.tombstones


async def test_a_database_in_step_stays_as_it_is() -> None:
    world = World()

    outcome = await world.sweep()

    assert outcome.found.total == 0
    assert outcome.changes == Changes()
    assert nothing_is_gone(world)


async def test_missing_profiles_are_created() -> None:
    world = World()
    world.directory.sign_up(user(500), user(501))

    outcome = await world.sweep(Action.FIX_PROGRESS)

    assert outcome.changes == Changes(profiles_created=2)
    assert outcome.remaining.missing == 0
    assert {user(500), user(501)} <= world.store.users("user_progress")


async def test_no_profile_is_created_for_a_tombstoned_user() -> None:
    world = World()
    world.directory.sign_up(user(500))
    world.store.tombstones.add(user(500))

    await world.sweep(Action.FIX_PROGRESS)

    assert user(500) not in world.store.users()


async def test_users_deleted_in_clerk_are_removed_from_all_tables_and_nobody_else() -> None:
    world = World()
    gone = world.gone(5)

    outcome = await world.sweep(Action.CLEANUP)

    assert outcome.changes == Changes(users_removed=5, rows_removed=20)
    assert world.store.tombstones == set(gone)
    assert world.store.users() == set(world.directory.users)
    assert outcome.remaining.orphaned == 0


async def test_what_is_removed_is_archived() -> None:
    world = World()
    gone = world.gone(1)

    await world.sweep(Action.CLEANUP)

    assert sorted(table for table, row in world.store.archived if row.user_id == gone[0]) == sorted(world.store.tables)


async def test_duplicates_are_reduced_to_the_oldest() -> None:
    world = World()
    kept = world.store.tables["user_progress"][0]
    world.store.add_row("user_progress", kept.user_id, world.clock.now())
    world.store.add_row("user_progress", kept.user_id, None)

    outcome = await world.sweep(Action.FIX_DUPLICATES)

    assert outcome.changes == Changes(duplicates_removed=2)
    assert [row for row in world.store.tables["user_progress"] if row.user_id == kept.user_id] == [kept]


async def test_foreign_ids_are_counted_and_never_touched() -> None:
    world = World()
    for value in ("0b9f3a52-1111-2222-3333-444455556666", "system", "user_", "", None):
        world.store.add_row("tasks", value)
    before = list(world.store.tables["tasks"])

    outcome = await world.sweep()

    assert outcome.found.foreign == 3
    assert world.store.tables["tasks"] == before


async def test_a_dry_run_plans_and_changes_nothing() -> None:
    world = World()
    world.gone(5)
    world.directory.sign_up(user(500))

    outcome = await world.sweep(dry_run=True)

    assert outcome.changes == Changes(profiles_created=1, users_removed=5)
    assert outcome.remaining == outcome.found
    assert nothing_is_gone(world)
    assert user(500) not in world.store.users()


async def test_a_person_who_declines_keeps_the_deletion_back_and_nothing_else() -> None:
    world = World()
    world.gone(5)
    world.directory.sign_up(user(500))
    world.watcher.permits = False

    outcome = await world.sweep()

    assert outcome.declined
    assert outcome.changes == Changes(profiles_created=1)
    assert nothing_is_gone(world)


async def test_nobody_is_asked_about_a_plan_that_deletes_nothing() -> None:
    world = World()
    world.directory.sign_up(user(500))

    await world.sweep()

    assert world.watcher.asked == []


async def test_a_user_whose_rows_are_held_is_left_whole_while_the_others_go() -> None:
    world = World()
    gone = world.gone(3)
    world.store.unremovable.add(gone[1])

    outcome = await world.sweep()

    assert outcome.changes.users_removed == 2
    assert outcome.changes.users_left == 1
    assert rows_of(world, gone[1]) == 4


async def test_while_a_cascade_leads_to_an_unlisted_table_nobody_is_removed_and_the_run_goes_on() -> None:
    world = World()
    gone = world.gone(3)
    world.directory.sign_up(user(500))
    world.store.inspection = Inspection(unlisted_cascades=("list comments",))

    outcome = await world.sweep()

    assert outcome.held_back is not None
    assert outcome.held_back.reason is HoldReason.UNLISTED_CASCADE
    assert outcome.changes == Changes(profiles_created=1)
    assert nothing_is_gone(world)
    assert set(gone) <= world.store.users()


async def test_users_whose_duplicates_are_referred_to_keep_them_and_are_counted() -> None:
    world = World()
    bound, free = sorted(world.store.users())[:2]
    for user_id in (bound, free):
        world.store.add_row("user_progress", user_id)
    world.store.referred_to.add(bound)

    outcome = await world.sweep(Action.FIX_DUPLICATES)

    assert outcome.changes == Changes(duplicates_removed=1, duplicates_left=1)
    assert outcome.remaining.duplicates == 1


async def test_the_warnings_of_the_inspection_stand_in_the_outcome() -> None:
    world = World()
    world.store.inspection = Inspection(warnings=("table moods does not exist",))

    assert (await world.sweep()).warnings == ("table moods does not exist",)


async def test_the_outcome_is_written_to_the_audit() -> None:
    world = World()

    outcome = await world.sweep()

    assert world.store.finished == [outcome]


async def test_the_ids_of_each_kind_are_shown_to_who_wants_them() -> None:
    world = World()
    gone = world.gone(2)
    world.directory.sign_up(user(500))
    world.store.add_row("user_progress", user(50))
    world.watcher.shows = True

    await world.sweep(Action.ANALYZE)

    assert world.watcher.shown == {"missing": [user(500)], "orphaned": gone, "duplicated": [user(50)]}


async def test_progress_is_told_phase_by_phase() -> None:
    world = World()
    world.gone(2)

    await world.sweep(Action.CLEANUP)

    assert world.watcher.progress == [
        (Phase.LIST, 98),
        (Phase.OBSERVE, 0),
        (Phase.OBSERVE, 100),
        (Phase.SECOND_LOOK, 2),
        (Phase.REMOVE, 2),
    ]


async def test_an_empty_listing_deletes_nobody() -> None:
    world = World(synced=1)
    world.gone(1)

    outcome = await world.sweep(limits=NO_LIMITS)

    assert outcome.held_back is not None
    assert outcome.held_back.reason is HoldReason.EMPTY_SOURCE
    assert nothing_is_gone(world)


async def test_more_than_the_limit_deletes_nobody() -> None:
    world = World()
    world.gone(11)

    outcome = await world.sweep()

    assert outcome.held_back is not None
    assert outcome.held_back.reason is HoldReason.THRESHOLD_EXCEEDED
    assert nothing_is_gone(world)


async def test_no_more_users_go_than_were_planned_whatever_arrives_meanwhile() -> None:
    """A backup restored while a person thinks it over: ten thousand users who are gone indeed."""
    world = World()
    world.gone(7)
    world.store.batch = 8
    world.watcher.on_permit = lambda: world.store.add_users(*map(user, range(1000, 1100)))

    outcome = await world.sweep()

    assert world.watcher.asked[0].changes == (RemoveUsers(7, 10),)
    assert outcome.changes.users_removed == 7
    assert outcome.remaining.orphaned == 100


async def test_no_look_up_outlives_the_run() -> None:
    world = World()
    world.gone(5)
    world.directory.turns_of_a_look_up = 100

    def fail_at_the_third(method: str) -> None:
        if method == "look_up" and world.directory.calls["look_up"] == 3:
            message = "away"
            raise ClerkUnavailable(message)

    world.directory.before = fail_at_the_third

    with pytest.raises(ClerkUnavailable):
        await world.sweep()

    assert world.directory.calls["look_up"] == 5
    assert world.directory.look_ups_under_way == 0


async def test_a_listing_that_hides_a_living_user_deletes_nobody() -> None:
    world = World()
    world.gone(2)
    world.directory.hidden_from_listing.add(user(50))

    outcome = await world.sweep()

    assert outcome.held_back is not None
    assert outcome.held_back.reason is HoldReason.PARTIAL_SOURCE
    assert nothing_is_gone(world)


async def test_a_user_who_signed_up_during_the_listing_does_not_hold_the_others_back() -> None:
    world = World()
    world.gone(2)
    newcomer = user(900)
    world.directory.sign_up(newcomer, created_at=world.clock.now() + timedelta(seconds=1))
    world.directory.hidden_from_listing.add(newcomer)
    world.store.add_users(newcomer)

    outcome = await world.sweep()

    assert outcome.found.orphaned == 2
    assert outcome.changes.users_removed == 2
    assert rows_of(world, newcomer) == 4


@pytest.mark.parametrize(
    "error", [ListingIncomplete("cut short"), ClerkUnavailable("500"), ClerkRefused("403"), ClerkAnswerOdd("html")]
)
@pytest.mark.parametrize("pages", [0, 1, 2])
async def test_a_listing_that_fails_on_any_page_changes_nothing(error: UserSyncError, pages: int) -> None:
    world = World()
    world.gone(2)
    world.directory.sign_up(user(500))
    world.directory.page_size = 40
    world.directory.pages_before_error = pages
    world.directory.errors["list_users"] = error

    with pytest.raises(type(error)):
        await world.sweep(limits=NO_LIMITS)

    assert nothing_is_gone(world)
    assert world.store.failures == [error]


async def test_a_user_hidden_from_listing_and_filter_but_found_by_id_is_spared() -> None:
    world = World()
    world.gone(2)
    world.directory.hidden_from_listing.add(user(50))
    world.directory.hidden_from_filter.add(user(50))

    outcome = await world.sweep()

    assert outcome.changes.users_removed == 2
    assert outcome.changes.users_spared == 1
    assert rows_of(world, user(50)) == 4


async def test_the_filter_is_asked_again_just_before_the_removal() -> None:
    """Absent in listing, second look and (a lie) by id: the filter, asked once more, is what saves the user."""
    world = World()
    world.directory.hidden_from_listing.add(user(50))
    world.directory.hidden_from_filter.add(user(50))
    world.directory.lying_look_up.add(user(50))
    world.watcher.on_permit = world.directory.hidden_from_filter.clear

    outcome = await world.sweep()

    assert outcome.changes.users_spared == 1
    assert rows_of(world, user(50)) == 4


async def test_a_user_who_signs_up_again_before_the_removal_is_spared() -> None:
    world = World()
    gone = world.gone(2)
    world.watcher.on_permit = lambda: world.directory.sign_up(gone[0])

    outcome = await world.sweep()

    assert world.store.tombstones == {gone[1]}
    assert outcome.changes.users_spared == 1


async def test_one_odd_look_up_leaves_its_user_and_lets_the_others_go() -> None:
    world = World()
    gone = world.gone(3)
    world.directory.odd_look_up.add(gone[1])

    outcome = await world.sweep()

    assert world.store.tombstones == {gone[0], gone[2]}
    assert outcome.changes.users_left == 1
    assert rows_of(world, gone[1]) == 4


@pytest.mark.parametrize("error", [ClerkUnavailable("500"), ClerkRefused("403")])
async def test_a_look_up_without_an_answer_removes_nobody(error: UserSyncError) -> None:
    world = World()
    world.gone(3)
    world.directory.errors["look_up"] = error

    with pytest.raises(type(error)):
        await world.sweep()

    assert nothing_is_gone(world)


@pytest.mark.parametrize("error", [ClerkUnavailable("500"), ClerkRefused("403"), ClerkAnswerOdd("html")])
async def test_a_second_look_without_an_answer_removes_nobody(error: UserSyncError) -> None:
    world = World()
    world.gone(3)
    world.directory.errors["find"] = error

    with pytest.raises(type(error)):
        await world.sweep()

    assert nothing_is_gone(world)


async def test_a_proof_that_grew_old_over_a_slow_look_up_removes_nobody() -> None:
    world = World()
    world.gone(1)

    def slowly(method: str) -> None:
        if method == "look_up":
            world.clock.advance(MAX_AGE + timedelta(seconds=1))

    world.directory.before = slowly

    outcome = await world.sweep()

    assert outcome.changes.users_left == 1
    assert nothing_is_gone(world)


async def test_slow_look_ups_of_many_users_let_no_proof_grow_old() -> None:
    world = World(synced=1000)
    gone = world.gone(100)

    def slowly(method: str) -> None:
        if method == "look_up":
            world.clock.advance(timedelta(seconds=10))

    world.directory.before = slowly

    outcome = await world.sweep()

    assert outcome.changes.users_removed == len(gone)
    assert outcome.changes.users_left == 0


async def test_every_removed_user_was_asked_for_by_filter_twice_and_by_id() -> None:
    world = World()
    gone = world.gone(5)

    await world.sweep(Action.CLEANUP)

    assert sorted(world.directory.asked["find"]) == sorted([*gone, *gone])
    assert sorted(world.directory.asked["look_up"]) == gone


async def test_living_users_cost_no_question() -> None:
    world = World()

    await world.sweep()

    assert world.directory.asked == {"find": [], "look_up": [], "profiles": []}


async def test_the_second_look_asks_for_a_bounded_number_of_users() -> None:
    world = World(synced=SECOND_LOOK_AT_MOST + 1000)
    world.gone(SECOND_LOOK_AT_MOST + 600)

    outcome = await world.sweep()

    assert outcome.held_back is not None
    assert len(world.directory.asked["find"]) == SECOND_LOOK_AT_MOST


async def test_another_instance_than_the_pinned_one_is_never_listed() -> None:
    world = World()
    world.gone(5)
    world.store.pinned = "ins_2another"

    with pytest.raises(WrongInstance):
        await world.sweep(limits=NO_LIMITS)

    assert world.directory.calls["list_users"] == 0
    assert nothing_is_gone(world)


async def test_a_proof_of_another_instance_removes_nobody() -> None:
    """The pin is checked at the start; a proof carries its instance to the store, which checks it again."""
    world = World()
    world.gone(5)

    def repin() -> None:
        world.store.pinned = "ins_2another"

    world.watcher.on_permit = repin

    outcome = await world.sweep()

    assert outcome.changes.users_left == 5
    assert nothing_is_gone(world)


async def test_the_audit_says_whose_run_it_is() -> None:
    world = World()

    await world.sweep()

    label = world.store.labels[0]
    assert (label.resource, label.instance, label.holder) == ("team/app", INSTANCE, "test")


async def test_nothing_is_listed_while_another_run_is_at_work() -> None:
    world = World()
    world.store.busy = True

    with pytest.raises(TargetBusy):
        await world.sweep()

    assert world.directory.calls["list_users"] == 0


@pytest.mark.parametrize("method", ["record_listed", "observe", "weigh", "create_profiles", "remove_users"])
@pytest.mark.parametrize("error", [LockLost("taken over"), DatabaseUnavailable("restart")])
async def test_an_error_of_the_database_ends_the_run(method: str, error: UserSyncError) -> None:
    world = World()
    world.gone(2)
    world.directory.sign_up(user(500))
    world.store.errors[method] = error

    with pytest.raises(type(error)):
        await world.sweep()

    assert nothing_is_gone(world)
    assert world.store.failures == [error]
    assert world.store.finished == []


async def test_a_listing_is_closed_when_recording_it_fails() -> None:
    world = World()
    world.store.errors["record_listed"] = LockLost("taken over")

    with pytest.raises(LockLost):
        await world.sweep()

    assert world.directory.open_listings == 0


DAY = Deletion()


async def test_nobody_goes_before_the_grace_period_and_the_run_says_who_waits() -> None:
    world = World()
    world.gone(5)

    outcome = await world.sweep(deletion=DAY)

    assert outcome.users_waiting == 5
    assert outcome.changes == Changes()
    assert nothing_is_gone(world)


async def test_after_the_grace_period_the_next_run_removes_them() -> None:
    world = World()
    gone = world.gone(5)
    await world.sweep(deletion=DAY)
    world.clock.advance(timedelta(hours=24))

    outcome = await world.sweep(deletion=DAY)

    assert outcome.changes.users_removed == 5
    assert world.store.tombstones == set(gone)


async def test_a_failed_listing_neither_adds_nor_ages() -> None:
    world = World()
    world.gone(5)
    world.directory.errors["list_users"] = ListingIncomplete("page 3 is short")
    with pytest.raises(ListingIncomplete):
        await world.sweep(deletion=DAY)
    world.clock.advance(timedelta(hours=24))
    del world.directory.errors["list_users"]

    outcome = await world.sweep(deletion=DAY)

    assert outcome.users_waiting == 5
    assert nothing_is_gone(world)


@pytest.mark.parametrize("lie", ["empty", "partial"])
async def test_a_listing_that_is_not_believed_ages_nobody(lie: str) -> None:
    world = World()
    gone = world.gone(5)
    await world.sweep(deletion=DAY)
    before = deepcopy(world.store.suspects)
    world.clock.advance(timedelta(hours=23))
    hidden = set(world.directory.users) if lie == "empty" else {user(50)}
    world.directory.hidden_from_listing = hidden

    outcome = await world.sweep(deletion=DAY)

    assert outcome.held_back is not None
    assert world.store.suspects == before
    assert set(before) == set(gone)


async def test_a_dry_run_ages_suspects_and_removes_nobody() -> None:
    world = World()
    world.gone(5)
    await world.sweep(deletion=DAY, dry_run=True)
    world.clock.advance(timedelta(hours=24))

    outcome = await world.sweep(deletion=DAY, dry_run=True)

    assert outcome.changes.users_removed == 5
    assert nothing_is_gone(world)


async def held_back(world: World) -> HeldBack:
    outcome = await world.sweep(Action.CLEANUP)
    assert outcome.held_back is not None
    assert nothing_is_gone(world)
    return outcome.held_back


async def test_a_set_beyond_the_limits_is_named_by_its_digest() -> None:
    world = World()
    gone = world.gone(11)

    held = await held_back(world)

    digest = SetDigest(set_header(INSTANCE.id, Target(), DeletionPolicy.ARCHIVE))
    digest.add(gone)
    assert (held.reason, held.users, held.digest) == (HoldReason.THRESHOLD_EXCEEDED, 11, digest.hexdigest())
    assert digest.hexdigest() in held.message


async def test_the_same_set_held_back_again_awaits_approval_since_the_first_time() -> None:
    world = World()
    world.gone(11)
    first = await held_back(world)
    world.clock.advance(timedelta(hours=1))

    again = await held_back(world)

    assert again.reason is HoldReason.AWAITING_APPROVAL
    assert (again.digest, again.since) == (first.digest, first.since)


async def test_an_approved_set_is_removed_and_its_approval_used_up() -> None:
    world = World()
    gone = world.gone(20)
    digest = (await held_back(world)).digest
    assert digest is not None
    approval = Approval(digest, "a person")

    outcome = await world.sweep(Action.CLEANUP, approval=approval)

    assert outcome.changes.users_removed == 20
    assert world.store.tombstones == set(gone)
    assert (world.store.held[digest].approved_by, world.store.held[digest].used) == ("a person", True)
    assert {receipt.approval for receipt in world.store.receipts} == {digest}


async def test_users_of_an_approved_set_who_came_back_are_spared_and_newcomers_wait() -> None:
    world = World()
    gone = world.gone(20)
    digest = (await held_back(world)).digest
    assert digest is not None
    world.directory.sign_up(gone[0])
    newcomers = [user(number) for number in range(20, 40)]
    world.directory.delete(*newcomers)

    outcome = await world.sweep(Action.CLEANUP, approval=Approval(digest, "a person"))

    assert world.store.tombstones == set(gone[1:])
    assert outcome.held_back is not None
    assert outcome.held_back.users == len(newcomers)
    assert set(newcomers) <= world.store.users()


async def test_each_user_of_an_approved_set_is_proved_again() -> None:
    world = World()
    gone = world.gone(20)
    digest = (await held_back(world)).digest
    assert digest is not None
    world.directory.sign_up(*gone)
    world.directory.hidden_from_listing = world.directory.hidden_from_filter = set(gone)

    outcome = await world.sweep(Action.CLEANUP, approval=Approval(digest, "a person"))

    assert outcome.changes.users_spared == 20
    assert nothing_is_gone(world)


async def test_an_approval_of_whom_nobody_could_be_removed_is_not_used_up() -> None:
    world = World()
    gone = world.gone(20)
    digest = (await held_back(world)).digest
    assert digest is not None
    world.store.unremovable = set(gone)

    await world.sweep(Action.CLEANUP, approval=Approval(digest, "a person"))
    assert nothing_is_gone(world)
    world.store.unremovable = set()

    outcome = await world.sweep(Action.CLEANUP, approval=Approval(digest, "a person"))
    assert outcome.changes.users_removed == 20


async def test_a_wrong_digest_permits_nobody_and_says_so() -> None:
    world = World()
    world.gone(20)
    await held_back(world)

    outcome = await world.sweep(Action.CLEANUP, approval=Approval("0" * 64, "a person"))

    assert nothing_is_gone(world)
    assert outcome.held_back is not None
    assert "no effect" in outcome.held_back.message


async def test_an_approval_that_a_person_declines_at_the_last_moment_is_not_used_up() -> None:
    world = World()
    world.gone(20)
    digest = (await held_back(world)).digest
    assert digest is not None
    world.watcher.permits = False

    outcome = await world.sweep(Action.CLEANUP, approval=Approval(digest, "a person"))

    assert outcome.declined
    assert nothing_is_gone(world)
    assert not world.store.held[digest].used


async def test_events_that_use_the_limits_up_meanwhile_stop_the_run() -> None:
    world = World()
    world.gone(10)

    def remove_by_events() -> None:
        now = world.clock.now()
        world.store.receipts += [Receipt(user(number), "Archive", counted=True, issued_at=now) for number in (90, 91)]

    world.watcher.on_permit = remove_by_events

    outcome = await world.sweep(Action.CLEANUP)

    assert outcome.changes.users_removed == 0
    assert outcome.changes.users_left == 10
    assert nothing_is_gone(world)


async def test_what_events_removed_within_the_window_counts_in_the_plan() -> None:
    world = World()
    world.gone(10)
    now = world.clock.now()
    world.store.receipts += [Receipt(user(number), "Archive", counted=True, issued_at=now) for number in (900, 901)]

    held = await held_back(world)

    assert held.reason is HoldReason.THRESHOLD_EXCEEDED
