"""What the database is like, for `usersync doctor`: each question by itself, so that one failure hides nothing else.

Decides nothing: `core.diagnosing` does. Reads only, and never shows an id. Used by `runtime`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from controller.core.facts import DatabaseFacts, Failed, ForeignRows, SchemaFacts, ServerFacts, TableFacts, skew
from controller.core.targets import Role
from controller.core.users import CLERK_ID_PATTERN
from controller.errors import UserSyncError
from controller.postgres.connections import LONG, SHORT
from controller.postgres.failures import translated
from controller.postgres.inspecting import inspect_target
from controller.postgres.migrating import installed_version, schema_version
from controller.postgres.policing import read_security
from controller.postgres.queries import load
from controller.postgres.tls import protection
from controller.postgres.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.core.policies import Security
    from controller.core.ports import Clock, Inspection
    from controller.core.targets import Table, Target
    from controller.postgres.connections import Connections, Limits, Transaction
    from controller.settings import Access

T = TypeVar("T")

_SQL: Final = load("probing")
_TARGETS: Final = load("targets")
_ATTEMPTS: Final = 1


@dataclass(frozen=True, slots=True)
class Probe:
    """One look at one database, as the role that usersync works as."""

    connections: Connections
    access: Access
    target: Target
    clock: Clock

    async def look(self) -> DatabaseFacts:
        """Ask everything; where the server does not answer at all, it is asked nothing more."""
        server = await self._try(self._server)
        if isinstance(server, Failed):
            unknown = Failed(server.why)
            return DatabaseFacts(server, unknown, unknown, unknown, unknown, unknown, unknown, unknown)
        tables = await self._try(self._tables)
        inspection = await self._try(self._inspection)
        return DatabaseFacts(
            server,
            await self._try(self._schema),
            tables,
            await self._try(self._unlisted),
            inspection if isinstance(inspection, Failed) else inspection.unlisted_cascades,
            await self._foreign(tables),
            await self._try(self._security),
            inspection if isinstance(inspection, Failed) else inspection.unnoted_links,
        )

    async def _try(self, ask: Callable[[], Awaitable[T]]) -> T | Failed:
        try:
            return await ask()
        except UserSyncError as error:
            return Failed(str(error), error.reason)

    async def _transact(self, work: Callable[[Transaction], Awaitable[T]], limits: Limits = SHORT) -> T:
        return await self.connections.transact(work, limits=limits, attempts=_ATTEMPTS)

    async def _server(self) -> ServerFacts:
        before = self.clock.now()
        row = await self._transact(lambda transaction: transaction.row(_SQL["server"]))
        after = self.clock.now()
        address = parse_url(self.access.url)
        return ServerFacts(
            host=address.host,
            port=address.port,
            protection=protection(address, self.access.ca),
            role=row["role"],
            superuser=row["superuser"],
            read_only=row["read_only"],
            may_create=row["may_create"],
            transaction_pooler=await self._meets_sessions_in_turn(),
            ahead=skew(row["clock"], row["clock"], before=before, after=after),
        )

    async def _meets_sessions_in_turn(self) -> bool:
        """Whether a connection has no session of its own, as behind a pooler in transaction mode.

        In an order that shows it whether the pooler hands out the session used last, or each in turn.
        """
        with translated(self.connections.where):
            async with self.connections.pool.acquire() as one, self.connections.pool.acquire() as other:
                sessions = []
                for connection in (one, other, other, one):
                    async with connection.transaction():
                        sessions.append(await connection.fetchval(_SQL["session"].sql()))
        return sessions[0] in sessions[1:3] or sessions[1] != sessions[2] or sessions[0] != sessions[3]

    async def _schema(self) -> SchemaFacts:
        version = await self._transact(installed_version)
        pinned = None
        if version:
            pinned = await self._transact(
                lambda transaction: transaction.value(_TARGETS["pinned_instance"], self.target.schema)
            )
        return SchemaFacts(version, schema_version(), pinned)

    async def _tables(self) -> tuple[TableFacts, ...]:
        tables = self.target.tables
        names, columns = [table.name for table in tables], [table.user_id_column for table in tables]

        async def ask(transaction: Transaction) -> tuple[list[Any], list[Any]]:
            created_at = [table.created_at_column for table in tables]
            described = await transaction.rows(
                _TARGETS["describe_tables"], self.target.schema, names, columns, created_at
            )
            return described, await transaction.rows(_SQL["privileges"], self.target.schema, names, columns)

        described, privileges = await self._transact(ask)
        shapes = {row["name"]: row for row in described}
        rights = {row["name"]: row for row in privileges}
        return tuple(_table(table, shapes.get(table.name), rights.get(table.name)) for table in tables)

    async def _unlisted(self) -> tuple[tuple[str, str], ...]:
        names = [table.name for table in self.target.tables]
        columns = [table.user_id_column for table in self.target.tables]
        rows = await self._transact(
            lambda transaction: transaction.rows(_TARGETS["unlisted_tables"], self.target.schema, names, columns)
        )
        return tuple((row["name"], row["user_id"]) for row in rows)

    async def _inspection(self) -> Inspection:
        return await self._transact(lambda transaction: inspect_target(transaction, self.target))

    async def _foreign(self, tables: tuple[TableFacts, ...] | Failed) -> tuple[ForeignRows, ...] | Failed:
        if isinstance(tables, Failed):
            return tables
        counted = []
        for table in tables:
            if table.kind not in {"r", "p"} or table.hidden or "SELECT" in table.lacking or not table.holds_text:
                continue
            query = _SQL["count_foreign"].sql(
                schema=self.target.schema, table=table.table.name, user_id=table.table.user_id_column
            )

            async def count(sql: str = query) -> int:
                rows: int = await self._transact(
                    lambda transaction: transaction.value(sql, CLERK_ID_PATTERN), limits=LONG
                )
                return rows

            rows = await self._try(count)
            if isinstance(rows, Failed):
                return rows
            counted.append(ForeignRows(table.name, table.column, rows))
        return tuple(counted)

    async def _security(self) -> Security:
        return await self._transact(lambda transaction: read_security(transaction, self.target))


def _table(table: Table, shape: Any, rights: Any) -> TableFacts:
    if shape is None or rights is None:
        return TableFacts(table, table.name, table.user_id_column, kind="")
    needed = {
        "SELECT": rights["may_select"],
        "INSERT": rights["may_insert"] or table.role is not Role.PROFILE,
        "UPDATE": rights["may_update"],
        "DELETE": rights["may_delete"],
    }
    lacking = [privilege for privilege, granted in needed.items() if not granted]
    if not rights["may_use_schema"]:
        lacking = list(needed)
    return TableFacts(
        table,
        rights["sql_name"],
        rights["sql_column"],
        kind=shape["kind"],
        hidden=shape["hidden"],
        lacking=tuple(lacking),
        user_id_type=shape["user_id_type"] if shape["has_user_id"] else None,
        holds_text=bool(shape["holds_text"]),
        deterministic=shape["deterministic"],
        indexed=shape["indexed"],
        unique=shape["unique_user"],
    )
