"""The rules that permit or hold back, on their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.drift import Drift
from controller.core.planning import Suspects, allowance, plan
from controller.core.plans import CreateProfiles, HoldReason, ReduceDuplicates, RemoveUsers
from controller.core.targets import Action, Limits, Policy, expand

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
    planned = plan(drift(missing=2, orphaned=3, duplicates=4), Suspects(absent=3), Policy(EVERYTHING))

    assert planned.changes == (CreateProfiles(2), RemoveUsers(3), ReduceDuplicates(1, 4))


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

    planned = plan(found, Suspects(absent=3), Policy(expand((action,))))

    assert [type(change) for change in planned.changes] == [kind]


def test_analyze_changes_nothing_and_holds_nothing_back() -> None:
    found = drift(missing=2, orphaned=90, duplicates=4)

    planned = plan(found, Suspects(absent=90), Policy(expand((Action.ANALYZE,))))

    assert planned.changes == ()
    assert planned.held_back is None


def test_reaching_the_limit_is_permitted() -> None:
    planned = plan(drift(orphaned=10), Suspects(absent=10), Policy(EVERYTHING, Limits(500, 10)))

    assert planned.changes == (RemoveUsers(10),)


def test_passing_the_limit_holds_everything_back() -> None:
    planned = plan(drift(orphaned=11), Suspects(absent=11), Policy(EVERYTHING, Limits(500, 10)))

    assert planned.changes == ()
    assert planned.held_back is not None
    assert planned.held_back.reason is HoldReason.THRESHOLD_EXCEEDED
    assert planned.held_back.percent == 11.0


def test_users_whom_the_second_look_found_do_not_count_against_the_limit() -> None:
    planned = plan(drift(orphaned=50), Suspects(absent=10), Policy(EVERYTHING, Limits(500, 10)))

    assert planned.changes == (RemoveUsers(10),)


def test_an_empty_listing_deletes_nobody_whatever_the_limits() -> None:
    found = drift(clerk_users=0, orphaned=1, users_with_rows=1)

    planned = plan(found, Suspects(), Policy(EVERYTHING, Limits(1_000_000, 100)))

    assert planned.changes == ()
    assert planned.held_back is not None
    assert planned.held_back.reason is HoldReason.EMPTY_SOURCE


def test_a_listing_proved_wrong_deletes_nobody() -> None:
    planned = plan(drift(orphaned=2), Suspects(absent=1, contradicted=1), Policy(EVERYTHING))

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

    planned = plan(found, Suspects(absent=3), Policy(EVERYTHING), ("list comments", "list likes"))

    assert planned.changes == (CreateProfiles(2), ReduceDuplicates(1, 4))
    assert planned.held_back is not None
    assert (planned.held_back.reason, planned.held_back.users) == (HoldReason.UNLISTED_CASCADE, 3)
    assert planned.held_back.message == "list comments (1 more such key(s) are among the warnings.)"


def test_a_cascade_into_an_unlisted_table_is_said_before_the_limits() -> None:
    """Raising them, or approving, would not let anybody go."""
    planned = plan(drift(orphaned=90), Suspects(absent=90), Policy(EVERYTHING), ("list comments",))

    assert planned.held_back is not None
    assert planned.held_back.reason is HoldReason.UNLISTED_CASCADE
    assert planned.held_back.message == "list comments"


def test_a_cascade_into_an_unlisted_table_is_no_matter_where_nobody_is_to_go() -> None:
    planned = plan(drift(missing=2), Suspects(), Policy(EVERYTHING), ("list comments",))

    assert planned.held_back is None


def test_a_held_back_deletion_does_not_hold_back_the_repairs() -> None:
    found = drift(missing=2, orphaned=90, duplicates=4)

    planned = plan(found, Suspects(absent=90), Policy(EVERYTHING))

    assert planned.changes == (CreateProfiles(2), ReduceDuplicates(1, 4))


counts = st.integers(0, 2000)


@given(
    clerk_users=counts,
    users_with_rows=counts,
    orphaned=counts,
    absent=counts,
    contradicted=st.integers(0, 3),
    limits=st.builds(Limits, st.integers(0, 600), st.integers(0, 100)),
)
def test_never_more_users_are_planned_away_than_the_limits_allow(
    *, clerk_users: int, users_with_rows: int, orphaned: int, absent: int, contradicted: int, limits: Limits
) -> None:
    found = drift(clerk_users=clerk_users, users_with_rows=users_with_rows, orphaned=orphaned)

    planned = plan(found, Suspects(absent, contradicted), Policy(EVERYTHING, limits))

    removed = sum(change.users for change in planned.changes if isinstance(change, RemoveUsers))
    assert removed <= limits.users
    assert users_with_rows < 50 or removed * 100 <= limits.percent * users_with_rows
    assert users_with_rows >= 50 or removed <= 5
    assert not removed or (clerk_users and not contradicted)
    assert not (removed and planned.held_back)
