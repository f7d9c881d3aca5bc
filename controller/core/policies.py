"""Row-level security of the listed tables: what the policies of the application come to, and what may be mended. Pure.

Decides which policies let a signed-in user at his own rows, which break each request (those built on `auth.uid()`,
which casts Clerk's id to uuid), which let everybody at everything, and what `usersync policies apply` and
`rowLevelSecurity: Enforce` change. Never widens what the application has decided by a policy of its own, and never
drops one that nobody has named. Used by `securing`, `diagnosing` and the command line; read by `postgres.policing`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

SIGNED_IN = "authenticated"
"""The role of Supabase that a request with a session token runs as."""
REACHED_BY_ALL = frozenset({"anon", SIGNED_IN, "public"})
PREFIX = "usersync_"
"""Of the names of our policies: `usersync_select` and so on, one for each command and table."""

BROKEN_BECAUSE = (
    "auth.uid() casts the subject of the token to uuid, which Clerk's ids (user_...) are not: each request of a "
    "signed-in user ends with 'invalid input syntax for type uuid', also beside policies that work, as all of them are "
    "evaluated."
)


class Command(Enum):
    """What a policy is for."""

    SELECT = "SELECT"
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


class Form(Enum):
    """What the expressions of a policy amount to."""

    OWN = "own rows"
    """The subject of the token is the row's user: works with Clerk's ids."""
    BROKEN = "broken"
    """Built on `auth.uid()`."""
    OPEN = "every row"
    """True for every row, or lets a row be given to anybody."""
    OTHER = "something else"
    """Not judged: a condition of the application's own."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy, as the catalogue has it; `roles` has `public` for all, expressions are those the server prints.

    `casts_to_uuid`: an expression depends on `auth.uid()`, and that returns uuid.
    """

    name: str
    commands: frozenset[Command]
    roles: frozenset[str] = frozenset({SIGNED_IN})
    permissive: bool = True
    casts_to_uuid: bool = False
    using: str | None = None
    check: str | None = None

    @property
    def is_ours(self) -> bool:
        """Whether its name is one that we give."""
        return self.name in OUR_NAMES

    @property
    def applies(self) -> bool:
        """Whether it is evaluated for signed-in users."""
        return bool(self.roles & {SIGNED_IN, "public"})

    def form(self, column: str) -> Form:
        """Say what it amounts to; `column` is the one of the user id, as SQL writes it."""
        if self.casts_to_uuid:
            return Form.BROKEN
        normal = {_normal(expression) for expression in (self.using, self.check) if expression is not None}
        if "true" in normal:
            return Form.OPEN
        own = {f"auth.jwt->>'sub'={_normal(column)}", f"{_normal(column)}=auth.jwt->>'sub'"}
        return Form.OWN if normal and normal <= own else Form.OTHER


OUR_NAMES = {f"{PREFIX}{command.value.lower()}": command for command in Command}


@dataclass(frozen=True, slots=True)
class TableSecurity:
    """One listed table that is there. `column` is the one of the user id, as SQL writes it.

    `alterable`: our role (or the admin's) may change its policies; `reachable`: anon or authenticated have a
    privilege on it at all.
    """

    name: str
    column: str = "user_id"
    enabled: bool = True
    alterable: bool = True
    reachable: bool = True
    policies: tuple[Policy, ...] = ()

    def broken(self) -> tuple[str, ...]:
        """Name the policies that break each request of a signed-in user."""
        return tuple(each.name for each in self.policies if each.applies and each.form(self.column) is Form.BROKEN)

    def open(self) -> tuple[str, ...]:
        """Name the policies that let everybody at every row."""
        return tuple(
            each.name
            for each in self.policies
            if each.permissive and each.roles & REACHED_BY_ALL and each.form(self.column) is Form.OPEN
        )

    def altered(self) -> tuple[str, ...]:
        """Name the policies that have a name of ours, and not what we have written."""
        return tuple(each.name for each in self.policies if each.is_ours and not self._is_as_made(each))

    def granting(self) -> tuple[Policy, ...]:
        """Return the policies that let signed-in users at rows, without those that are broken or altered."""
        return tuple(
            each
            for each in self.policies
            if each.applies
            and each.permissive
            and each.form(self.column) is not Form.BROKEN
            and (not each.is_ours or self._is_as_made(each))
        )

    def closed(self) -> tuple[Command, ...]:
        """Return the commands that no policy lets signed-in users do."""
        granted = {command for each in self.granting() for command in each.commands}
        return tuple(command for command in Command if command not in granted)

    def _is_as_made(self, policy: Policy) -> bool:
        return (
            policy.commands == {OUR_NAMES[policy.name]}
            and policy.permissive
            and policy.roles == {SIGNED_IN}
            and policy.form(self.column) is Form.OWN
        )


@dataclass(frozen=True, slots=True)
class Security:
    """The listed tables; `missing` says what of Supabase is not in this database, so that policies mean nothing."""

    schema: str
    tables: tuple[TableSecurity, ...] = ()
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Mending:
    """What is to be done to one table, all of it or nothing.

    `blocked_by`: broken policies of the application's own; while they stand nothing is done to the table.
    """

    table: str
    drop: tuple[str, ...] = ()
    create: tuple[Command, ...] = ()
    enable: bool = False
    blocked_by: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.drop or self.create or self.enable)


@dataclass(frozen=True, slots=True)
class Replacing:
    """Which policies of the application's own a person gives up: by name, or all that are broken."""

    names: frozenset[str] = frozenset()
    broken: bool = False


NOTHING_REPLACED = Replacing()


def mend(table: TableSecurity, replacing: Replacing = NOTHING_REPLACED) -> Mending:
    """Decide what is to be done to one table.

    Where the application has policies of its own that are not broken, none of ours is added: permissive policies are
    OR-ed, so ours would let users do what the application does not.
    """
    if not table.reachable:
        return Mending(table.name)
    broken = table.broken()
    # A name of ours is ours to give; what somebody made of it is replaced.
    altered = table.altered()
    given_up = {name for name in broken if replacing.broken} | {each.name for each in table.policies} & replacing.names
    blocked_by = tuple(name for name in broken if name not in given_up and name not in altered)
    if blocked_by:
        return Mending(table.name, blocked_by=blocked_by)
    dropped = tuple(each.name for each in table.policies if each.name in given_up or each.name in altered)
    kept = [each for each in table.granting() if each.name not in dropped]
    ours = {OUR_NAMES[each.name] for each in kept if each.is_ours}
    wanted = {OUR_NAMES[name] for name in altered} if any(not each.is_ours for each in kept) else set(Command) - ours
    create = tuple(command for command in Command if command in wanted)
    return Mending(table.name, dropped, create, enable=not table.enabled)


def quote_name(name: str) -> str:
    """Write the name of a policy as it is written in SQL, so that it can be copied from a message."""
    return '"' + name.replace('"', '""') + '"'


def unknown_names(security: Security, replacing: Replacing) -> list[str]:
    """Return the names to be replaced that no listed table has a policy of."""
    present = {each.name for table in security.tables for each in table.policies}
    return sorted(replacing.names - present)


_ALIAS = re.compile(r"\bAS\s+(\"[^\"]*\"|\w+)", re.IGNORECASE)
_NOISE = re.compile(r"::(text|character varying(\(\d+\))?)|\bselect\b|[\s()]", re.IGNORECASE)


def _normal(expression: str) -> str:
    """Take off what the server adds or drops as it prints an expression, and what changes nothing of it."""
    return _NOISE.sub("", _ALIAS.sub("", expression))
