"""What tests on a real PostgreSQL may ask for: Clerk and a database in step with it, or one as Supabase sets it up."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from controller.cli.demo.local_postgres import LocalPostgres
from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings
from controller.postgres import migrate
from tests.support.databases import create_tables, seed_users
from tests.support.supabase import ANNA, BERT, Supabase, make_roles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_numbers = itertools.count(1)


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    """An instance with five users, that answers as often as it is asked."""
    settings = EmulatorSettings(environment=Environment.PRODUCTION, rate_limit=None)
    async with ClerkEmulator(settings, users=5) as emulator:
        yield emulator


@pytest.fixture
async def url(database_url: str, clerk: ClerkEmulator) -> str:
    """A database in step with Clerk: every user has a profile and two rows in each other table."""
    await migrate(database_url)
    await seed_users(database_url, clerk.users)
    return database_url


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
