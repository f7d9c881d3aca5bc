"""The schema `usersync`: numbered migrations, forward only.

A program works with its own version of the schema and with newer ones; an older one is migrated at first
contact, or named as missing. Used by `database`, and by the command line through the package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from controller.errors import DatabaseRefused, SchemaMissing
from controller.postgres.connections import LONG, Connections
from controller.postgres.failures import MIGRATE_HINT
from controller.postgres.queries import load, quoted
from controller.settings import Access

if TYPE_CHECKING:
    from controller.postgres.connections import Transaction

_SQL: Final = load("schema")
APPEND_ONLY: Final = (
    "usersync.tombstones",
    "usersync.lifted_tombstones",
    "usersync.receipts",
    "usersync.receipt_chain",
)
_FILE_NAME = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step; its script runs once, in one transaction with the steps before it."""

    version: int
    name: str
    script: str

    def __str__(self) -> str:
        """As the file is named."""
        return f"{self.version:04d}_{self.name}"


@cache
def migrations() -> tuple[Migration, ...]:
    """Return all steps in order."""
    found = []
    for file in (files("controller.postgres") / "migrations").iterdir():
        match = _FILE_NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match["version"]), match["name"], file.read_text("utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


def schema_version() -> int:
    """Return the version of the schema that this program works with."""
    return migrations()[-1].version


async def migrate(url: str | Access) -> tuple[str, ...]:
    """Bring the schema `usersync` of a database up to date; returns the names of the steps taken now.

    Where there is an admin URL, by that role, which then lets ours work with the schema.

    Raises:
        SchemaMissing: our role may not create it.
        DatabaseUnavailable, DatabaseRefused: there is no connection.
    """
    access = Access.of(url)
    async with Connections.open(access.url, ca=access.ca, label="usersync migrate") as connections:
        if access.admin_url is None:
            return await apply_migrations(connections)
        async with Connections.open(access.admin_url, ca=access.ca, label="usersync migrate") as admin:
            return await apply_migrations(connections, admin)


async def apply_migrations(connections: Connections, admin: Connections | None = None) -> tuple[str, ...]:
    """As `migrate`, over connections that are open."""
    # Whom the server refuses already here has no missing schema to hear of.
    grantee, by = await connections.transact(_current_role), connections
    if admin is not None:
        await admin.transact(_current_role)
        by = admin
    try:
        return await by.transact(lambda transaction: _apply(transaction, grantee), limits=LONG)
    except DatabaseRefused as refused:
        message = f"The role may not create the schema usersync in {by.where}: {refused} {MIGRATE_HINT}"
        raise SchemaMissing(message) from refused


async def _current_role(transaction: Transaction) -> str:
    role: str = await transaction.value(_SQL["current_role"])
    return role


async def _apply(transaction: Transaction, grantee: str) -> tuple[str, ...]:
    await transaction.rows(_SQL["lock_migrations"])
    # CREATE SCHEMA IF NOT EXISTS asks for the right to create one even if it is there.
    if not await transaction.value(_SQL["schema_exists"]):
        await transaction.change(_SQL["create_schema"])
    if not await transaction.value(_SQL["migrations_are_recorded"]):
        await transaction.change(_SQL["create_schema_migrations"])
    recorded = {row["version"] for row in await transaction.rows(_SQL["recorded_versions"])}
    steps = [migration for migration in migrations() if migration.version not in recorded]
    for step in steps:
        await transaction.execute(step.script)
        await transaction.change(_SQL["record_migration"], step.version, step.name)
    if grantee != await _current_role(transaction):
        for grant in _grants(grantee):
            await transaction.execute(grant)
    return tuple(map(str, steps))


async def require_schema(connections: Connections) -> None:
    """Check that the schema is there and no older than this program.

    Raises:
        SchemaMissing: it is not.
    """
    version = await connections.transact(installed_version)
    if version < schema_version():
        found = "is missing" if version == 0 else f"has version {version}, and this program needs {schema_version()}"
        message = f"The schema usersync of {connections.where} {found}. {MIGRATE_HINT}"
        raise SchemaMissing(message)


async def installed_version(transaction: Transaction) -> int:
    """Return the version of the schema that is there, 0 where there is none."""
    if not await transaction.value(_SQL["migrations_are_recorded"]):
        return 0
    return max((row["version"] for row in await transaction.rows(_SQL["recorded_versions"])), default=0)


def migration_sql(role: str | None = None) -> str:
    """Return the migrations as plain SQL for an editor; to be run as often as one likes.

    `role`: who may then work with the schema, if not the one who runs the script.
    """
    parts = [
        "-- The schema of usersync. Run it as a role that may create schemas; running it again changes nothing.",
        "BEGIN;",
        f"{_SQL['lock_migrations'].sql()};",
        "CREATE SCHEMA IF NOT EXISTS usersync;",
        f"{_SQL['create_schema_migrations'].sql()};",
    ]
    parts += [
        f"DO $usersync$\nBEGIN\nIF NOT EXISTS (SELECT FROM usersync.schema_migrations "
        f"WHERE version = {step.version}) THEN\n{step.script.strip()}\n"
        f"INSERT INTO usersync.schema_migrations (version, name) VALUES ({step.version}, '{step.name}');\n"
        f"END IF;\nEND $usersync$;"
        for step in migrations()
    ]
    if role is not None:
        parts += _grants(role)
    return "\n\n".join([*parts, "COMMIT;", ""])


def _grants(role: str) -> tuple[str, ...]:
    """Let a role work with the schema that another one has made."""
    return (
        f"GRANT USAGE ON SCHEMA usersync TO {quoted(role)};",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA usersync TO {quoted(role)};",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA usersync TO {quoted(role)};",
        f"REVOKE UPDATE, DELETE ON {', '.join(APPEND_ONLY)} FROM {quoted(role)};",
        f"REVOKE INSERT, UPDATE, DELETE ON usersync.schema_migrations FROM {quoted(role)};",
    )
