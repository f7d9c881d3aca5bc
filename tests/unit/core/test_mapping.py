"""Which fields can be mapped, and which of two versions of a user's values may be written over the other."""

from __future__ import annotations

import pytest

from controller.core.mapping import FIELDS, Field, Verdict, judge, parse_field


@pytest.mark.parametrize("name", FIELDS)
def test_each_known_field_is_a_field(name: str) -> None:
    assert parse_field(name) == Field((name,))


def test_public_metadata_is_stepped_into() -> None:
    assert parse_field("publicMetadata.billing.plan") == Field(("publicMetadata", "billing", "plan"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "email",
        "Id",
        "id.x",
        "publicMetadata",
        "publicMetadata.",
        "publicMetadata..plan",
        "publicMetadata" + ".x" * 9,
        "privateMetadata.plan",
        "unsafeMetadata.plan",
        "private_metadata.plan",
        "publicMetadata.plan\n.",
    ],
)
def test_nothing_else_is(text: str) -> None:
    assert parse_field(text) is None


W, S, O, D = Verdict.WRITE, Verdict.IN_STEP, Verdict.OLDER, Verdict.DOUBT  # noqa: E741 - a table of verdicts


@pytest.mark.parametrize(
    ("known", "differs", "told", "confirmed"),
    [
        # values of version 5; what an event may do with them, and what an answer to a question may
        (None, None, W, W),
        (None, False, S, S),
        (None, True, D, W),
        (4, None, W, W),
        (4, False, S, S),
        (4, True, W, W),
        (5, None, D, W),
        (5, False, S, S),
        (5, True, D, W),
        (6, None, D, W),
        (6, False, O, O),
        (6, True, O, O),
    ],
)
def test_a_verdict(known: int | None, differs: bool | None, told: Verdict, confirmed: Verdict) -> None:  # noqa: FBT001 - a table
    assert judge(5, known, differs=differs, confirmed=False) is told
    assert judge(5, known, differs=differs, confirmed=True) is confirmed
