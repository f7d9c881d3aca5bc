"""Receipts as they are read again: what became of users, and whether the chain of them still holds.

Nothing here names a user. Made by the store; read by the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Receipt:
    """One receipt. `user_hash` and `link` (its place in the chain; None: not linked yet) in hexadecimal."""

    position: int | None
    act: str
    reason: str
    requested_by: str
    issued_at: datetime
    counted: bool
    approval: str | None
    run_id: str | None
    rows: Mapping[str, int]
    user_hash: str
    link: str | None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found. `problem`: a sentence, None where everything fits; `position`: where, if anywhere."""

    receipts: int
    head: str | None
    problem: str | None = None
    position: int | None = None
