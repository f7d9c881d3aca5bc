"""The name of a set of users whom a person may permit to go: a digest that every process computes alike.

Decides what a set is: whose instance, which tables, by which policy, and exactly which users. The digest
permits no other user, no other table, and nothing after 7 days. Used by `sweeping` and by the stores.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from controller.core.targets import DeletionPolicy, Target
    from controller.core.users import UserId

VALID_FOR = timedelta(days=7)
"""How long a set may be approved after it was last held back."""


@dataclass(frozen=True, slots=True)
class HeldSet:
    """A stored set: its digest, how many users, and since when it waits."""

    digest: str
    users: int
    since: datetime
    seen_before: bool


def set_header(instance_id: str, target: Target, policy: DeletionPolicy) -> str:
    """Return what a set is bound to, beside its users, as one line of JSON."""
    tables = sorted([table.name, table.user_id_column, table.role.value] for table in target.tables)
    return json.dumps([instance_id, target.schema, tables, policy.value], separators=(",", ":"))


def name_after(used: str) -> str:
    """Return how a set is called that is held back again after its digest `used` was used up.

    Who approved it then has not approved it now: the old digest may still stand in an annotation.
    """
    return hashlib.sha256(f"{used}\n".encode()).hexdigest()


@dataclass(slots=True)
class SetDigest:
    """sha256 over the header and the ids in byte order, each on a line; feed it ids in that order."""

    header: str
    users: int = field(default=0, init=False)
    _hash: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Begin with the header."""
        self._hash = hashlib.sha256(f"{self.header}\n".encode())

    def add(self, user_ids: Iterable[UserId]) -> None:
        """Take in the next ids."""
        for user_id in user_ids:
            self._hash.update(f"{user_id}\n".encode("ascii"))
            self.users += 1

    def hexdigest(self) -> str:
        """Return the digest, 64 hexadecimal digits."""
        digest: str = self._hash.hexdigest()
        return digest
