"""The database of one target: what the core calls `Store` and `Inbox`, over one pool.

Decides when our schema is migrated. Opened by `runtime`.
"""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import structlog

from controller.core.users import CLERK_ID_PATTERN, UserId
from controller.errors import SchemaMissing, WrongInstance
from controller.postgres.connections import LONG, Connections
from controller.postgres.counting import Bounds
from controller.postgres.erasing import Erasing
from controller.postgres.inbox import PostgresInbox
from controller.postgres.inspecting import inspect_target
from controller.postgres.locking import LockTimes, holding
from controller.postgres.migrating import apply_migrations, require_schema
from controller.postgres.policing import MENDING, mend_security, read_security
from controller.postgres.probing import Probe
from controller.postgres.queries import load
from controller.postgres.receipting import chain
from controller.postgres.restoring import Restoring, Undone
from controller.postgres.runs import begin_run
from controller.postgres.shapes import describe
from controller.postgres.verifying import read_receipts, verify
from controller.settings import Access

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractAsyncContextManager

    from controller.core.facts import DatabaseFacts
    from controller.core.policies import Mending, Security
    from controller.core.ports import Clock, Inspection, RunLabel
    from controller.core.receipts import Receipt, Verified
    from controller.core.requests import Restored, RestoreTerms
    from controller.core.targets import Target
    from controller.core.users import Instance
    from controller.postgres.connections import Transaction
    from controller.postgres.runs import PostgresRun

log = structlog.get_logger(__name__)

_SQL: Final = load("targets")
SALT_BYTES: Final = 32


@dataclass(slots=True)
class Database(PostgresInbox):
    """A `core.ports.Store`, `core.ports.Inbox` and `core.requests.Archive`; make one with `open`."""

    times: LockTimes = field(default_factory=LockTimes)
    may_migrate: bool = True
    admin: Connections | None = None
    """To the same database, under the role for migrations and policies."""

    @classmethod
    @asynccontextmanager
    async def open(  # noqa: PLR0913 - of the six after the target five have a default that is right
        cls,
        url: str | Access,
        target: Target,
        clock: Clock,
        *,
        size: int = 5,
        label: str = "usersync",
        may_migrate: bool = True,
        times: LockTimes | None = None,
        bounds: Bounds | None = None,
    ) -> AsyncGenerator[Self, None]:
        """Open a pool of at most `size` connections, made when first used.

        Args:
            url: of the database (`postgres://` or `postgresql://`), or all that it takes to reach it.
            target: schema and tables.
            clock: the one that dated the proofs.
            size: connections at most, two at least.
            label: `application_name` of the connections.
            may_migrate: whether `inspect` may bring our schema up to date.
            times: of the run lock.
            bounds: of what one transaction may remove.

        Raises:
            InvalidSpec: the URL is none.
        """
        access = Access.of(url)
        async with AsyncExitStack() as stack:
            connections = await stack.enter_async_context(
                Connections.open(access.url, ca=access.ca, size=size, label=label)
            )
            admin = None
            if access.admin_url is not None:
                opening = Connections.open(access.admin_url, ca=access.ca, label=f"{label} admin")
                admin = await stack.enter_async_context(opening)
            database = cls(connections, target, clock, bounds or Bounds(), times or LockTimes(), may_migrate, admin)
            stack.push_async_callback(database.finish_recording)
            yield database

    async def check_schema(self) -> None:
        """Check that our schema is there and new enough, without touching it.

        Raises:
            SchemaMissing: it is not.
        """
        await require_schema(self.connections)

    async def inspect(self) -> Inspection:
        """Check role, tables and columns; our schema too, which is migrated if it may be.

        Raises:
            SchemaMissing, RoleSeesNotAll, TableUnsupported.
        """
        try:
            await self.check_schema()
        except SchemaMissing:
            if not self.may_migrate:
                raise
            applied = await apply_migrations(self.connections, self.admin)
            log.info("schema_migrated", database=self.connections.where, migrations=list(applied))

        async def look(transaction: Transaction) -> Inspection:
            return await inspect_target(transaction, self.target)

        return await self.connections.transact(look)

    async def pinned_instance(self) -> str | None:
        """Return the instance id that this target belongs to, or None before first contact."""

        async def look(transaction: Transaction) -> str | None:
            pinned: str | None = await transaction.value(_SQL["pinned_instance"], self.target.schema)
            return pinned

        return await self.connections.transact(look)

    async def pin_instance(self, instance: Instance) -> None:
        """Pin the target to `instance`, once, and make the salt of its tombstones.

        Raises:
            WrongInstance: it is pinned to another one.
        """

        async def pin(transaction: Transaction) -> str:
            salt = secrets.token_bytes(SALT_BYTES)
            await transaction.change(
                _SQL["pin_instance"], self.target.schema, instance.id, instance.environment.value, salt
            )
            pinned: str = await transaction.value(_SQL["pinned_instance"], self.target.schema)
            return pinned

        pinned = await self.connections.transact(pin)
        if pinned != instance.id:
            message = (
                f"Schema {self.target.schema} of {self.connections.where} has been pinned to {pinned} meanwhile, and "
                f"the Clerk key belongs to {instance.id}; nothing is done."
            )
            raise WrongInstance(message)

    async def sample_user_ids(self, limit: int) -> Sequence[UserId]:
        """Return up to `limit` distinct ids of Clerk's form that have rows in any table."""

        async def sample(transaction: Transaction) -> list[UserId]:
            shapes = await describe(transaction, self.target)
            parts = "\nUNION ALL\n".join(shape.sql(_SQL["distinct_user_ids"]) for shape in shapes.tables)
            query = _SQL["sample_user_ids"].sql(fragments={"parts": parts})
            return [UserId(row["user_id"]) for row in await transaction.rows(query, CLERK_ID_PATTERN, limit)]

        return await self.connections.transact(sample, limits=LONG)

    def begin_run(self, label: RunLabel) -> AbstractAsyncContextManager[PostgresRun]:
        """Take the lock, open the audit row, keep the heartbeat; release and close at the end.

        Raises:
            TargetBusy: another run holds the lock and its heart beats.
        """
        return begin_run(self.connections, self.target, self.clock, label, times=self.times, bounds=self.bounds)

    async def restore(self, user_id: UserId, terms: RestoreTerms) -> Restored:
        """Put the user's archived rows back and lift his tombstone, in one transaction.

        Raises:
            RequestRefused: nothing is there to be put back, or it does not fit; nothing was changed.
            TargetBusy: a run is under way.
        """

        async def put_back(transaction: Transaction) -> Restored:
            return await Restoring(transaction, self.target, user_id, terms).restore()

        async with holding(self.connections, self.target.schema, terms.requested_by, self.times) as lock:
            try:
                restored = await lock.transact(put_back, limits=LONG)
            except Undone as undone:
                return undone.restored
        await self._chain()
        return restored

    @asynccontextmanager
    async def erasing(self, requested_by: str) -> AsyncGenerator[Erasing, None]:
        """Hold the run lock while one user is erased.

        Raises:
            TargetBusy: a run is under way.
        """
        async with holding(self.connections, self.target.schema, requested_by, self.times) as lock:
            yield Erasing(lock, self.target, self.clock, self.bounds, requested_by)
        await self._chain()

    async def read_security(self) -> Security:
        """Read the policies of the listed tables, as the admin's role if there is one."""

        async def read(transaction: Transaction) -> Security:
            return await read_security(transaction, self.target)

        return await (self.admin or self.connections).transact(read)

    async def mend_security(self, mending: Mending) -> None:
        """Mend the policies of one table, as the admin's role if there is one."""

        async def change(transaction: Transaction) -> None:
            await mend_security(transaction, self.target, mending)

        await (self.admin or self.connections).transact(change, limits=MENDING)

    async def probe(self, access: Access) -> DatabaseFacts:
        """Ask everything that `usersync doctor` wants to know; nothing is changed, and nothing raised."""
        return await Probe(self.connections, access, self.target, self.clock).look()

    async def _chain(self) -> None:
        await self.connections.transact(lambda transaction: chain(transaction, self.target.schema))

    async def receipts(self, limit: int, user_id: UserId | None = None) -> list[Receipt]:
        """Return the newest receipts, the last of them last; with `user_id` those of one user."""

        async def read(transaction: Transaction) -> list[Receipt]:
            return await read_receipts(transaction, self.target.schema, limit, user_id)

        return await self.connections.transact(read)

    async def verify_receipts(self, head: str | None = None) -> Verified:
        """Link the receipts that are not linked yet, and recompute the chain from its first link."""
        await self._chain()

        async def check(transaction: Transaction) -> Verified:
            return await verify(transaction, self.target.schema, head)

        return await self.connections.transact(check, limits=LONG, isolation="repeatable_read")
