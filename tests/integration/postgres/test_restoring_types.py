"""Whatever a column held, it holds again: rows of many types removed and put back, and compared as text."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.core.removals import RemovalTerms
from controller.core.requests import RestoreTerms
from controller.core.targets import Deletion, Role, Table, Target
from tests.support.databases import connected, execute, user_id
from tests.support.stores import ids, opened, proofs, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import SearchStrategy

(USER,) = ids([user_id(7)])
TARGET = Target("public", (Table("things", Role.PROFILE),))
TYPES = (
    "CREATE TYPE mood AS ENUM ('so so', 'good', '\"bad\"')",
    "CREATE TYPE pair AS (a int, b text)",
    "CREATE DOMAIN short AS varchar(5) CHECK (VALUE <> 'never')",
    "CREATE DOMAIN document AS jsonb",
    "CREATE DOMAIN words AS text[]",
)

# NUL cannot stand in PostgreSQL's text, lone surrogates not in UTF-8.
_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=5,
).map(json.dumps)


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _array(values: Sequence[str | None]) -> str:
    return "{" + ",".join("NULL" if value is None else _literal(value) for value in values) + "}"


_floats = st.floats(allow_nan=True, allow_infinity=True).map(repr)
COLUMNS: dict[str, tuple[str, SearchStrategy[str]]] = {
    "a_text": ("text", _text),
    "a_varchar": ("varchar(12)", _text),
    "a_char": ("char(12)", _text),
    "an_int": ("int", st.integers(-(2**31), 2**31 - 1).map(str)),
    "a_bigint": ("bigint", st.integers(-(2**63), 2**63 - 1).map(str)),
    "a_numeric": ("numeric", st.decimals(-(10**20), 10**20, places=9).map(str) | st.sampled_from(["NaN", "Infinity"])),
    "a_scaled": ("numeric(12,3)", st.decimals(-(10**6), 10**6, places=3).map(str)),
    "a_float": ("float8", _floats),
    "a_real": ("real", st.floats(width=32).map(repr)),
    "a_bool": ("bool", st.sampled_from(["true", "false"])),
    "a_date": ("date", st.dates().map(str) | st.sampled_from(["infinity", "-infinity", "0044-03-15 BC"])),
    "a_time": ("time", st.times().map(str)),
    "a_stamp": ("timestamptz", st.datetimes().map(lambda d: f"{d}+05:30") | st.just("infinity")),
    "a_plain_stamp": ("timestamp", st.datetimes().map(str)),
    "an_interval": (
        "interval",
        st.tuples(st.integers(-99, 99), st.integers(-99, 99), st.integers(-(10**9), 10**9)).map(
            lambda t: f"{t[0]} months {t[1]} days {t[2]} microseconds"
        ),
    ),
    "some_bytes": ("bytea", st.binary(max_size=12).map(lambda b: "\\x" + b.hex())),
    "a_uuid": ("uuid", st.uuids().map(str)),
    "a_json": ("json", _json),
    "a_jsonb": ("jsonb", _json | st.just("null")),
    "some_texts": ("text[]", st.lists(st.none() | _text, max_size=4).map(_array)),
    "some_ints": ("int[]", st.lists(st.integers(-9, 9).map(str), max_size=4).map(_array) | st.just("[0:1]={1,2}")),
    "some_jsonb": ("jsonb[]", st.lists(_json, max_size=3).map(_array)),
    "a_mood": ("mood", st.sampled_from(["so so", "good", '"bad"'])),
    "a_pair": ("pair", st.tuples(st.integers(-9, 9), _text).map(lambda t: f"({t[0]},{_literal(t[1])})")),
    "some_pairs": ("pair[]", st.just('{"(1,x)",NULL,"(,)"}')),
    "a_range": ("int4range", st.integers(-9, 9).map(lambda low: f"[{low},{low + 3})") | st.just("empty")),
    "a_time_range": ("tstzrange", st.just("[2024-01-01 00:00:00+02,)")),
    "some_ranges": ("int4multirange", st.just("{[1,3),[5,7)}")),
    "an_inet": ("inet", st.ip_addresses().map(str) | st.just("10.1.2.3/8")),
    "a_short": ("short", _text.map(lambda text: text[:5]).filter(lambda text: text != "never")),
    "a_document": ("document", _json),
    "some_words": ("words", st.lists(_text, max_size=3).map(_array)),
    "some_bits": ("bit(3)", st.sampled_from(["101", "000"])),
}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in COLUMNS.items()}), min_size=1, max_size=8
)


async def _there_and_back(url: str, rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    names = list(COLUMNS)
    insert = (
        f"INSERT INTO things (user_id, {', '.join(names)}) VALUES ('{USER}', "
        + ", ".join(f"${number}::text::{COLUMNS[name][0]}" for number, name in enumerate(names, start=1))
        + ")"
    )
    async with connected(url) as connection:
        # The comparison is of every digit, whatever the database writes by itself.
        await connection.execute("SET extra_float_digits = 1")
        await connection.execute("TRUNCATE things")
        await connection.executemany(insert, [[row[name] for name in names] for row in rows])
        before = [
            row["row"] for row in await connection.fetch("SELECT t::text AS row FROM things AS t ORDER BY number")
        ]
        async with opened(url, target=TARGET) as database:
            async with running(database, [user_id(8)]) as run:
                await run.remove_users(proofs([USER]), RemovalTerms.of(Deletion(), None))
            assert await connection.fetchval("SELECT count(*) FROM things") == 0
            await database.restore(USER, RestoreTerms("somebody"))
        after = [row["row"] for row in await connection.fetch("SELECT t::text AS row FROM things AS t ORDER BY number")]
    return before, after


@pytest.fixture
def things_url(empty_database_url: str) -> str:
    """A table with a column of every type, in a database whose settings write values in other ways."""
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    name = "(SELECT current_database())"
    foreign = "; ".join(
        f"EXECUTE format('ALTER DATABASE %I SET {setting} = {value}', {name})"
        for setting, value in (
            ("datestyle", "''German, DMY''"),
            ("intervalstyle", "''sql_standard''"),
            ("timezone", "''Asia/Kathmandu''"),
            ("extra_float_digits", "0"),
            ("bytea_output", "''escape''"),
        )
    )
    asyncio.run(
        execute(
            empty_database_url,
            *TYPES,
            f"CREATE TABLE things (number int GENERATED ALWAYS AS IDENTITY, user_id text, {columns})",
        )
    )
    asyncio.run(execute(empty_database_url, f"DO $$ BEGIN {foreign}; END $$"))
    return empty_database_url


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_what_is_put_back_equals_what_was_removed(things_url: str, rows: list[dict[str, Any]]) -> None:
    before, after = asyncio.run(_there_and_back(things_url, rows))
    assert after == before
