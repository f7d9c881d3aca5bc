"""From facts to findings, for the listed tables: columns, indexes, rights, policies, and what is around them. Pure.

Decides as `diagnosing`, which alone uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.core.facts import Failed, ServerFacts
from controller.core.findings import Finding, Severity, Unchecked, error, note, warning
from controller.core.securing import SecurityReason, faults
from controller.core.targets import DeletionPolicy, Role, RowLevelSecurity
from controller.core.users import CLERK_ID_LENGTH_MAX, CLERK_ID_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.core.facts import DatabaseFacts, TableFacts
    from controller.core.policies import Security
    from controller.core.targets import Spec

_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence"}
_TABLES = {"r", "p"}
_GRAVE = {SecurityReason.POLICIES_BROKEN, SecurityReason.SECURITY_OFF}
_STOPS = "Every run stops with TableUnsupported, and events are answered 503."


def of_tables(database: DatabaseFacts, spec: Spec) -> Iterator[Finding | Unchecked]:
    """Judge the tables, and say which of the looks at them failed."""
    tables = database.tables
    role = database.server.role if isinstance(database.server, ServerFacts) else "..."
    if isinstance(tables, Failed):
        yield Unchecked("tables", tables.why)
    else:
        yield from _of_missing(tables, spec)
        for table in tables:
            if table.kind:
                yield from _of_table(table, role)
    yield from _of_unlisted(database, spec)
    yield from _of_cascades(database)
    yield from _of_links(database, spec)
    yield from _of_foreign(database)
    yield from _of_policies(database.security, spec)


def _of_missing(tables: tuple[TableFacts, ...], spec: Spec) -> Iterator[Finding]:
    missing = [table.table for table in tables if not table.kind]
    names = ", ".join(table.name for table in missing)
    if len(missing) == len(tables):
        yield error(
            "TablesMissing",
            f"None of the listed tables is in schema {spec.target.schema}: {names}.",
            "Every run stops with TablesMissing.",
            "Correct DATABASE_URL, spec.database.schema or spec.tables; or create the tables.",
        )
        return
    if any(table.role is Role.PROFILE for table in missing):
        yield error(
            "ProfileTableMissing",
            f"The profile table {spec.target.schema}.{spec.target.profile.name} does not exist.",
            "No profile is created, and nobody is counted as missing one.",
            "Create it, or give the right table the role Profile in spec.tables.",
        )
    if others := [table.name for table in missing if table.role is not Role.PROFILE]:
        yield warning(
            "TableMissing",
            f"Not in schema {spec.target.schema}: {', '.join(others)}.",
            "They are skipped: rows of deleted users that come there later stay until it is seen.",
            "Create them, correct their names, or take them out of spec.tables.",
        )


def _of_table(table: TableFacts, role: str) -> Iterator[Finding]:
    if table.kind not in _TABLES:
        kind = _KINDS.get(table.kind, "no table")
        yield error("NotATable", f"{table.name} is {kind}.", _STOPS, "Name the table itself in spec.tables.")
        return
    if table.lacking:
        yield error(
            "PrivilegesMissing",
            f"Our role may not {', '.join(table.lacking)} on {table.name}.",
            "Runs stop with DatabaseRefused, or leave users whole.",
            f"GRANT {', '.join(table.lacking)} ON {table.name} TO {role};",
        )
    if table.hidden:
        yield error(
            "RoleSeesNotAll",
            f"Row-level security of {table.name} hides rows from our role.",
            "Every run stops with RoleSeesNotAll: users would look as if they had no rows.",
            "Use a role that owns the tables (without FORCE ROW LEVEL SECURITY) or has BYPASSRLS: deploy/sql/roles.sql "
            "makes one.",
        )
    if (finding := _of_column(table)) is not None:
        yield finding
        return
    yield from _of_indexes(table)


def _of_column(table: TableFacts) -> Finding | None:
    column = table.table.user_id_column
    if table.user_id_type is None:
        return error(
            "UserIdMissing",
            f"{table.name} has no column {column}.",
            _STOPS,
            "Name the column with Clerk's id in userIdColumn of this table in spec.tables.",
        )
    if table.user_id_type == "uuid":
        return error(
            "UserIdIsUuid",
            f"{table.name}.{table.column} is of type uuid, which cannot hold Clerk's ids (user_...).",
            f"{_STOPS} The application cannot write a row for a user of Clerk either.",
            f"ALTER TABLE {table.name} ALTER COLUMN {table.column} TYPE text USING {table.column}::text; (foreign keys "
            "to auth.users have to go first)",
        )
    if not table.holds_text:
        return error(
            "UserIdIsNoText",
            f"{table.name}.{table.column} is of type {table.user_id_type}.",
            _STOPS,
            f"ALTER TABLE {table.name} ALTER COLUMN {table.column} TYPE text USING {table.column}::text;",
        )
    if not table.deterministic:
        return error(
            "UserIdCollation",
            f"{table.name}.{table.column} has a nondeterministic collation, by which different ids can be equal.",
            _STOPS,
            f'ALTER TABLE {table.name} ALTER COLUMN {table.column} TYPE {table.user_id_type} COLLATE "C";',
        )
    return None


def _of_indexes(table: TableFacts) -> Iterator[Finding]:
    if table.table.role is Role.PROFILE and not table.unique:
        yield warning(
            "UniqueIndexMissing",
            f"{table.name} has no unique index on {table.column}.",
            "An application that looks and then inserts can create a second profile for a user; usersync cannot "
            "prevent it.",
            f"usersync fix-duplicates, then: CREATE UNIQUE INDEX CONCURRENTLY ON {table.name} ({table.column});",
        )
    elif not table.indexed:
        yield warning(
            "IndexMissing",
            f"{table.name} has no index on {table.column}.",
            "Every run and every deletion reads the whole table.",
            f"CREATE INDEX CONCURRENTLY ON {table.name} ({table.column});",
        )


def _of_unlisted(database: DatabaseFacts, spec: Spec) -> Iterator[Finding | Unchecked]:
    if isinstance(database.unlisted, Failed):
        yield Unchecked("unlisted tables", database.unlisted.why)
    elif database.unlisted:
        names = ", ".join(f"{name}.{column}" for name, column in database.unlisted)
        lines = " ".join(f"- {{name: {name}, userIdColumn: {column}}}" for name, column in database.unlisted)
        yield warning(
            "UnlistedTables",
            f"Not in spec.tables, though with a column of users, in schema {spec.target.schema}: {names}.",
            "Rows of deleted users stay there.",
            f"Add them to spec.tables if they are of users: {lines}",
        )


def _of_cascades(database: DatabaseFacts) -> Iterator[Finding | Unchecked]:
    if isinstance(database.cascades, Failed):
        yield Unchecked("foreign keys", database.cascades.why)
        return
    for sentence in database.cascades:
        yield error(
            "UnlistedCascade",
            sentence,
            "Nobody is removed while it is there, by runs and by events.",
            "List the table with the column of its users; if it has none, change the key to ON DELETE NO ACTION.",
        )


def _of_links(database: DatabaseFacts, spec: Spec) -> Iterator[Finding]:
    # That they could not be looked for is said with the cascades; and where nothing is archived, nothing is restored.
    if isinstance(database.unnoted, Failed) or spec.deletion.policy is not DeletionPolicy.ARCHIVE:
        return
    for sentence in database.unnoted:
        yield warning(
            "LinksNotNoted",
            sentence,
            "usersync restore brings a user's rows back, and not what referred to them there.",
            "Give the table a primary key that stays as it is, and our role SELECT on it (and BYPASSRLS, where "
            "row-level security hides rows).",
        )


def _of_foreign(database: DatabaseFacts) -> Iterator[Finding | Unchecked]:
    if isinstance(database.foreign, Failed):
        yield Unchecked("foreign ids", database.foreign.why)
        return
    found = [each for each in database.foreign if each.rows]
    if found:
        words = ", ".join(f"{each.table} ({each.rows} row{'s' if each.rows > 1 else ''})" for each in found)
        column = found[0].column
        yield note(
            "ForeignIds",
            f"User ids that are not of Clerk's form (user_...): {words}.",
            "They are counted and never touched: if they are ids of an older login, those rows stay for ever.",
            f"Look at them: SELECT {column}, count(*) FROM {found[0].table} "  # noqa: S608 - printed for a person
            f"WHERE {column} !~ '{CLERK_ID_PATTERN}' OR length({column}) > {CLERK_ID_LENGTH_MAX} GROUP BY 1; map or "
            "remove them yourself.",
        )


def _of_policies(security: Security | Failed, spec: Spec) -> Iterator[Finding | Unchecked]:
    if spec.row_level_security is RowLevelSecurity.IGNORE:
        return
    if isinstance(security, Failed):
        yield Unchecked("row-level security", security.why)
        return
    for fault in faults(security):
        severity = Severity.ERROR if fault.reason in _GRAVE else Severity.WARNING
        yield Finding(fault.reason.value, severity, fault.message, fault.consequence, fault.remedy)
