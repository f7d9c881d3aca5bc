"""What a value of Clerk's becomes in a column of each type: whole, or not at all."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.core.mapping import Constant, Field
from controller.core.users import Profile, UserId
from controller.postgres.columns import LEFT, Column, Columns, array_literal, converter, copied

MOMENT = datetime(2026, 3, 1, 12, 30, 15, 123_000, UTC)
NAMES = {"varchar": "character varying(5)", "timestamptz": "timestamp with time zone"}
DEEP: Any = json.loads("[" * 500 + "]" * 500)


def converted(type_name: str, value: Any, *, constant: bool = False) -> str | None:
    convert = converter(NAMES.get(type_name, type_name), constant=constant)
    assert convert is not None
    return convert(value)


@pytest.mark.parametrize(
    ("type_name", "value", "text"),
    [
        ("text", 'Zoë \\ "quoted"\t\'', 'Zoë \\ "quoted"\t\''),
        ("text", "", ""),
        ("text", 5, "5"),
        ("text", True, "true"),
        ("text", 1.5, "1.5"),
        ("text", MOMENT, "2026-03-01T12:30:15.123000Z"),
        ("varchar", "ëëëëë", "ëëëëë"),
        ("character varying", "x" * 1000, "x" * 1000),
        ("smallint", -32768, "-32768"),
        ("integer", 2147483647, "2147483647"),
        ("integer", 3.0, "3"),
        ("integer", "007", "7"),
        ("bigint", -(2**63), str(-(2**63))),
        ("bigint", MOMENT, "1772368215123"),
        ("numeric", 10**30, str(10**30)),
        ("numeric", "1.10", "1.10"),
        ("numeric", 0.1, "0.1"),
        ("numeric(5,2)", 999.994, "999.99"),
        ("numeric(5,2)", -1, "-1.00"),
        ("numeric(3,5)", 0.00999, "0.00999"),
        ("numeric(2,-3)", 99000, "9.9E+4"),
        ("real", 0.1, "0.1"),
        ("double precision", 5, "5.0"),
        ("double precision", "1e3", "1000.0"),
        ("double precision", 0, "0.0"),
        ("boolean", True, "true"),
        ("boolean", False, "false"),
        ("boolean", "true", "true"),
        ("timestamptz", MOMENT, "2026-03-01T12:30:15.123000Z"),
        ("timestamptz", "2026-03-01T13:30:15+01:00", "2026-03-01T12:30:15.000000Z"),
        ("timestamp(0) with time zone", MOMENT, "2026-03-01T12:30:15.123000Z"),
        ("jsonb", {"a": [1, None, "ë"]}, '{"a":[1,null,"ë"]}'),
        ("jsonb", "text", '"text"'),
        ("jsonb", False, "false"),
        ("jsonb", MOMENT, '"2026-03-01T12:30:15.123000Z"'),
        ("jsonb", DEEP, "[" * 500 + "]" * 500),
    ],
)
def test_a_value_fits(type_name: str, value: Any, text: str) -> None:
    assert converted(type_name, value) == text


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("text", {"a": 1}),
        ("text", ["a"]),
        ("text", "a\0b"),
        ("text", "\ud800"),
        ("varchar", "ëëëëëë"),
        ("smallint", 32768),
        ("integer", -2147483649),
        ("integer", 1.5),
        ("integer", True),
        ("integer", "1.0"),
        ("integer", "٣"),
        ("integer", "9" * 400),
        ("integer", {}),
        ("bigint", 2**63),
        ("numeric", "NaN"),
        ("numeric", "1e9999"),
        ("numeric", False),
        ("numeric", "1_000"),
        ("numeric(5,2)", 999.995),
        ("numeric(5,2)", "1e999"),
        ("numeric(3,5)", 0.01),
        ("numeric(2,-3)", 99500),
        ("real", 1e39),
        ("real", 1e-60),
        ("double precision", 10**400),
        ("double precision", "1e-999"),
        ("double precision", True),
        ("boolean", 1),
        ("boolean", "yes"),
        ("timestamptz", 1772368215123),
        ("timestamptz", "2026-03-01T13:30:15"),
        ("timestamptz", "soon"),
        ("timestamptz", "0001-01-01T00:00:00+01:00"),
        ("jsonb", {"a": "\0"}),
        ("jsonb", {"\0": 1}),
        ("jsonb", "\udfff"),
    ],
)
def test_a_value_does_not_fit(type_name: str, value: Any) -> None:
    assert converted(type_name, value) is None


@pytest.mark.parametrize(
    "type_name",
    [
        "uuid",
        "character(5)",
        "citext",
        "json",
        "timestamp without time zone",
        "date",
        "text[]",
        "mood",
        "numeric[]",
        "bytea",
    ],
)
def test_other_types_cannot_be_mapped(type_name: str) -> None:
    assert converter(type_name) is None


@pytest.mark.parametrize(("value", "text"), [('{"a": 1}', '{"a":1}'), (5, "5"), ("free", None)])
def test_a_constant_for_jsonb_is_json_already(value: str | int, text: str | None) -> None:
    assert converted("jsonb", value, constant=True) == text


def column(name: str, type_name: str, *, refuses_null: bool = False, required: bool = False) -> Column:
    convert = converter(type_name)
    assert convert is not None
    return Column(name, type_name, Field((name,)), refuses_null, required, convert)


COLUMNS = Columns(
    "public.people",
    (column("name", "text"), column("age", "integer"), column("plan", "text", refuses_null=True, required=True)),
)


def fields(*values: Any, misfits: Counter[str] | None = None) -> list[str | None]:
    return COLUMNS.fields(Profile(UserId("user_a"), 1, values), misfits)


def test_a_missing_value_is_null_or_left_where_null_is_refused() -> None:
    assert fields(None, None, None) == [None, None, LEFT]


def test_an_empty_text_is_a_value() -> None:
    assert fields("", 0, "") == ["=", "=0", "="]


def test_a_value_that_does_not_fit_leaves_its_column_alone_and_is_said_in_words() -> None:
    misfits = Counter[str]()
    assert fields("Ada", "old", "free", misfits=misfits) == ["=Ada", LEFT, "=free"]
    fields("Ada", "old", {}, misfits=misfits)
    (age, plan) = COLUMNS.misfits(misfits)
    assert age.startswith("age of 2 user(s) does not fit public.people.age, which is integer:")
    assert plan.startswith("plan of 1 user(s)")


def test_only_a_required_column_without_default_warns_and_no_constant_does() -> None:
    (warning,) = COLUMNS.warnings()
    assert warning.startswith("public.people.plan may not be NULL")
    constant = Column("plan", "text", Constant("free"), refuses_null=True, required=True, convert=str)
    assert Columns("public.people", (constant,)).warnings() == []


def test_an_array_is_written_so_that_every_letter_comes_back() -> None:
    assert array_literal(["=a", None, "", '="\\']) == '{"=a",NULL,"","=\\"\\\\"}'
    assert copied('{"=\\"\\\\"}\t\n\r') == '{"=\\\\"\\\\\\\\"}\\t\\n\\r'
