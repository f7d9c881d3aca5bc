"""What tests on a PostgreSQL as Supabase sets one up may ask for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from controller.cli.demo.local_postgres import LocalPostgres
from tests.support.databases import create_tables, seed_users
from tests.support.supabase import ANNA, BERT, Supabase, make_roles

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def supabase_server() -> Iterator[LocalPostgres]:
    """A server of its own: roles are of the whole server."""
    with LocalPostgres() as server:
        make_roles(server)
        yield server


@pytest.fixture
async def supabase(supabase_server: LocalPostgres) -> Supabase:
    """A database with the four application tables, made by the owner of the project, and rows of two users."""
    made = Supabase.made(supabase_server, f"project_{next(_numbers)}")
    await create_tables(made.url())
    await seed_users(made.url(), [ANNA, BERT])
    return made
