"""How the query of a listing is read, and what is refused."""

from __future__ import annotations

import pytest
from multidict import MultiDict

from controller.emulator.queries import read_query
from controller.emulator.refusals import Refusal


def refused(*parameters: tuple[str, str]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_query(MultiDict(parameters))
    return caught.value


def test_without_parameters_the_ten_newest_are_asked_for() -> None:
    query = read_query(MultiDict())
    assert (query.limit, query.offset, query.order_by, query.descending) == (10, 0, "created_at", True)
    assert query.included is None


@pytest.mark.parametrize(("limit", "read"), [("1", 1), ("500", 500), ("501", 10), ("100000", 10)])
def test_a_limit_above_500_silently_becomes_ten(limit: str, read: int) -> None:
    assert read_query(MultiDict(limit=limit)).limit == read


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", "0"), ("limit", "-1"), ("limit", "ten"), ("offset", "-1"), ("created_at_after", "2024-01-01")],
)
def test_numbers_that_cannot_be_are_refused_with_422(name: str, value: str) -> None:
    refusal = refused((name, value))
    assert (refusal.status, refusal.parameter) == (422, name)


@pytest.mark.parametrize(
    ("text", "order_by", "descending"),
    [
        ("created_at", "created_at", False),
        ("+created_at", "created_at", False),
        (" created_at", "created_at", False),
        ("-updated_at", "updated_at", True),
    ],
)
def test_a_sign_gives_the_direction(text: str, order_by: str, descending: bool) -> None:  # noqa: FBT001  parametrized
    query = read_query(MultiDict(order_by=text))
    assert (query.order_by, query.descending) == (order_by, descending)


def test_only_the_first_ordering_counts() -> None:
    query = read_query(MultiDict([("order_by", "username"), ("order_by", "nonsense")]))
    assert query.order_by == "username"


def test_an_unknown_ordering_is_refused_with_422() -> None:
    assert refused(("order_by", "shoe_size")).status == 422


@pytest.mark.parametrize("order_by", ["created_at", "+created_at", "-created_at"])
def test_a_cursor_goes_with_every_ordering_by_creation(order_by: str) -> None:
    query = read_query(MultiDict(starting_after="user_a", order_by=order_by, offset="0"))
    assert query.starting_after == "user_a"


@pytest.mark.parametrize("extra", [("order_by", "-updated_at"), ("offset", "1")])
def test_a_cursor_with_another_ordering_or_an_offset_is_refused_with_422(extra: tuple[str, str]) -> None:
    refusal = refused(("starting_after", "user_a"), extra)
    assert (refusal.status, refusal.parameter) == (422, "starting_after")


def test_signs_before_user_ids_include_and_exclude() -> None:
    parameters = [("user_id", "user_a"), ("user_id", "+user_b"), ("user_id", "-user_c")]
    query = read_query(MultiDict(parameters))
    assert query.included == frozenset({"user_a", "user_b"})
    assert query.excluded == {"user_c"}


def test_a_plus_that_was_not_encoded_names_nobody() -> None:
    assert read_query(MultiDict(user_id=" user_a")).included == frozenset({" user_a"})


def test_excluding_alone_includes_everybody_else() -> None:
    assert read_query(MultiDict(user_id="-user_c")).included is None


def test_more_than_100_user_ids_are_refused_with_422() -> None:
    parameters = [("user_id", f"user_{number}") for number in range(101)]
    assert read_query(MultiDict(parameters[:100])).included is not None
    assert refused(*parameters).status == 422


def test_a_filter_that_is_not_emulated_is_not_passed_over() -> None:
    refusal = refused(("email_address", "a@example.com"))
    assert (refusal.status, refusal.code) == (501, "not_emulated")
