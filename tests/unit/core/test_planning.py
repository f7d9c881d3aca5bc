"""The rules that permit or hold back, on their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.drift import Drift
from controller.core.planning import allowance, plan
from controller.core.plans import CreateProfiles, HoldReason, ReduceDuplicates, RemoveUsers
from controller.core.suspects import Suspects
from controller.core.targets import Action, Deletion, Limits, Policy, expand

EVERYTHING = expand((Action.FULL_SYNC,))


def drift(
    *, clerk_users: int = 100, users_with_rows: int = 100, missing: int = 0, orphaned: int = 0, duplicates: int = 0
) -> Drift:
    return Drift(
        clerk_users=clerk_users,
        users_with_rows=users_with_rows,
        synced=clerk_users - missing,
        missing=missing,
        clerk_only=missing,
        orphaned=orphaned,
        duplicates=duplicates,
        duplicated_users=min(duplicates, 1),
        foreign=0,
    )


@pytest.mark.parametrize(
    ("limits", "users_with_rows", "permitted"),
    [
        (Limits(500, 10), 0, 5),
        (Limits(500, 10), 1, 5),
        (Limits(500, 10), 49, 5),
        (Limits(500, 10), 50, 5),
        (Limits(500, 10), 59, 5),
        (Limits(500, 10), 60, 6),
        (Limits(500, 10), 5000, 500),
        (Limits(500, 10), 1_000_000, 500),
        (Limits(3, 10), 10, 3),
        (Limits(0, 10), 10, 0),
        (Limits(0, 100), 1000, 0),
        (Limits(500, 0), 1000, 0),
        (Limits(500, 0), 49, 5),
        (Limits(500, 100), 60, 60),
    ],
)
def test_the_allowance_is_the_lower_of_both_limits_and_the_percentage_counts_from_fifty_users(
    limits: Limits, users_with_rows: int, permitted: int
) -> None:
    assert allowance(limits, users_with_rows) == permitted


def test_no_drift_is_an_empty_plan() -> None:
    planned = plan(drift(), Suspects(), Policy(EVERYTHING))

    assert planned.changes == ()
    assert planned.held_back is None


def test_the_changes_come_in_the_order_of_a_full_sync() -> None:
    planned = plan(drift(missing=2, orphaned=3, duplicates=4), Suspects(due=3), Policy(EVERYTHING))

    assert planned.changes == (CreateProfiles(2), RemoveUsers(3, 10), ReduceDuplicates(1, 4))


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (Action.FIX_PROGRESS, CreateProfiles),
        (Action.CLEANUP, RemoveUsers),
        (Action.FIX_DUPLICATES, ReduceDuplicates),
    ],
)
def test_an_action_plans_its_own_change_alone(action: Action, kind: type) -> None:
    found = drift(missing=2, orphaned=3, duplicates=4)

    planned = plan(found, Suspects(due=3), Policy(expand((action,))))

    assert [type(change) for change in planned.changes] == [kind]


def test_analyze_changes_nothing_and_holds_nothing_back() -> None:
    found = drift(missing=2, orphaned=90, duplicates=4)

    planned = plan(found, Suspects(due=90), Policy(expand((Action.ANALYZE,))))

    assert planned.changes == ()
    assert planned.held_back is None


def test_reaching_the_limit_is_permitted() -> None:
    planned = plan(drift(orphaned=10), Suspects(due=10), Policy(EVERYTHING, Deletion(limits=Limits(500, 10))))

    assert planned.changes == (RemoveUsers(10, 10),)


def test_passing_the_limit_holds_everything_back() -> None:
    planned = plan(drift(orphaned=11), Suspects(due=11), Policy(EVERYTHING, Deletion(limits=Limits(500, 10))))

    assert planned.changes == ()
    assert planned.held_back is not None
    assert planned.held_back.reason is HoldReason.THRESHOLD_EXCEEDED
    assert planned.held_back.percent == 11.0


def test_users_who_wait_for_the_grace_period_do_not_count_against_the_limit() -> None:
    planned = plan(drift(orphaned=50), Suspects(due=10, waiting=40), Policy(EVERYTHING))

    assert planned.changes == (RemoveUsers(10, 10),)


def test_an_empty_listing_deletes_nobody_whatever_the_limits() -> None:
    found = drift(clerk_users=0, orphaned=1, users_with_rows=1)

    planned = plan(found, Suspects(), Policy(EVERYTHING, Deletion(limits=Limits(1_000_000, 100))))

    assert planned.changes == ()
    assert planned.held_back is not None
    assert planned.held_back.reason is HoldReason.EMPTY_SOURCE


def test_a_listing_proved_wrong_deletes_nobody() -> None:
    planned = plan(drift(orphaned=2), Suspects(due=1, approved=1, contradicted=1), Policy(EVERYTHING))

    assert planned.changes == ()
    assert planned.held_back is not None
    assert planned.held_back.reason is HoldReason.PARTIAL_SOURCE


def test_a_listing_proved_wrong_is_said_also_where_nobody_is_left_to_delete() -> None:
    """The second look has put everybody back who was hidden; the reason must still be heard."""
    planned = plan(drift(orphaned=0), Suspects(contradicted=5), Policy(EVERYTHING))

    assert planned.held_back is not None
    assert (planned.held_back.reason, planned.held_back.users) == (HoldReason.PARTIAL_SOURCE, 5)


def test_a_cascade_into_an_unlisted_table_deletes_nobody_and_the_repairs_go_on() -> None:
    found = drift(missing=2, orphaned=3, duplicates=4)

    planned = plan(found, Suspects(due=3), Policy(EVERYTHING), ("list comments", "list likes"))

    assert planned.changes == (CreateProfiles(2), ReduceDuplicates(1, 4))
    assert planned.held_back is not None
    assert (planned.held_back.reason, planned.held_back.users) == (HoldReason.UNLISTED_CASCADE, 3)
    assert planned.held_back.message == "list comments (1 more such key(s) are among the warnings.)"


def test_a_cascade_into_an_unlisted_table_is_said_before_the_limits() -> None:
    """Raising them, or approving, would not let anybody go."""
    planned = plan(drift(orphaned=90), Suspects(due=90), Policy(EVERYTHING), ("list comments",))

    assert planned.held_back is not None
    assert planned.held_back.reason is HoldReason.UNLISTED_CASCADE
    assert planned.held_back.message == "list comments"


def test_a_cascade_into_an_unlisted_table_is_no_matter_where_nobody_is_to_go() -> None:
    planned = plan(drift(missing=2), Suspects(), Policy(EVERYTHING), ("list comments",))

    assert planned.held_back is None


def test_a_held_back_deletion_does_not_hold_back_the_repairs() -> None:
    found = drift(missing=2, orphaned=90, duplicates=4)

    planned = plan(found, Suspects(due=90), Policy(EVERYTHING))

    assert planned.changes == (CreateProfiles(2), ReduceDuplicates(1, 4))


def test_whoever_went_within_the_window_counts() -> None:
    found = drift(users_with_rows=91, orphaned=2)

    reaching = plan(found, Suspects(due=1, removed=9), Policy(EVERYTHING))
    passing = plan(found, Suspects(due=2, removed=9), Policy(EVERYTHING))

    assert reaching.changes == (RemoveUsers(1, 10),)
    assert passing.changes == ()
    assert passing.held_back is not None
    assert passing.held_back.base == 100


def test_whose_rows_came_back_within_the_window_counts_once() -> None:
    found = drift(users_with_rows=100, orphaned=1)

    planned = plan(found, Suspects(due=1, due_counted=1, removed=10), Policy(EVERYTHING))

    assert planned.changes == (RemoveUsers(1, 10),)


def test_an_approved_set_goes_whatever_the_limits_and_newcomers_wait_for_a_set_of_their_own() -> None:
    planned = plan(drift(orphaned=61), Suspects(due=11, approved=50), Policy(EVERYTHING))

    assert planned.changes == (RemoveUsers(50),)
    assert planned.changes[0].approved
    assert planned.held_back is not None
    assert planned.held_back.users == 11


def test_newcomers_to_an_approved_set_go_within_the_limits() -> None:
    planned = plan(drift(orphaned=60), Suspects(due=10, approved=50), Policy(EVERYTHING))

    assert planned.changes == (RemoveUsers(50), RemoveUsers(10, 10))
    assert planned.held_back is None


def test_no_approval_helps_against_an_empty_listing() -> None:
    planned = plan(drift(clerk_users=0, orphaned=50), Suspects(approved=50), Policy(EVERYTHING))

    assert planned.changes == ()


counts = st.integers(0, 2000)


@given(
    clerk_users=counts,
    users_with_rows=counts,
    suspects=st.builds(
        Suspects, due=counts, waiting=counts, removed=counts, contradicted=st.integers(0, 3), approved=counts
    ),
    limits=st.builds(Limits, st.integers(0, 600), st.integers(0, 100)),
)
def test_never_more_users_are_planned_away_than_the_limits_allow(
    *, clerk_users: int, users_with_rows: int, suspects: Suspects, limits: Limits
) -> None:
    orphaned = suspects.due + suspects.waiting + suspects.approved
    found = drift(clerk_users=clerk_users, users_with_rows=users_with_rows, orphaned=orphaned)

    planned = plan(found, suspects, Policy(EVERYTHING, Deletion(limits=limits)))

    removals = [change for change in planned.changes if isinstance(change, RemoveUsers)]
    unapproved = sum(change.users for change in removals if not change.approved)
    gone, base = suspects.removed + unapproved, users_with_rows + suspects.removed
    assert not unapproved or gone <= limits.users
    assert not unapproved or base < 50 or gone * 100 <= limits.percent * base
    assert not unapproved or base >= 50 or gone <= 5
    assert sum(change.users for change in removals if change.approved) <= suspects.approved
    assert not removals or (clerk_users and not suspects.contradicted)
    assert not (unapproved and planned.held_back)
