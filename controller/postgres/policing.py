"""Row-level security as the catalogue has it, and the statements that mend it.

Decides nothing about what should be: `core.policies` does. Each table is changed in a transaction of its own, whose
wait for the table's lock is short, as requests of the application queue behind it. Used by `database`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from controller.core.policies import Command, Policy, Security, TableSecurity
from controller.postgres.connections import Limits
from controller.postgres.queries import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.policies import Mending
    from controller.core.targets import Table, Target
    from controller.postgres.connections import Transaction

MENDING: Final = Limits(timedelta(seconds=10), lock=timedelta(seconds=1))

_SQL: Final = load("policies")
_COMMANDS: Final = {
    "r": frozenset({Command.SELECT}),
    "a": frozenset({Command.INSERT}),
    "w": frozenset({Command.UPDATE}),
    "d": frozenset({Command.DELETE}),
    "*": frozenset(Command),
}
"""`polcmd` of the catalogue."""


async def read_security(transaction: Transaction, target: Target) -> Security:
    """Read the policies of the listed tables that are there."""
    supabase = await transaction.row(_SQL["what_supabase_has"])
    if not supabase["role"]:
        return Security(target.schema, missing="This database has no role authenticated, as Supabase has.")
    if not supabase["jwt"]:
        return Security(target.schema, missing="This database has no function auth.jwt(), as Supabase has.")
    tables = await transaction.rows(
        _SQL["table_security"],
        target.schema,
        [table.name for table in target.tables],
        [table.user_id_column for table in target.tables],
    )
    policies = await transaction.rows(_SQL["policies_of"], [row["oid"] for row in tables])
    return Security(target.schema, tuple(_table(row, policies) for row in tables))


def _table(row: Any, policies: Sequence[Any]) -> TableSecurity:
    return TableSecurity(
        name=row["name"],
        column=row["user_id"],
        enabled=row["enabled"],
        alterable=row["alterable"],
        reachable=row["reachable"],
        policies=tuple(_policy(each) for each in policies if each["oid"] == row["oid"]),
    )


def _policy(row: Any) -> Policy:
    return Policy(
        name=row["name"],
        commands=_COMMANDS[row["command"]],
        roles=frozenset(row["roles"]),
        permissive=row["permissive"],
        casts_to_uuid=row["casts_to_uuid"],
        using=row["using_sql"],
        check=row["check_sql"],
    )


async def mend_security(transaction: Transaction, target: Target, mending: Mending) -> None:
    """Do what is to be done to one table."""
    for statement in mending_sql(target, mending):
        await transaction.execute(statement)


def mending_sql(target: Target, mending: Mending) -> list[str]:
    """Return the statements for one table, in the order in which they leave no gap."""
    table: Table = next(table for table in target.tables if table.name == mending.table)

    def sql(query: str, policy: str = "") -> str:
        return _SQL[query].sql(schema=target.schema, table=table.name, user_id=table.user_id_column, policy=policy)

    statements = [sql("drop", name) for name in mending.drop]
    statements += [sql(f"create_{command.value.lower()}") for command in mending.create]
    # Last: with it and without the policies everybody would see nothing.
    if mending.enable:
        statements.append(sql("enable"))
    return [f"{statement};" for statement in statements]
