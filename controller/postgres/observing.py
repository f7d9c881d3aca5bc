"""What Clerk listed, laid beside what the tables hold; the sets stay in the database.

Decides who is missing, orphaned, duplicated or foreign. Every row is read once, grouped by user before
anything is joined. Used by `runs`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from controller.core.drift import Drift, TableDrift
from controller.core.users import CLERK_ID_PATTERN, parse_user_id
from controller.errors import ListingIncomplete
from controller.postgres.queries import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from controller.core.targets import Target
    from controller.core.users import UserId
    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shapes

_SQL: Final = load("observing")
PAGE: Final = 500
# A merge join of texts compares by the collation, which the planner takes to be free: 8 to 14 times slower
# than hashing where it is not "C".
PLANNER_SETTINGS: Final = "SET LOCAL enable_mergejoin = off"


async def record_listed(transaction: Transaction, run_id: UUID, user_ids: Sequence[UserId]) -> None:
    """Add a page to what Clerk listed. The ids are of Clerk's form, so no character needs an escape."""
    lines = "".join(f"{run_id}\t{user_id}\n" for user_id in user_ids if parse_user_id(user_id) is not None)
    await transaction.copy("listed", ("run_id", "user_id"), lines.encode("ascii"))


@dataclass(frozen=True, slots=True)
class Observation:
    """What is compared: the listing of a run, `recorded` ids, with the tables of a target.

    `retains`: the policy leaves the rows of tombstoned users where they are.
    """

    run_id: UUID
    recorded: int
    target: Target
    shapes: Shapes
    retains: bool = False


async def observe(transaction: Transaction, observation: Observation) -> Drift:
    """Compare everything and keep the sets for the pages of `drifted_page`; what was kept before goes.

    The users who are due or approved stay as they were marked. The transaction has to be REPEATABLE READ.

    Raises:
        ListingIncomplete: fewer are there; whoever is not among them would look like an orphan.
    """
    run_id, recorded, target, shapes = observation.run_id, observation.recorded, observation.target, observation.shapes
    there = await transaction.value(_SQL["count_listed"], run_id)
    if there != recorded:
        message = (
            f"Of {recorded} users listed, {there} are still recorded in the database: it was restarted in the middle "
            "of the run. Nothing was deleted; the next run lists anew."
        )
        raise ListingIncomplete(message)
    await transaction.execute(PLANNER_SETTINGS)
    await transaction.change(_SQL["forget_observed"], run_id)
    places = {shape.name: place for place, shape in enumerate(shapes.tables)}
    parts = [shape.sql(_SQL["rows_per_user"], place=str(places[shape.name])) for shape in shapes.tables]
    query = _SQL["observe"].sql(fragments={"parts": "\nUNION ALL\n".join(parts)})
    profile = shapes.profile
    profile_place = places[profile.name] if profile is not None else -1
    row = await transaction.row(
        query, run_id, target.schema, CLERK_ID_PATTERN, profile is not None, profile_place, observation.retains
    )
    return _drift(row, list(places))


def _drift(row: Any, names: list[str]) -> Drift:
    # A table without rows has no group, and is counted all the same.
    found = {entry["place"]: entry for entry in json.loads(row["per_table"] or "[]")}
    nothing = {"rows": 0, "users": 0, "orphaned_rows": 0}
    per_table = [(name, found.get(place, nothing)) for place, name in enumerate(names)]
    return Drift(
        clerk_users=row["clerk_users"],
        users_with_rows=row["users_with_rows"],
        synced=row["synced"],
        missing=row["missing"],
        clerk_only=row["clerk_only"],
        orphaned=row["orphaned"],
        duplicates=row["duplicates"],
        duplicated_users=row["duplicated_users"],
        foreign=row["foreign"],
        retained=row["unlisted"] - row["orphaned"],
        tables=tuple(
            TableDrift(name, int(entry["rows"]), int(entry["users"]), int(entry["orphaned_rows"]))
            for name, entry in per_table
        ),
    )


async def drifted_page(transaction: Transaction, run_id: UUID, kind: str, after: str) -> list[UserId]:
    """Return the next users of a kind in byte order, beginning behind `after`."""
    rows = await transaction.rows(_SQL["drifted_page"], run_id, kind, after, PAGE)
    user_ids = (parse_user_id(row["user_id"]) for row in rows)
    return [user_id for user_id in user_ids if user_id is not None]
