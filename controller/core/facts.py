"""What `usersync doctor` has found out, before anybody has judged it. Data only.

What could not be found out is there as `Failed`, with the reason, so that one failure leaves the other checks standing.
Gathered by `runtime` from `clerk` and `postgres` and by the command line; judged by `diagnosing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from controller.core.policies import Security
    from controller.core.targets import Table
    from controller.core.users import Instance


@dataclass(frozen=True, slots=True)
class Failed:
    """Why something is not known; `reason` is that of the error, empty where nobody asked."""

    why: str
    reason: str = ""


class KeyForm(Enum):
    """What the Clerk key looks like."""

    PRODUCTION = "sk_live_"
    DEVELOPMENT = "sk_test_"
    PUBLISHABLE = "pk_"
    OTHER = "other"
    MISSING = "missing"

    @classmethod
    def of(cls, key: str | None) -> KeyForm:
        """Read the prefix of a key."""
        if not key:
            return cls.MISSING
        known = (cls.PRODUCTION, cls.DEVELOPMENT, cls.PUBLISHABLE)
        return next((form for form in known if key.startswith(form.value)), cls.OTHER)


class Protection(Enum):
    """What stands between a connection to the database and somebody on the way."""

    LOCAL = "local"
    """A unix socket or the machine itself: nobody is on the way."""
    VERIFIED = "verified"
    CHAIN_ONLY = "chain only"
    """Encrypted, and the certificate is of the right CA, though perhaps of another host."""
    UNVERIFIED = "unverified"
    """Encrypted, to whoever answers."""
    MAYBE = "maybe"
    """Encrypted if the answer says that it can be."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Given:
    """What the process was given. Never a secret itself.

    `missing`: what is not there, in words that say what to set; `front_end`: variables of Supabase's HTTP interface
    that were found in place of the database's URL; `webhook_problems`: what is wrong with which webhook secret.
    """

    key: KeyForm = KeyForm.PRODUCTION
    missing: tuple[str, ...] = ()
    front_end: tuple[str, ...] = ()
    webhook_secrets: int = 1
    webhook_problems: tuple[str, ...] = ()
    has_admin: bool = False


@dataclass(frozen=True, slots=True)
class ClerkFacts:
    """The instance of the key, and by how much Clerk's clock is at least ahead of ours (behind, if negative)."""

    instance: Instance
    ahead: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The database server and our role on it.

    `transaction_pooler`: a connection has no session of its own there.
    `ahead`: by how much its clock is at least ahead of ours (behind, if negative).
    """

    host: str
    port: int
    protection: Protection
    role: str
    superuser: bool = False
    read_only: bool = False
    may_create: bool = True
    transaction_pooler: bool = False
    ahead: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class SchemaFacts:
    """The schema usersync: its version (0: missing), the one this program needs, the instance that is pinned."""

    version: int
    needed: int
    pinned: str | None = None


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One listed table. `name`, `column` are as SQL writes them; `kind` is empty where there is no such table.

    `lacking`: privileges that our role does not have on it.
    """

    table: Table
    name: str
    column: str
    kind: str = "r"
    hidden: bool = False
    lacking: tuple[str, ...] = ()
    user_id_type: str | None = "text"
    holds_text: bool = True
    deterministic: bool = True
    indexed: bool = True
    unique: bool = True


@dataclass(frozen=True, slots=True)
class ForeignRows:
    """Rows of one table whose user id is not of Clerk's form; names as SQL writes them."""

    table: str
    column: str
    rows: int


@dataclass(frozen=True, slots=True)
class Population:
    """Before first contact: of how many users of the database how many are in the instance."""

    sampled: int
    known: int


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """All of the database, each part by itself. `unlisted`: tables and their column of users.

    `unnoted`: sentences about foreign keys, looked for together with `cascades`.
    """

    server: ServerFacts | Failed
    schema: SchemaFacts | Failed
    tables: tuple[TableFacts, ...] | Failed
    unlisted: tuple[tuple[str, str], ...] | Failed
    cascades: tuple[str, ...] | Failed
    foreign: tuple[ForeignRows, ...] | Failed
    security: Security | Failed
    unnoted: tuple[str, ...] | Failed = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything."""

    given: Given
    clerk: ClerkFacts | Failed
    database: DatabaseFacts | Failed
    population: Population | Failed | None = field(default=None)


def skew(earliest: datetime, latest: datetime, *, before: datetime, after: datetime) -> timedelta:
    """Return by how much another clock is at least ahead of ours, or behind (negative), or zero if it may be right.

    The other clock showed something between `earliest` and `latest`, at a moment between our `before` and `after`.
    """
    ahead, behind = earliest - after, latest - before
    if ahead > timedelta():
        return ahead
    return min(behind, timedelta())
