"""What tests of every kind may ask for: one PostgreSQL server for the session, and a database for each test."""

from __future__ import annotations

import asyncio
import itertools
import signal
from typing import TYPE_CHECKING

import pytest

from controller.cli.demo.local_postgres import LocalPostgres
from tests.support.databases import create_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets what it starts in the background ignore Ctrl-C, and the programs that tests interrupt inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[LocalPostgres]:
    """A running server, shared by the tests: who restarts or kills one starts his own."""
    with LocalPostgres() as server:
        yield server


@pytest.fixture(scope="session")
def database_template(postgres_server: LocalPostgres) -> str:
    """The name of a database with the four application tables, empty, for copying."""
    asyncio.run(create_tables(postgres_server.create_database("template_application")))
    return "template_application"


@pytest.fixture
def empty_database_url(postgres_server: LocalPostgres) -> Iterator[str]:
    """The URL (of the superuser) of a database without any table."""
    name = f"test_{next(_numbers)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def database_url(postgres_server: LocalPostgres, database_template: str) -> Iterator[str]:
    """The URL (of the superuser) of a database with the four application tables, without an index."""
    name = f"test_{next(_numbers)}"
    yield postgres_server.create_database(name, template=database_template)
    postgres_server.drop_database(name)
