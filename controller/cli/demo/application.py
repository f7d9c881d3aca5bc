"""The application of the story: four tables as such an application has them, what it does to them, and its page.

Works by the superuser's `psql` beside our own code, so that what the story sees is not what usersync says. Used by
the demo alone; user ids come from the emulator.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from controller.cli.demo.local_postgres import LocalPostgres
    from controller.cli.reports import Document

TABLES = ("user_progress", "tasks", "daily_checkins", "moods")
DATABASE = "application"
ORIGIN = "http://localhost:3000"
"""Of the application's pages."""
END_ACCOUNT = "/api/user/delete"
ANSWER_SECONDS = 30

_TABLES_SQL = """
CREATE TABLE user_progress (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text NOT NULL,
    level integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE tasks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL,
    title text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE daily_checkins (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL,
    note text,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE moods (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL,
    mood smallint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON user_progress (user_id);
CREATE INDEX ON tasks (user_id);
CREATE INDEX ON daily_checkins (user_id);
CREATE INDEX ON moods (user_id);
"""

_USE = """
INSERT INTO tasks (user_id, title) SELECT u, 'task ' || n FROM unnest(:users) u, generate_series(1, 3) n;
INSERT INTO daily_checkins (user_id, note) SELECT u, 'still here' FROM unnest(:users) u;
INSERT INTO moods (user_id, mood) SELECT u, n FROM unnest(:users) u, generate_series(1, 2) n;
"""
_LOSE_PROFILE = "DELETE FROM user_progress WHERE user_id = :user"
_DOUBLE_PROFILE = "INSERT INTO user_progress (user_id, created_at) VALUES (:user, now() + interval '1 second')"
_ADD_ROW = "INSERT INTO tasks (user_id, title) VALUES (:user, 'nightly report')"
_ROWS_OF = """
SELECT (SELECT count(*) FROM user_progress WHERE user_id = :user), (SELECT count(*) FROM tasks WHERE user_id = :user),
    (SELECT count(*) FROM daily_checkins WHERE user_id = :user), (SELECT count(*) FROM moods WHERE user_id = :user)
"""
_ROW_COUNTS = """
SELECT (SELECT count(*) FROM user_progress), (SELECT count(*) FROM tasks),
    (SELECT count(*) FROM daily_checkins), (SELECT count(*) FROM moods)
"""


class Application:
    """The database as its owner and the application's users handle it."""

    def __init__(self, server: LocalPostgres) -> None:
        self._server = server
        self.url = server.create_database(DATABASE)
        server.execute(_TABLES_SQL, database=DATABASE)

    @property
    def psql(self) -> Path:
        """The program with which a person looks into the database."""
        return self._server.psql

    async def use(self, user_ids: Iterable[str]) -> None:
        """Let users use the application: rows in every table but the profile's."""
        users = f"ARRAY[{', '.join(map(_text, user_ids))}]::text[]"
        await self._execute(_USE.replace(":users", users))

    async def lose_profile(self, user_id: str) -> None:
        """Delete a profile row by hand."""
        await self._execute(_LOSE_PROFILE.replace(":user", _text(user_id)))

    async def double_profile(self, user_id: str) -> None:
        """Insert a second profile row by hand, younger than the first."""
        await self._execute(_DOUBLE_PROFILE.replace(":user", _text(user_id)))

    async def add_foreign_row(self, value: str) -> None:
        """Insert a row of somebody who was never a user of Clerk."""
        await self._execute(_ADD_ROW.replace(":user", _text(value)))

    async def rows_of(self, user_id: str) -> dict[str, int]:
        """Count one user's rows in each table."""
        return _by_table(await self._execute(_ROWS_OF.replace(":user", _text(user_id))))

    async def row_counts(self) -> dict[str, int]:
        """Count the rows of each table."""
        return _by_table(await self._execute(_ROW_COUNTS))

    async def end_account(self, service_url: str, session_token: str) -> tuple[int, Document]:
        """Do what the page does when its user ends the account; return status and content of the answer."""
        headers = {"Authorization": f"Bearer {session_token}", "Origin": ORIGIN}
        request = urllib.request.Request(f"{service_url}{END_ACCOUNT}", method="DELETE", headers=headers)  # noqa: S310 - our own URL
        return await asyncio.to_thread(_answer_to, request)

    async def _execute(self, sql: str) -> str:
        return await asyncio.to_thread(self._server.execute, sql, database=DATABASE)


def _answer_to(request: urllib.request.Request) -> tuple[int, Document]:
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - our own URL
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def _by_table(answer: str) -> dict[str, int]:
    return dict(zip(TABLES, map(int, answer.strip().split("|")), strict=True))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
