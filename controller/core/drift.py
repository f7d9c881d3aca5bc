"""How far the database is from Clerk, in counts; the ids behind the counts stay in the database.

Made by the store from one set-based observation; read by `planning` and reported in the status. Holds
no user id, so it can be logged and shown.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableDrift:
    """One table: its rows, the Clerk users who own any of them, and the rows of orphans."""

    name: str
    rows: int
    users: int
    orphaned_rows: int


@dataclass(frozen=True, slots=True)
class Drift:
    """Counts of users, but for `duplicates` (surplus profile rows) and `foreign` (values).

    - `clerk_users`: users in the listing.
    - `users_with_rows`: users of Clerk's form with a row in any listed table; base of the percentage.
    - `synced`: listed users with a profile row; `missing`: those without one, but for the tombstoned.
    - `clerk_only`: listed users with no row in any table (a part of `missing`).
    - `outdated`: listed users whose mapped columns hold something else than Clerk says.
    - `orphaned`: users with rows who are not in the listing.
    - `duplicates`: profile rows beyond the first of a user; `duplicated_users`: the users who have them.
    - `retained`: users gone from Clerk whose rows the policy leaves where they are; no part of `orphaned`.
    - `foreign`: distinct values that are not of Clerk's form (never NULL or empty); never touched.
    """

    clerk_users: int
    users_with_rows: int
    synced: int
    missing: int
    clerk_only: int
    orphaned: int
    duplicates: int
    duplicated_users: int
    foreign: int
    tables: tuple[TableDrift, ...] = ()
    retained: int = 0
    outdated: int = 0

    @property
    def total(self) -> int:
        """The one number of the printer column: users and rows that would have to change."""
        return self.missing + self.orphaned + self.duplicates + self.outdated
