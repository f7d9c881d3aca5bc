"""What is mapped of a user, read from Clerk's description of him, and nothing beyond it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from controller.clerk.answers import Answer, read_user, read_users
from controller.clerk.profiles import profile_reader
from controller.core.mapping import Constant, MappedColumn, parse_field
from controller.core.users import Profile, UserId
from controller.emulator.users import Users
from controller.errors import ClerkAnswerOdd

CREATED, UPDATED = 1_700_000_000_123, 1_700_000_000_456
METADATA = {"plan": "pro", "limits": {"rows": 5, "big": 2**70, "rate": 1.5}, "tags": ["a"], "on": True, "none": None}


def described(**fields: Any) -> dict[str, Any]:
    users = Users(seed=1, now=lambda: UPDATED)
    user_id = users.sign_up("user_a", created_at=CREATED)
    users.edit(user_id, {"first_name": "Ada", "last_name": "Lovelace", "email_address": "ada@example.com"})
    return users.describe(user_id) | fields


def mapping(*sources: str) -> tuple[MappedColumn, ...]:
    fields = [parse_field(source) for source in sources]
    return tuple(MappedColumn(f"c{place}", field) for place, field in enumerate(fields) if field is not None)


def answer(content: Any) -> Answer:
    return Answer("GET /v1/users/{id}", 200, msgspec.json.encode(content))


def value(source: str, **fields: Any) -> Any:
    profile = read_user(answer(described(**fields)), profile_reader(mapping(source))).profile
    assert profile is not None
    (found,) = profile.values
    return found


@pytest.mark.parametrize(
    ("source", "fields", "expected"),
    [
        ("id", {}, "user_a"),
        ("externalId", {"external_id": "ex_1"}, "ex_1"),
        ("externalId", {}, None),
        ("username", {"username": "ada"}, "ada"),
        ("firstName", {}, "Ada"),
        ("lastName", {"last_name": None}, None),
        ("fullName", {}, "Ada Lovelace"),
        ("fullName", {"last_name": None}, "Ada"),
        ("fullName", {"first_name": None}, "Lovelace"),
        ("fullName", {"first_name": None, "last_name": None}, None),
        ("imageUrl", {"image_url": "https://img.example.com/a"}, "https://img.example.com/a"),
        ("primaryEmailAddress", {}, "ada@example.com"),
        ("primaryEmailAddress", {"primary_email_address_id": None}, None),
        ("primaryEmailAddress", {"primary_email_address_id": "idn_other"}, None),
        ("primaryEmailAddress", {"email_addresses": []}, None),
        ("primaryPhoneNumber", {}, None),
        (
            "primaryPhoneNumber",
            {
                "primary_phone_number_id": "p2",
                "phone_numbers": [{"id": f"p{n}", "phone_number": f"+{n}"} for n in (1, 2)],
            },
            "+2",
        ),
        ("createdAt", {}, datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)),
        ("updatedAt", {}, datetime(2023, 11, 14, 22, 13, 20, 456_000, UTC)),
        ("publicMetadata.plan", {"public_metadata": METADATA}, "pro"),
        ("publicMetadata.limits.rows", {"public_metadata": METADATA}, 5),
        ("publicMetadata.limits.rate", {"public_metadata": METADATA}, 1.5),
        ("publicMetadata.limits.big", {"public_metadata": METADATA}, 2**70),
        ("publicMetadata.tags", {"public_metadata": METADATA}, ["a"]),
        ("publicMetadata.on", {"public_metadata": METADATA}, True),
        ("publicMetadata.none", {"public_metadata": METADATA}, None),
        ("publicMetadata.plan.deeper", {"public_metadata": METADATA}, None),
        ("publicMetadata.tags.0", {"public_metadata": METADATA}, None),
        ("publicMetadata.plan", {"public_metadata": None}, None),
        ("publicMetadata.plan", {"public_metadata": {}, "private_metadata": METADATA}, None),
    ],
)
def test_a_field_is_read(source: str, fields: dict[str, Any], expected: Any) -> None:
    assert value(source, **fields) == expected


def test_values_come_in_the_order_of_the_columns_with_constants_between() -> None:
    columns = (*mapping("firstName"), MappedColumn("c", Constant("free")), *mapping("id"))
    user = read_user(answer(described()), profile_reader(columns))
    assert user.profile == Profile(UserId("user_a"), UPDATED, ("Ada", "free", "user_a"))


def test_a_listing_has_the_profile_of_each_user() -> None:
    listed = read_users(answer([described(), described(first_name="Grace")]), profile_reader(mapping("firstName")))
    assert [user.profile and user.profile.values for user in listed] == [("Ada",), ("Grace",)]


def test_without_a_mapping_there_is_no_profile_and_nothing_of_it_is_looked_at() -> None:
    user = read_user(answer({"object": "user", "id": "user_a", "created_at": 1, "first_name": 5}))
    assert user.profile is None


def test_fields_that_are_not_mapped_are_not_looked_at() -> None:
    odd = {"object": "user", "id": "user_a", "created_at": 1, "updated_at": 2, "first_name": 5, "username": "ada"}
    assert read_user(answer(odd), profile_reader(mapping("username"))).profile is not None


@pytest.mark.parametrize(
    "odd", [{"updated_at": None}, {"updated_at": "now"}, {"first_name": 5}, {"email_addresses": [{"id": "idn_1"}]}]
)
def test_a_user_of_another_form_is_odd(odd: dict[str, Any]) -> None:
    with pytest.raises(ClerkAnswerOdd):
        read_user(answer(described(**odd)), profile_reader(mapping("firstName", "primaryEmailAddress")))
