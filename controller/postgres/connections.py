"""Connections, and the only way to use one: a transaction with its limits set, retried when it loses.

No session state: a statement outside of a transaction, a prepared statement or a plain SET would meet another
session behind a transaction-mode pooler. Every transaction sets `row_security = off`, which turns rows hidden
from our role into an error instead of silence.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg
import structlog

from controller.postgres.failures import ContendedTransaction, translated
from controller.postgres.tls import verifying_context
from controller.postgres.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from controller.postgres.queries import Query

T = TypeVar("T")

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT: Final = timedelta(seconds=15)
IDLE_LIFETIME: Final = timedelta(minutes=2)
GRACE: Final = timedelta(seconds=10)
"""How much longer we wait for an answer than the server may work on it."""
MIN_SIZE: Final = 2
"""One for the work, one for the heartbeat."""
ATTEMPTS: Final = 5
TRANSACTION_TIMEOUT_SINCE: Final = 17
FIRST_PAUSE: Final = 0.02
"""Seconds between attempts, doubled each time, less a random part."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a transaction may take: per statement, and waiting for a lock."""

    statement: timedelta
    lock: timedelta = timedelta(seconds=5)

    def sql(self, server_version: int) -> str:
        """Return the settings of a transaction; each ends with it. What the role has set does not reach ours."""
        # Since version 17 there is one for the whole, which would end what each statement may take its time for.
        whole = "; SET LOCAL transaction_timeout = 0" if server_version >= TRANSACTION_TIMEOUT_SINCE else ""
        return (
            "SET LOCAL row_security = off; "
            f"SET LOCAL statement_timeout = {_milliseconds(self.statement)}; "
            f"SET LOCAL lock_timeout = {_milliseconds(self.lock)}; "
            # A process that is stopped in the middle must not hold its locks for ever.
            f"SET LOCAL idle_in_transaction_session_timeout = {_milliseconds(timedelta(minutes=1))}"
            f"{whole}"
        )


SHORT: Final = Limits(timedelta(seconds=30))
LONG: Final = Limits(timedelta(minutes=10))
"""For statements that read all rows, or write those of one user with very many."""


@dataclass(frozen=True, slots=True)
class Connections:
    """A small pool to one database. `where` names it in messages."""

    pool: Any
    where: str

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, ca: str | None = None, size: int = 5, label: str = "usersync"
    ) -> AsyncGenerator[Connections, None]:
        """Open a pool that connects when first used; `label` is the `application_name`.

        `ca`: certificates in PEM form, to verify the server's by.

        Raises:
            InvalidSpec: the URL is none, or the CA.
        """
        address = parse_url(url)
        # A context of our own outweighs what the URL says of TLS.
        tls: dict[str, Any] = {}
        if ca is None:
            tls["dsn"] = f"postgresql:///?{address.tls}" if address.tls else None
        elif not address.host.startswith("/"):
            tls["ssl"] = verifying_context(address, ca)
        settings = {"application_name": label}
        if address.options:
            settings["options"] = address.options
        with translated(str(address)):
            pool = asyncpg.create_pool(
                **tls,
                host=address.host,
                port=address.port,
                user=address.user,
                password=address.password,
                database=address.database,
                min_size=0,
                max_size=max(size, MIN_SIZE),
                max_inactive_connection_lifetime=IDLE_LIFETIME.total_seconds(),
                timeout=CONNECT_TIMEOUT.total_seconds(),
                statement_cache_size=0,
                server_settings=settings,
                # The default resets the session, which behind a pooler is somebody else's.
                reset=_leave_session,
            )
            await pool
        try:
            yield cls(pool, str(address))
        finally:
            await _close(pool)

    async def transact(
        self,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        limits: Limits = SHORT,
        isolation: str = "read_committed",
        attempts: int = ATTEMPTS,
    ) -> T:
        """Do `work` in one transaction; again, from the start, when it loses against others.

        What `work` raises rolls back. After a lost connection the outcome of a COMMIT may be unknown: callers
        are such that doing it again is harmless.

        Raises:
            DatabaseUnavailable, DatabaseRefused, RoleSeesNotAll, SchemaMissing, TableUnsupported.
        """
        attempt = 1
        while True:
            try:
                return await self._transact_once(work, limits, isolation)
            except ContendedTransaction as lost:
                if attempt >= attempts:
                    raise
                log.debug("transaction_retried", attempt=attempt, error=str(lost))
            await asyncio.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 - spreads, hides nothing
            attempt += 1

    async def _transact_once(self, work: Callable[[Transaction], Awaitable[T]], limits: Limits, isolation: str) -> T:
        with translated(self.where):
            async with self.pool.acquire() as connection, connection.transaction(isolation=isolation):
                transaction = Transaction(connection, (limits.statement + GRACE).total_seconds(), self.where)
                await transaction.execute(limits.sql(connection.get_server_version().major))
                return await work(transaction)


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction under way. `timeout` in seconds bounds the wait for each answer; `where`: the database."""

    connection: Any
    timeout: float
    where: str = "The database"

    @asynccontextmanager
    async def savepoint(self) -> AsyncGenerator[None, None]:
        """Undo the block alone when it raises, so that the transaction can go on.

        Raises:
            RowsHeld, DatabaseRefused, ...: what the server refused in the block, in our words.
        """
        with translated(self.where):
            async with self.connection.transaction():
                yield

    async def execute(self, script: str) -> None:
        """Run a script without arguments, several statements if need be."""
        await self.connection.execute(script, timeout=self.timeout)

    async def rows(self, query: Query | str, *arguments: object) -> list[Any]:
        """Return all rows."""
        return list(await self.connection.fetch(_text(query), *arguments, timeout=self.timeout))

    async def row(self, query: Query | str, *arguments: object) -> Any:
        """Return the first row, or None."""
        return await self.connection.fetchrow(_text(query), *arguments, timeout=self.timeout)

    async def value(self, query: Query | str, *arguments: object) -> Any:
        """Return the first column of the first row, or None."""
        return await self.connection.fetchval(_text(query), *arguments, timeout=self.timeout)

    async def change(self, query: Query | str, *arguments: object) -> int:
        """Run a statement that changes rows; returns how many."""
        status: str = await self.connection.execute(_text(query), *arguments, timeout=self.timeout)
        number = status.rpartition(" ")[2]
        return int(number) if number.isdecimal() else 0

    async def copy(self, table: str, columns: tuple[str, ...], lines: bytes) -> None:
        """COPY `lines`, in the text format, into a table of our own schema.

        Not by asyncpg's records: that asks for the table's types in a statement of its own.
        """
        # A bytearray, since asyncpg takes bytes for the name of a file.
        await self.connection.copy_to_table(
            table, source=bytearray(lines), columns=columns, schema_name="usersync", timeout=self.timeout
        )


async def _leave_session(connection: object) -> None:
    """Nothing of ours outlives a transaction, so there is nothing to reset."""


async def _close(pool: Any) -> None:
    try:
        await asyncio.wait_for(pool.close(), GRACE.total_seconds())
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # The server is gone: there is nobody left to say good-bye to.
        log.debug("pool_terminated", error=type(error).__name__)
        pool.terminate()


def _text(query: Query | str) -> str:
    return query if isinstance(query, str) else query.sql()


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
