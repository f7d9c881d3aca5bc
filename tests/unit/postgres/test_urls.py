from __future__ import annotations

import pytest

from controller.errors import InvalidSpec
from controller.postgres.urls import parse_url

PASSWORD = "se+cr/et"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_both_schemes_are_read(scheme: str) -> None:
    address = parse_url(f"{scheme}://me:secret@db.example:6543/app")
    assert (address.host, address.port, address.database, address.user, address.password) == (
        "db.example", 6543, "app", "me", "secret",
    )  # fmt: skip


def test_the_port_is_5432_unless_said() -> None:
    assert parse_url("postgres://me@db.example/app").port == 5432


def test_encoded_characters_of_the_password_are_decoded() -> None:
    assert parse_url("postgres://me:a%40b%23c%2Fd@db.example/app").password == "a@b#c/d"


def test_an_at_sign_in_the_password_is_understood() -> None:
    address = parse_url("postgres://me:a@b@db.example/app")
    assert (address.host, address.password) == ("db.example", "a@b")


def test_white_space_around_the_url_is_dropped() -> None:
    assert parse_url(" postgres://me@db.example/app\n").database == "app"


def test_a_socket_folder_is_read_from_the_parameters() -> None:
    address = parse_url("postgres://me@/app?host=/run/postgresql&port=5433")
    assert (address.host, address.port) == ("/run/postgresql", 5433)


def test_parameters_of_other_drivers_do_not_reach_the_server() -> None:
    address = parse_url("postgres://me@db.example/app?pgbouncer=true&connection_limit=1&sslmode=require")
    assert address.tls == "sslmode=require"


def test_the_options_parameter_is_kept() -> None:
    assert parse_url("postgres://me@db.example/app?options=reference%3Dabc").options == "reference=abc"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "db.example",
        f"mysql://me:{PASSWORD}@db.example/app",
        f"https://me:{PASSWORD}@abc.supabase.co",
        f"postgres://me:{PASSWORD}@db.example:port/app",
        f"postgres://me:{PASSWORD}@db.example:99999/app",
        f"postgres://me:[{PASSWORD}]@db.example/app",
        f"postgres://me:{PASSWORD}#x@db.example/app",
        "postgres:///",
        "postgres://db.example",
    ],
)
def test_a_malformed_url_is_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_url(url)
    assert "secr" not in str(refused.value)
    assert "cr/et" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_an_address_never_shows_the_password() -> None:
    address = parse_url("postgres://me:secret@db.example/app")
    assert "secret" not in repr(address) + str(address)
