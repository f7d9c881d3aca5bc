"""Mapped columns as the catalogue describes them, and what a value of Clerk's becomes in one.

Decides which types can be mapped, and whether a value fits: whole or not at all, nothing is cut, and what PostgreSQL
would refuse is found before it is asked, as one value must not stop the others. Used by `updating` and `inspecting`.

A value travels as a text that the server reads by the column's type: "=" and the text, NULL for NULL, and empty where
the column is left as it is.
"""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation, localcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from controller.core.mapping import Constant, Field
from controller.errors import TableUnsupported
from controller.postgres.queries import load, quoted

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from controller.core.mapping import MappedColumn
    from controller.core.users import Profile
    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shape

_SQL: Final = load("updating")
LEFT: Final = ""
"""The column is left as it is."""
TYPES: Final = (
    "text, varchar, smallint, integer, bigint, numeric, real, double precision, boolean, timestamptz or jsonb"
)

_TYPE = re.compile(
    r"(?P<kind>text|character varying|smallint|integer|bigint|numeric|real|double precision|boolean|jsonb|timestamp)"
    r"(\((?P<size>\d+)(,(?P<scale>-?\d+))?\))?(?P<zone> with time zone)?"
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?")
_BITS: Final = {"smallint": 15, "integer": 31, "bigint": 63}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNBOUNDED_DIGITS: Final = 1000
"""As many digits before and behind the point as a numeric without precision is given; it could hold more."""

Text = str | None
"""What the server reads; None: the value does not fit."""


@dataclass(frozen=True, slots=True)
class Column:
    """One mapped column. `refuses_null`: what is missing is left out; `required`: nothing else stands in for it."""

    name: str
    type: str
    source: Field | Constant
    refuses_null: bool
    required: bool
    convert: Callable[[Any], Text]

    def field(self, value: Any) -> str | None:
        """Return what travels: the value as a text, NULL, or that the column is left.

        Raises:
            ValueError: the value does not fit.
        """
        if value is None:
            return LEFT if self.refuses_null else None
        text = self.convert(value)
        if text is None:
            raise ValueError(self.name)
        return f"={text}"


@dataclass(frozen=True, slots=True)
class Columns:
    """The mapped columns of a profile table, in the order of the mapping."""

    table: str
    all: tuple[Column, ...]

    def fields(self, profile: Profile, misfits: Counter[str] | None = None) -> list[str | None]:
        """Return what travels of a user; which columns' values do not fit is counted by name."""
        fields: list[str | None] = []
        for column, value in zip(self.all, profile.values, strict=True):
            try:
                fields.append(column.field(value))
            except ValueError:
                fields.append(LEFT)
                if misfits is not None:
                    misfits[column.name] += 1
        return fields

    def misfits(self, counts: Counter[str]) -> list[str]:
        """Say in sentences which values did not fit."""
        return [
            f"{column.source} of {counts[column.name]} user(s) does not fit {self.table}.{column.name}, which is "
            f"{column.type}: it is left as it is for them. Correct the value in Clerk, or give the column another type."
            for column in self.all
            if counts[column.name]
        ]

    def warnings(self) -> list[str]:
        """Say in sentences what to expect of the columns."""
        return [
            f"{self.table}.{column.name} may not be NULL and has no default: a user without {column.source} gets no "
            f"profile row. Give it a default (ALTER TABLE ... ALTER COLUMN {quoted(column.name)} SET DEFAULT ...)."
            for column in self.all
            if column.required and isinstance(column.source, Field)
        ]

    @property
    def differs(self) -> str:
        """The condition under which a row differs from what travels as `m.fields`."""
        return " OR ".join(
            f"CASE WHEN m.fields[{place}] = '' THEN false "
            f"ELSE usersync_row.{quoted(column.name)} IS DISTINCT FROM {_value(column, 'm', place)} END"
            for place, column in enumerate(self.all, start=1)
        )

    @property
    def assignments(self) -> str:
        """What sets the columns to what travels as `m.fields`."""
        return ", ".join(
            f"{quoted(column.name)} = CASE WHEN m.fields[{place}] = '' THEN usersync_row.{quoted(column.name)} "
            f"ELSE {_value(column, 'm', place)} END"
            for place, column in enumerate(self.all, start=1)
        )

    def filled(self, fields: Sequence[str | None]) -> tuple[int, ...]:
        """Return the places of the columns that are not left, counted from 1."""
        return tuple(place for place, field in enumerate(fields, start=1) if field != LEFT)

    def values(self, places: Sequence[int]) -> list[tuple[str, str]]:
        """Return name and expression of columns, for an INSERT from what travels as `u.fields`."""
        columns = [(self.all[place - 1], place) for place in places]
        return [(column.name, _value(column, "u", place)) for column, place in columns]


async def describe_columns(transaction: Transaction, shape: Shape) -> Columns | None:
    """Look at the mapped columns of the profile table; None if none is mapped.

    Raises:
        TableUnsupported: one does not exist, or its type cannot hold what is mapped.
    """
    mapping = shape.table.values
    if not mapping:
        return None
    rows = await transaction.rows(_SQL["mapped_columns"], shape.oid, [each.column for each in mapping])
    found = {row["name"]: row for row in rows}
    table = f"{shape.schema}.{shape.name}"
    return Columns(table, tuple(_column(table, each, found.get(each.column)) for each in mapping))


def _column(table: str, mapped: MappedColumn, row: Any) -> Column:
    name = f"{table}.{mapped.column}"
    if row is None:
        message = (
            f"{table} has no column {mapped.column}, which spec.tables maps {mapped.source} to. Create it, or take it "
            "out of values."
        )
        raise TableUnsupported(message)
    if row["computed"]:
        message = f"{name} is computed by the database, so that nothing can be mapped to it. Take it out of values."
        raise TableUnsupported(message)
    convert = converter(row["type"], constant=isinstance(mapped.source, Constant))
    if convert is None:
        message = f"{name} is of type {row['type']}; a mapped column has to be of type {TYPES}."
        raise TableUnsupported(message)
    if isinstance(mapped.source, Constant) and convert(mapped.source.value) is None:
        message = f"The value {mapped.source} does not fit {name}, which is {row['type']}. Correct one of the two."
        raise TableUnsupported(message)
    return Column(mapped.column, row["type"], mapped.source, row["refuses_null"], row["required"], convert)


def converter(type_name: str, *, constant: bool = False) -> Callable[[Any], Text] | None:
    """Return what makes values into texts of a type, as `format_type` names it; None if it cannot be mapped."""
    match = _TYPE.fullmatch(type_name)
    if match is None or (match["kind"] == "timestamp") != (match["zone"] is not None):
        return None
    size = int(match["size"]) if match["size"] else None
    kind = match["kind"]
    if kind in _BITS:
        return partial(_integer, 1 << _BITS[kind])
    if kind == "numeric":
        return partial(_numeric, size, int(match["scale"] or 0))
    if kind == "jsonb":
        return _constant_json if constant else _json
    if kind in {"text", "character varying"}:
        return partial(_text, size)
    return _OTHERS[kind]


def array_literal(fields: Sequence[str | None]) -> str:
    """Write fields as the server reads a text[]."""
    return "{" + ",".join(["NULL" if each is None else f'"{each.translate(_IN_ARRAY)}"' for each in fields]) + "}"


def copied(text: str) -> str:
    """Write a text as COPY reads it."""
    return text.translate(_IN_COPY)


_IN_ARRAY: Final = str.maketrans({"\\": "\\\\", '"': '\\"'})
_IN_COPY: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _value(column: Column, source: str, place: int) -> str:
    return f"substr({source}.fields[{place}], 2)::{column.type}"


def _text(size: int | None, value: Any) -> Text:
    if isinstance(value, (dict, list)):
        return None
    text = value if isinstance(value, str) else _plain(value)
    return text if _is_storable(text) and (size is None or len(text) <= size) else None


def _plain(value: Any) -> str:
    return _moment(value) if isinstance(value, datetime) else json.dumps(value)


def _is_storable(text: str) -> bool:
    # PostgreSQL has no NUL in a text, and half of a surrogate pair is no character.
    return "\0" not in text and (text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text))


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _integer(bound: int, value: Any) -> Text:
    if isinstance(value, datetime):
        value = (value - EPOCH) // timedelta(milliseconds=1)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return str(value) if -bound <= value < bound else None


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, datetime):
        value = (value - EPOCH) // timedelta(milliseconds=1)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    text = value if isinstance(value, str) else repr(value)
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _numeric(size: int | None, scale: int, value: Any) -> Text:
    number = _decimal(value)
    if number is None:
        return None
    if size is not None:
        try:
            with localcontext(prec=2 * _UNBOUNDED_DIGITS):
                number = number.quantize(Decimal(1).scaleb(-scale))
        except InvalidOperation:
            return None
        # Rounded as the server rounds, 9.99 may need one more digit.
        if number and number.adjusted() >= size - scale:
            return None
    elif number and not -_UNBOUNDED_DIGITS < number.adjusted() < _UNBOUNDED_DIGITS:
        return None
    return str(number)


def _double(value: Any) -> Text:
    number = _decimal(value)
    if number is None:
        return None
    try:
        read = float(number)
    except OverflowError:
        return None
    # What is too small is an error to the server as well.
    return repr(read) if math.isfinite(read) and (read != 0 or number == 0) else None


def _real(value: Any) -> Text:
    text = _double(value)
    if text is None:
        return None
    number = float(text)
    try:
        (read,) = struct.unpack("f", struct.pack("f", number))
    except OverflowError:
        return None
    return text if math.isfinite(read) and (read != 0 or number == 0) else None


def _boolean(value: Any) -> Text:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if value in {"true", "false"} else None


def _timestamp(value: Any) -> Text:
    if isinstance(value, datetime):
        return _moment(value)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return None if moment.tzinfo is None else _moment(moment)
    except (ValueError, OverflowError):
        return None


def _json(value: Any) -> Text:
    if isinstance(value, datetime):
        value = _moment(value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return None
    return text if "\\u0000" not in text and _is_storable(text) else None


def _constant_json(value: Any) -> Text:
    """A constant is JSON already."""
    try:
        return _json(json.loads(value) if isinstance(value, str) else value)
    except ValueError:
        return None


_OTHERS: Final = {"real": _real, "double precision": _double, "boolean": _boolean, "timestamp": _timestamp}
