"""The population: order, pages, filters, counts."""

from __future__ import annotations

import pytest

from controller.core.users import parse_user_id
from controller.emulator.users import UserQuery, Users

NOW = 1_750_000_000_000


@pytest.fixture
def users() -> Users:
    return Users(seed=7, now=lambda: NOW)


def walk(users: Users, limit: int, **query: int | bool) -> list[str]:
    """List everybody by cursor."""
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = users.page(UserQuery(limit=limit, starting_after=cursor, **query))  # type: ignore[arg-type]  # fields by name
        seen += page
        if len(page) < limit:
            return seen
        cursor = page[-1]


def test_ids_have_clerks_form_and_follow_from_the_seed(users: Users) -> None:
    ids = users.add(1000)
    assert len(set(ids)) == 1000
    assert all(parse_user_id(each) is not None for each in ids)
    assert ids == Users(seed=7, now=lambda: NOW).add(1000)
    assert ids != Users(seed=8, now=lambda: NOW).add(1000)


def test_a_page_begins_with_the_newest_user(users: Users) -> None:
    ids = users.add(30)
    assert users.page(UserQuery(limit=3)) == [ids[29], ids[28], ids[27]]


def test_ascending_order_begins_with_the_oldest_user(users: Users) -> None:
    ids = users.add(30)
    assert users.page(UserQuery(limit=3, descending=False)) == ids[:3]


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("limit", [1, 7, 10, 500])
def test_cursors_visit_every_user_once(users: Users, limit: int, descending: bool) -> None:  # noqa: FBT001  parametrized
    ids = users.add(70)
    seen = walk(users, limit, descending=descending)
    assert seen == (ids[::-1] if descending else ids)


def test_cursors_visit_users_of_one_millisecond_once_each(users: Users) -> None:
    ids = users.add(25, created_from=NOW, created_until=NOW)
    assert walk(users, 4) == sorted(ids, reverse=True)


def test_an_older_batch_is_sorted_in(users: Users) -> None:
    newer = users.add(10, created_from=2000, created_until=3000)
    older = users.add(10, created_from=1000, created_until=2000)
    assert list(users) == older + newer


def test_an_offset_skips_users(users: Users) -> None:
    ids = users.add(30)
    assert users.page(UserQuery(limit=2, offset=5)) == [ids[24], ids[23]]
    assert users.page(UserQuery(limit=2, offset=30)) == []


def test_both_bounds_of_creation_are_exclusive(users: Users) -> None:
    first, second, third = (users.sign_up(created_at=moment) for moment in (1000, 2000, 3000))
    assert users.page(UserQuery(created_after=1000, created_before=3000)) == [second]
    assert users.page(UserQuery(created_after=999, created_before=3001)) == [third, second, first]
    assert users.count(UserQuery(created_after=1000)) == 2


def test_bounds_that_cross_mean_nobody(users: Users) -> None:
    users.add(10, created_from=1000, created_until=3000)
    crossed = UserQuery(created_after=2500, created_before=1500)
    assert users.page(crossed) == []
    assert users.count(crossed) == 0


def test_a_cursor_stays_within_the_bounds(users: Users) -> None:
    ids = users.add(10, created_from=0, created_until=10)
    assert users.page(UserQuery(created_after=2, starting_after=ids[5])) == [ids[4], ids[3]]


def test_included_ids_that_nobody_has_are_passed_over(users: Users) -> None:
    ids = users.add(5)
    query = UserQuery(included=frozenset({ids[1], ids[3], "user_nobody"}))
    assert users.page(query) == [ids[3], ids[1]]
    assert users.count(query) == 2


def test_including_nobody_finds_nobody(users: Users) -> None:
    users.add(5)
    assert users.page(UserQuery(included=frozenset({"user_nobody"}))) == []


def test_excluded_ids_are_left_out(users: Users) -> None:
    ids = users.add(3)
    query = UserQuery(excluded=frozenset({ids[1], "user_nobody"}))
    assert users.page(query) == [ids[2], ids[0]]
    assert users.count(query) == 2


def test_hidden_users_are_missing_and_the_page_is_full_all_the_same(users: Users) -> None:
    ids = users.add(10)
    assert users.page(UserQuery(limit=3), {ids[9], ids[7]}) == [ids[8], ids[6], ids[5]]
    assert users.count(UserQuery(), {ids[9], ids[7], "user_nobody"}) == 8


def test_the_count_ignores_cursor_limit_and_offset(users: Users) -> None:
    ids = users.add(30)
    assert users.count(UserQuery(limit=1, starting_after=ids[3])) == 30


def test_deleted_users_are_gone_from_pages_and_counts(users: Users) -> None:
    ids = users.add(5)
    assert users.delete([ids[2], ids[2], "user_nobody"]) == [ids[2]]
    assert users.delete([ids[0], ids[4]]) == [ids[0], ids[4]]
    assert users.page(UserQuery()) == [ids[3], ids[1]]
    assert ids[2] not in users
    with pytest.raises(LookupError):
        users.describe(ids[2])


def test_a_cursor_at_a_deleted_user_goes_on_where_the_user_stood(users: Users) -> None:
    ids = users.add(5)
    users.delete([ids[2]])
    assert not users.cursor_known(ids[2], gone_too=False)
    assert users.cursor_known(ids[2], gone_too=True)
    assert users.page(UserQuery(starting_after=ids[2])) == [ids[1], ids[0]]


def test_someone_who_signs_up_is_the_newest(users: Users) -> None:
    users.add(5)
    newcomer = users.sign_up()
    assert users.page(UserQuery(limit=1)) == [newcomer]
    assert users.describe(newcomer)["created_at"] == NOW


def test_an_id_can_sign_up_once(users: Users) -> None:
    users.sign_up("user_a")
    with pytest.raises(ValueError, match="user_a has signed up already"):
        users.sign_up("user_a")


def test_an_edit_changes_the_field_and_updated_at(users: Users) -> None:
    ids = users.add(1)
    users.edit(ids[0], {"first_name": "Zoë", "email_address": None})
    described = users.describe(ids[0])
    assert described["first_name"] == "Zoë"
    assert described["updated_at"] == NOW
    assert described["email_addresses"] == []
    assert described["primary_email_address_id"] is None


def test_an_edit_can_be_of_a_time_that_is_given(users: Users) -> None:
    (user_id,) = users.add(1)
    users.edit(user_id, {"first_name": "Zoë", "updated_at": NOW - 7})
    assert users.describe(user_id)["updated_at"] == NOW - 7


def test_a_phone_number_is_the_primary_one(users: Users) -> None:
    (user_id,) = users.add(1)
    users.edit(user_id, {"phone_number": "+12025550123"})
    described = users.describe(user_id)
    (phone,) = described["phone_numbers"]
    assert (phone["id"], phone["phone_number"]) == (described["primary_phone_number_id"], "+12025550123")


def test_an_edit_of_created_at_moves_the_user(users: Users) -> None:
    ids = users.add(3)
    users.edit(ids[0], {"created_at": NOW})
    assert users.page(UserQuery()) == [ids[0], ids[2], ids[1]]


def test_an_unknown_field_cannot_be_set(users: Users) -> None:
    ids = users.add(1)
    with pytest.raises(ValueError, match="cannot be set: shoe_size"):
        users.edit(ids[0], {"shoe_size": 43})


def test_other_orderings_sort_by_the_field(users: Users) -> None:
    ids = users.add(3)
    for user_id, name in zip(ids, ("b", "c", "a"), strict=True):
        users.edit(user_id, {"username": name})
    page = users.page(UserQuery(order_by="username", descending=False))
    assert page == [ids[2], ids[0], ids[1]]
