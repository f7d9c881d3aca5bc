"""A PostgreSQL as Supabase sets one up: its roles, `auth.uid()` and `auth.jwt()`, its grants, and nobody superuser.

The role that Supabase calls `postgres` is `hosted` here, as that name is the superuser's on a server of one's own.
Requests are made as PostgREST makes them: as `authenticator`, who takes on the role of the token and tells its claims.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controller.cli.demo.local_postgres import LocalPostgres

ANNA, BERT = "user_annaTest1", "user_bertTest2"
"""Two who are signed in by Clerk."""

ROLES = """
CREATE ROLE anon NOLOGIN NOINHERIT;
CREATE ROLE authenticated NOLOGIN NOINHERIT;
CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
CREATE ROLE authenticator LOGIN NOINHERIT;
GRANT anon, authenticated, service_role TO authenticator;
CREATE ROLE hosted LOGIN NOSUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS;
GRANT anon, authenticated, service_role TO hosted;
"""
AUTH = """
CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, hosted;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    )::uuid
$$;
CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
    )::jsonb
$$;
ALTER SCHEMA public OWNER TO hosted;
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE hosted IN SCHEMA public
    GRANT ALL ON TABLES TO anon, authenticated, service_role;
"""


def make_roles(server: LocalPostgres) -> None:
    """Make the roles, once for a server."""
    server.execute(ROLES)


@dataclass(frozen=True, slots=True)
class Supabase:
    """One database of such a server."""

    server: LocalPostgres
    database: str

    @classmethod
    def made(cls, server: LocalPostgres, database: str) -> Supabase:
        """Make one, without tables."""
        server.create_database(database)
        server.execute(f"ALTER DATABASE {database} OWNER TO hosted")
        server.execute(AUTH, database=database)
        return cls(server, database)

    def url(self, user: str = "hosted") -> str:
        """The URL for a role that may log in."""
        return self.server.url(self.database, user=user)

    @property
    def superuser_url(self) -> str:
        """The URL of who owns the machine; on Supabase nobody has it."""
        return self.server.url(self.database)

    @asynccontextmanager
    async def request(self, role: str, **claims: Any) -> AsyncIterator[asyncpg.Connection]:
        """One request of the application's front-end; what it does is rolled back."""
        connection = await asyncpg.connect(self.url("authenticator"))
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(f"SET LOCAL ROLE {role}")
            told = json.dumps({"role": role} | claims)
            await connection.execute("SELECT set_config('request.jwt.claims', $1, true)", told)
            yield connection
            await transaction.rollback()
        finally:
            await connection.close()
