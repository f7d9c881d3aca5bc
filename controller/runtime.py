"""The composition root: opens what a process needs for one resource, and closes it again.

Decides how Clerk's rate limit is parted between runs and events, and who may migrate. The only module that knows
Clerk's client and the database both. Used by `reconciler`, `web` and `cli`.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from controller.clerk import Clerk, Patience
from controller.core.contact import SAMPLE
from controller.core.facts import ClerkFacts, DatabaseFacts, Facts, Failed, Given, Population, ServerFacts, skew
from controller.core.ports import Unwatched
from controller.core.sweeping import Sweeper
from controller.errors import UserSyncError
from controller.postgres import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controller.core.leaving import Accounts
    from controller.core.ports import Clock, Directory, Inbox, Store, Watcher
    from controller.core.requests import Archive
    from controller.core.securing import Guarded
    from controller.core.targets import Spec, Target
    from controller.settings import Access, ClerkURLs, Credentials

RUNS_PART = 0.9
"""Of the share of Clerk's limit that a resource may use; the rest is kept for events, which must not wait."""
EVENTS_PART = 0.1


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Wall clock, aware, UTC."""
        return datetime.now(UTC)

    def elapsed(self) -> float:
        """Seconds since the machine started, sleep included: a proof must not stay young in a suspended laptop."""
        boot_time = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


def holder_name() -> str:
    """Name this process for locks and audit."""
    return f"{socket.gethostname()}/{os.getpid()}"


@asynccontextmanager
async def open_sweeper(
    spec: Spec, credentials: Credentials, urls: ClerkURLs, watcher: Watcher | None = None
) -> AsyncIterator[Sweeper]:
    """Open Clerk and the database for one run; our schema is migrated at first contact if the role may.

    Raises:
        InsecureClerkURL, ClerkURLNotAllowed: Clerk's key must not be sent to `spec.clerk.api_url`.
        DatabaseUnavailable, DatabaseRefused: there is no connection.
    """
    clock = SystemClock()
    async with (
        _clerk(spec, credentials, urls, clock, part=RUNS_PART) as directory,
        Database.open(credentials.database, spec.target, clock) as store,
    ):
        yield Sweeper(directory, store, clock, watcher or Unwatched())


@dataclass(frozen=True, slots=True)
class Served:
    """What the webhook service works with, for one resource."""

    directory: Directory
    store: Store
    inbox: Inbox
    clock: Clock
    accounts: Accounts


@asynccontextmanager
async def open_inbox(spec: Spec, credentials: Credentials, urls: ClerkURLs) -> AsyncIterator[Served]:
    """Open Clerk and the database for events; the schema must be there, and is never migrated from here.

    Raises:
        InsecureClerkURL, ClerkURLNotAllowed: Clerk's key must not be sent to `spec.clerk.api_url`.
        SchemaMissing: our schema is missing or older than this program.
        DatabaseUnavailable, DatabaseRefused: there is no connection.
    """
    clock = SystemClock()
    async with (
        _clerk(spec, credentials, urls, clock, part=EVENTS_PART) as clerk,
        Database.open(credentials.database, spec.target, clock, may_migrate=False) as database,
    ):
        await database.check_schema()
        yield Served(clerk, database, database, clock, clerk)


@dataclass(frozen=True, slots=True)
class Opened:
    """What a person's request for one user works with."""

    directory: Directory
    archive: Archive
    clock: Clock


@asynccontextmanager
async def open_archive(spec: Spec, credentials: Credentials, urls: ClerkURLs) -> AsyncIterator[Opened]:
    """Open Clerk and the database for a request about one user; our schema is migrated if the role may.

    Raises:
        InsecureClerkURL, ClerkURLNotAllowed: Clerk's key must not be sent to `spec.clerk.api_url`.
        SchemaMissing, RoleSeesNotAll, TableUnsupported, DatabaseUnavailable, DatabaseRefused.
    """
    clock = SystemClock()
    async with (
        _clerk(spec, credentials, urls, clock, part=RUNS_PART) as directory,
        Database.open(credentials.database, spec.target, clock) as database,
    ):
        await database.inspect()
        yield Opened(directory, database, clock)


@asynccontextmanager
async def open_receipts(access: str | Access, target: Target) -> AsyncIterator[Database]:
    """Open the database alone, for what only reads it or links its receipts; nothing is migrated.

    Raises:
        SchemaMissing: our schema is missing or older than this program.
    """
    async with Database.open(access, target, SystemClock(), may_migrate=False) as database:
        await database.check_schema()
        yield database


@asynccontextmanager
async def open_policies(access: Access, target: Target) -> AsyncIterator[Guarded]:
    """Open the database for its row-level security alone; our schema need not be there."""
    async with Database.open(access, target, SystemClock(), may_migrate=False) as database:
        yield database


@dataclass(frozen=True, slots=True)
class Subject:
    """What `usersync doctor` looks at: what was given, and the secrets that were, each if there is one."""

    given: Given
    clerk_key: str | None = field(default=None, repr=False)
    access: Access | None = None


async def examine(spec: Spec, subject: Subject, urls: ClerkURLs, clock: Clock | None = None) -> Facts:
    """Find out all that `usersync doctor` judges; what cannot be found out is there with the reason."""
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        clerk: ClerkFacts | Failed = Failed("There is no Clerk key.")
        database: DatabaseFacts | Failed = Failed("There is no database URL.")
        directory = store = None
        if subject.clerk_key:
            try:
                directory = await stack.enter_async_context(_examined_clerk(spec, subject.clerk_key, urls, clock))
                clerk = await _ask_clerk(directory, clock)
            except UserSyncError as error:
                clerk = Failed(str(error), error.reason)
        if subject.access is not None:
            try:
                opening = Database.open(subject.access, spec.target, clock, label="usersync doctor", may_migrate=False)
                store = await stack.enter_async_context(opening)
                database = await store.probe(subject.access)
            except UserSyncError as error:
                database = Failed(str(error), error.reason)
        facts = Facts(subject.given, clerk, database)
        if directory is None or store is None or not _is_first_contact(spec, facts):
            return facts
        return replace(facts, population=await _ask_population(directory, store))


@asynccontextmanager
async def _examined_clerk(spec: Spec, key: str, urls: ClerkURLs, clock: Clock) -> AsyncIterator[Clerk]:
    base_url = urls.check(spec.clerk.api_url)
    patience = Patience(attempts=2)
    async with Clerk.open(key, base_url=base_url, share=EVENTS_PART, clock=clock, patience=patience) as clerk:
        yield clerk


async def _ask_clerk(clerk: Clerk, clock: Clock) -> ClerkFacts:
    instance = await clerk.instance()
    before = clock.now()
    date = await clerk.read_clock()
    ahead = timedelta()
    if date is not None:
        ahead = skew(date, date + timedelta(seconds=1), before=before, after=clock.now())
    return ClerkFacts(instance, ahead)


def _is_first_contact(spec: Spec, facts: Facts) -> bool:
    """Whether both sides answer and nobody has said yet that they belong together."""
    if spec.clerk.instance_id is not None or isinstance(facts.clerk, Failed) or isinstance(facts.database, Failed):
        return False
    schema = facts.database.schema
    return isinstance(facts.database.server, ServerFacts) and (isinstance(schema, Failed) or schema.pinned is None)


async def _ask_population(directory: Directory, store: Store) -> Population | Failed:
    try:
        sample = await store.sample_user_ids(SAMPLE)
        return Population(len(sample), len(await directory.find(sample)) if sample else 0)
    except UserSyncError as error:
        return Failed(str(error), error.reason)


@asynccontextmanager
async def _clerk(
    spec: Spec, credentials: Credentials, urls: ClerkURLs, clock: Clock, *, part: float
) -> AsyncIterator[Clerk]:
    base_url = urls.check(spec.clerk.api_url)
    share = spec.clerk.rate_limit_share / 100 * part
    async with Clerk.open(
        credentials.clerk_secret_key, base_url=base_url, share=share, clock=clock, mapping=spec.target.mapping
    ) as clerk:
        yield clerk
