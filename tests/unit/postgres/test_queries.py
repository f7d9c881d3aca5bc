from __future__ import annotations

from importlib.resources import files

import pytest

from controller.postgres.queries import QueryMisdeclared, load, parse, quoted

FILES = sorted(path.name.removesuffix(".sql") for path in (files("controller.postgres") / "sql").iterdir())


@pytest.mark.parametrize("file", FILES)
def test_every_query_file_is_consistent(file: str) -> None:
    assert load(file)


def test_a_query_has_its_arguments_in_order() -> None:
    (query,) = parse("-- find(schema_name, user_id)\nSELECT $1, $2, $1;\n", "x.sql")
    assert query.arguments == ("schema_name", "user_id")
    assert query.sql() == "SELECT $1, $2, $1"


@pytest.mark.parametrize(
    "text",
    [
        "-- find(schema_name)\nSELECT 1;",
        "-- find()\nSELECT $1;",
        "-- find(one, two)\nSELECT $1, $3;",
        "-- find()\nSELECT * FROM {tabel};",
        "-- find()\nSELECT {};",
        "SELECT 1;",
        "-- a note\n-- find()\nSELECT 1;",
    ],
)
def test_a_query_that_contradicts_its_header_is_refused(text: str) -> None:
    with pytest.raises(QueryMisdeclared):
        list(parse(text, "x.sql"))


def test_identifiers_are_quoted_where_they_are_filled_in() -> None:
    (query,) = parse("-- find()\nSELECT {user_id} FROM {schema}.{table}", "x.sql")
    assert query.sql(schema="a b", table='c"d', user_id="Id") == 'SELECT "Id" FROM "a b"."c""d"'


def test_an_identifier_that_looks_like_a_placeholder_stays_an_identifier() -> None:
    (query,) = parse("-- find()\nSELECT {user_id} FROM {table}", "x.sql")
    assert query.sql(table="{user_id}", user_id="id") == 'SELECT "id" FROM "{user_id}"'


def test_a_quote_in_an_identifier_is_doubled() -> None:
    assert quoted('we"ird') == '"we""ird"'
