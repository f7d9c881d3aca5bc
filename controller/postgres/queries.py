"""The SQL of this package, kept as SQL: read from `sql/*.sql`, checked as it is loaded.

A file holds several queries, each below a header `-- name(arguments)`; the arguments name `$1`, `$2` and so
on, in order. `{schema}`, `{table}` and the like stand for identifiers, quoted by the server's rules. Used by
the other modules of this package alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

IDENTIFIERS: Final = frozenset({"schema", "table", "user_id", "created_at", "policy"})
"""Placeholders that `Query.sql` quotes."""
FRAGMENTS: Final = frozenset(
    {
        "parts",
        "place",
        "columns",
        "values",
        "ranking",
        "names",
        "texts",
        "content",
        "parent",
        "child",
        "matching",
        "child_user_id",
        "definitions",
        "alike",
        "differs",
        "assignments",
        "refuted",
        "child_owner",
        "held",
        "key_names",
        "key_texts",
        "locating",
        "unchanged",
    }
)
"""Placeholders for SQL that this package has put together from other queries and from quoted identifiers."""

_HEADER = re.compile(r"^-- (?P<name>[a-z_]+)\((?P<arguments>[a-z_, ]*)\)$", re.MULTILINE)
_NUMBER = re.compile(r"\$(\d+)")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


class QueryMisdeclared(ValueError):
    """A query file contradicts itself; a fault of this package, found as it is loaded."""


def quoted(identifier: str) -> str:
    """Quote an identifier by the server's rules, whatever characters it has."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write a text as a constant by the server's rules, whatever its setting for backslashes."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Query:
    """One query; `arguments` are the names of `$1`, `$2` and so on."""

    name: str
    arguments: tuple[str, ...]
    text: str

    def sql(self, *, fragments: dict[str, str] | None = None, **identifiers: str) -> str:
        """Return the text with its placeholders filled in; identifiers are quoted here, and only here."""
        values = {name: quoted(value) for name, value in identifiers.items()} | (fragments or {})
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.text)


def parse(text: str, origin: str) -> Iterator[Query]:
    """Yield the queries of one file.

    Raises:
        QueryMisdeclared: arguments and `$n` differ, or a placeholder is unknown.
    """
    parts = _HEADER.split(text)
    if parts[0].strip():
        message = f"{origin} begins with something else than a header"
        raise QueryMisdeclared(message)
    for name, argument_list, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        arguments = tuple(filter(None, (argument.strip() for argument in argument_list.split(","))))
        used = {int(number) for number in _NUMBER.findall(body)}
        if used != set(range(1, len(arguments) + 1)):
            message = f"{origin}: {name} declares {len(arguments)} arguments and uses {sorted(used)}"
            raise QueryMisdeclared(message)
        unknown = set(_PLACEHOLDER.findall(body)) - IDENTIFIERS - FRAGMENTS
        if unknown:
            message = f"{origin}: {name} has unknown placeholders {sorted(unknown)}"
            raise QueryMisdeclared(message)
        yield Query(name, arguments, body.strip().removesuffix(";"))


@cache
def load(file: str) -> dict[str, Query]:
    """Return the queries of `sql/<file>.sql` by name.

    Raises:
        QueryMisdeclared: as `parse`, or a name is there twice.
    """
    queries = list(parse((files("controller.postgres") / "sql" / f"{file}.sql").read_text("utf-8"), f"{file}.sql"))
    by_name = {query.name: query for query in queries}
    if len(by_name) != len(queries):
        message = f"{file}.sql declares a name twice"
        raise QueryMisdeclared(message)
    return by_name
