"""What a run does about row-level security, and how it reports it: `spec.rowLevelSecurity`.

Decides when something is changed (Enforce, in a run that may change something at all) and what the condition
says. A failure here is reported and never fails the run: users are kept in step all the same. Used by `sweeping`,
`diagnosing` and the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from controller.core.policies import BROKEN_BECAUSE, Command, Mending, Security, TableSecurity, mend, quote_name
from controller.core.targets import RowLevelSecurity
from controller.errors import UserSyncError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.core.targets import Spec

NAMED_AT_MOST = 5
POLICIES_NAMED = 2
"""Of each table: a condition has room for a thousand letters, and what mends it must be among them."""


class SecurityReason(StrEnum):
    """The one word of the condition `RowLevelSecurity`; docs/runbook.md explains each."""

    POLICIES_WORK = "PoliciesWork"
    POLICIES_BROKEN = "PoliciesBroken"
    SECURITY_OFF = "RowLevelSecurityOff"
    POLICIES_OPEN = "PoliciesOpen"
    POLICIES_MISSING = "PoliciesMissing"
    NOT_ENFORCED = "NotEnforced"
    NOT_APPLICABLE = "NotApplicable"
    CHECK_FAILED = "CheckFailed"


class Guarded(Protocol):
    """The database, as far as policies go."""

    async def read_security(self) -> Security:
        """Read the policies of the listed tables; nothing is locked."""

    async def mend_security(self, mending: Mending) -> None:
        """Do what is to be done to one table, in one transaction.

        Raises:
            DatabaseRefused: the role may not.
        """


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the condition `RowLevelSecurity` says; `holds` is None where nothing can be said."""

    reason: SecurityReason
    message: str
    holds: bool | None


async def secure(store: Guarded, spec: Spec) -> Verdict | None:
    """Do and report what `spec.rowLevelSecurity` asks for; None for Ignore."""
    if spec.row_level_security is RowLevelSecurity.IGNORE:
        return None
    policy = spec.policy()
    enforces = spec.row_level_security is RowLevelSecurity.ENFORCE
    try:
        security = await store.read_security()
        refusals: list[str] = []
        if enforces and policy.actions and not policy.dry_run:
            refusals = await _enforce(store, security)
            security = await store.read_security()
    except UserSyncError as error:
        return Verdict(SecurityReason.CHECK_FAILED, f"The policies could not be read: {error}", holds=None)
    verdict = judge(security)
    if refusals and verdict.holds is False:
        return Verdict(SecurityReason.NOT_ENFORCED, f"{verdict.message} {' '.join(refusals)}", holds=False)
    return verdict


async def _enforce(store: Guarded, security: Security) -> list[str]:
    """Mend each table that can be mended; returns why the others were not."""
    refusals: dict[str, None] = {}
    if security.missing is not None:
        return []
    for table in security.tables:
        mending = mend(table)
        if not mending:
            continue
        if not table.alterable:
            refusals[
                f"Our role may not change the policies of {security.schema}.{table.name}: name an owner of the tables "
                "in spec.database.adminUrlSecretRef, or run the SQL of usersync policies apply --print."
            ] = None
            continue
        try:
            await store.mend_security(mending)
        except UserSyncError as error:
            refusals[f"{security.schema}.{table.name} could not be changed: {error}"] = None
    return list(refusals)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with the policies, with what happens if it stays and what mends it."""

    reason: SecurityReason
    message: str
    consequence: str
    remedy: str


def judge(security: Security) -> Verdict:
    """Say what the policies come to; the worst comes first."""
    if security.missing is not None:
        return Verdict(
            SecurityReason.NOT_APPLICABLE,
            f"{security.missing} Policies for signed-in users have no meaning here.",
            holds=None,
        )
    found = faults(security)
    if not found:
        return Verdict(SecurityReason.POLICIES_WORK, _of_working(security), holds=True)
    words = (f"{fault.message} {fault.consequence} {fault.remedy}" for fault in found)
    return Verdict(found[0].reason, " ".join(words), holds=False)


def faults(security: Security) -> list[Fault]:
    """Return what is wrong, the worst first."""
    tables = [table for table in security.tables if table.reachable]
    judged = (_of_broken(tables), _of_off(tables), _of_open(tables), _of_missing(tables))
    return [fault for fault in judged if fault is not None]


def _of_broken(tables: Iterable[TableSecurity]) -> Fault | None:
    named = [_policies(table, table.broken()) for table in tables if table.enabled and table.broken()]
    if not named:
        return None
    return Fault(
        SecurityReason.POLICIES_BROKEN,
        f"Policies built on auth.uid(): {_listed(named)}.",
        BROKEN_BECAUSE,
        "Replace them: usersync policies apply --replace-broken, or --replace NAME for single ones.",
    )


def _of_off(tables: Iterable[TableSecurity]) -> Fault | None:
    off = [table for table in tables if not table.enabled]
    if not off:
        return None
    held = [_policies(table, table.broken()) for table in off if table.broken()]
    broken = (
        f" {_listed(held)} are built on auth.uid() and would break each request once it is on, so nothing turns it on "
        "until they are replaced (--replace-broken)."
        if held
        else ""
    )
    return Fault(
        SecurityReason.SECURITY_OFF,
        f"Row-level security is off: {_listed(table.name for table in off)}.",
        "Whoever has the public key of the application reads and changes the rows of all users.",
        f"Turn it on: usersync policies apply.{broken}",
    )


def _of_open(tables: Iterable[TableSecurity]) -> Fault | None:
    named = [_policies(table, table.open()) for table in tables if table.enabled and table.open()]
    if not named:
        return None
    return Fault(
        SecurityReason.POLICIES_OPEN,
        f"Policies that are true for every row: {_listed(named)}.",
        "They let everybody at the rows of all users.",
        "If that is not meant: usersync policies apply --replace NAME.",
    )


def _of_missing(tables: Iterable[TableSecurity]) -> Fault | None:
    parts = []
    for table in tables:
        if altered := table.altered():
            parts.append(f"{_policies(table, altered)} altered by hand")
        elif table.enabled and not table.granting() and not table.broken():
            parts.append(table.name)
    if not parts:
        return None
    return Fault(
        SecurityReason.POLICIES_MISSING,
        f"No policy lets signed-in users at their own rows: {_listed(parts)}.",
        "Their requests find nothing there, and may write nothing.",
        "Create them: usersync policies apply.",
    )


def _of_working(security: Security) -> str:
    """Say that all is well, and which commands are closed to users, which may be meant so."""
    closed = [
        f"{table.name} ({', '.join(command.value for command in table.closed())})"
        for table in security.tables
        if table.reachable and 0 < len(table.closed()) < len(Command)
    ]
    unreachable = [table.name for table in security.tables if not table.reachable]
    parts = [
        "Signed-in users reach their own rows, and nobody else's, as far as the policies can be judged.",
        f"Closed to them, by the application's policies: {_listed(closed)}." if closed else "",
        f"Without any grant to anon and authenticated: {_listed(unreachable)}." if unreachable else "",
    ]
    return " ".join(filter(None, parts))


def _policies(table: TableSecurity, names: Iterable[str]) -> str:
    """Name policies of one table; their names are sentences as a rule."""
    return f"{table.name} ({_listed([quote_name(name) for name in names], POLICIES_NAMED)})"


def _listed(names: Iterable[str], at_most: int = NAMED_AT_MOST) -> str:
    found = list(names)
    more = f" and {len(found) - at_most} more" if len(found) > at_most else ""
    return f"{', '.join(found[:at_most])}{more}"
