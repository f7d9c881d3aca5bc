"""What `usersync doctor` says: findings, each with what happens if it stays and what mends it. Data only.

Made by `diagnosing`; printed by the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How much it matters."""

    ERROR = "error"
    """usersync, or the application, does not work with it, or rows are open to others."""
    WARNING = "warning"
    """It works, and will not some day."""
    NOTE = "note"
    """Good to know; may be meant so."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `remedy` is a command or SQL where there is one, else what to do."""

    name: str
    severity: Severity
    message: str
    consequence: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A check that could not be made."""

    check: str
    why: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything found, the worst first, and what could not be looked at."""

    findings: tuple[Finding, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()

    @property
    def is_grave(self) -> bool:
        """Whether there is more than notes."""
        return any(finding.severity is not Severity.NOTE for finding in self.findings)


def error(name: str, message: str, consequence: str, remedy: str) -> Finding:
    """Make a finding of that severity."""
    return Finding(name, Severity.ERROR, message, consequence, remedy)


def warning(name: str, message: str, consequence: str, remedy: str) -> Finding:
    """Make a finding of that severity."""
    return Finding(name, Severity.WARNING, message, consequence, remedy)


def note(name: str, message: str, consequence: str, remedy: str) -> Finding:
    """Make a finding of that severity."""
    return Finding(name, Severity.NOTE, message, consequence, remedy)
