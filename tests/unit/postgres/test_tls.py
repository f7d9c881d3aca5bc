from __future__ import annotations

import pytest

from controller.core.facts import Protection
from controller.postgres.tls import protection
from controller.postgres.urls import parse_url


@pytest.fixture(autouse=True)
def without_variables_of_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)


@pytest.mark.parametrize(
    ("query", "ca", "expected"),
    [
        ("", None, Protection.MAYBE),
        ("?sslmode=prefer", None, Protection.MAYBE),
        ("?sslmode=allow", None, Protection.MAYBE),
        ("?sslmode=disable", None, Protection.NONE),
        ("?sslmode=require", None, Protection.UNVERIFIED),
        ("?sslmode=require&sslrootcert=/ca", None, Protection.CHAIN_ONLY),
        ("?sslmode=verify-ca&sslrootcert=/ca", None, Protection.CHAIN_ONLY),
        ("?sslmode=verify-full&sslrootcert=/ca", None, Protection.VERIFIED),
        ("", "a CA", Protection.VERIFIED),
        ("?sslmode=require", "a CA", Protection.VERIFIED),
        ("?sslmode=verify-ca", "a CA", Protection.CHAIN_ONLY),
    ],
)
def test_what_is_configured_says_how_well_a_connection_is_protected(
    query: str, ca: str | None, expected: Protection
) -> None:
    assert protection(parse_url(f"postgres://me@db.example.com/app{query}"), ca) is expected


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "%2Fvar%2Frun"])
def test_nobody_is_on_the_way_on_the_machine_itself(host: str) -> None:
    assert protection(parse_url(f"postgres://me@{host}/app?sslmode=disable"), None) is Protection.LOCAL


def test_the_variable_of_libpq_counts_where_the_url_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert protection(parse_url("postgres://me@db.example.com/app"), None) is Protection.VERIFIED
