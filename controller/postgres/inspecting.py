"""What is to be said of a target before a run: tables that are missing, slow, incomplete or forgotten.

Decides nothing about rows. What makes a target unusable is raised by `shapes`; here are the warnings. Used by
`database`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from controller.core.ports import Inspection
from controller.postgres.queries import load, quoted
from controller.postgres.shapes import NAMED_AT_MOST, describe
from controller.postgres.updating import describe_writing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from controller.core.targets import Target
    from controller.postgres.connections import Transaction
    from controller.postgres.shapes import Shape, Shapes

_SQL: Final = load("targets")


async def inspect_target(transaction: Transaction, target: Target) -> Inspection:
    """Describe the target and put its weaknesses into sentences.

    Raises:
        TablesMissing, TableUnsupported, RoleSeesNotAll, DatabaseRefused: as `shapes.describe`.
    """
    shapes = await describe(transaction, target)
    writing = await describe_writing(transaction, shapes.profile)
    unlisted = await transaction.rows(
        _SQL["unlisted_tables"],
        target.schema,
        [table.name for table in target.tables],
        [table.user_id_column for table in target.tables],
    )
    cascades = shapes.references.unlisted_cascades
    warnings = (
        *_of_missing(shapes, target),
        *_of_indexes(shapes),
        *_of_profile(shapes.profile),
        *(writing.columns.warnings() if writing is not None else ()),
        *_of_unlisted(target, unlisted),
        *_of_cycle(shapes),
        *cascades[:NAMED_AT_MOST],
    )
    return Inspection(shapes.missing_tables, warnings, cascades, shapes.references.unnoted_links)


def _of_missing(shapes: Shapes, target: Target) -> Iterator[str]:
    for name in shapes.missing_tables:
        if name == target.profile.name:
            yield (
                f"The profile table {target.schema}.{name} does not exist: profiles cannot be created, and nobody is "
                "counted as missing one."
            )
        else:
            yield f"The table {target.schema}.{name} does not exist; it is skipped."


def _of_indexes(shapes: Shapes) -> Iterator[str]:
    for shape in shapes.tables:
        if not shape.indexed:
            column = quoted(shape.table.user_id_column)
            yield (
                f"{shape.schema}.{shape.name} has no index on {shape.table.user_id_column}, so every run reads the "
                f"whole table: CREATE INDEX CONCURRENTLY ON {quoted(shape.schema)}.{quoted(shape.name)} ({column});"
            )


def _of_profile(profile: Shape | None) -> Iterator[str]:
    if profile is None:
        return
    name = f"{profile.schema}.{profile.name}"
    if not profile.has_created_at:
        yield (
            f"{name} has no column {profile.table.created_at_column}: of several profile rows of a user the first by "
            "primary key is kept, not the oldest."
        )
    mapped = {each.column for each in profile.table.values}
    required = [column for column in profile.required if column not in mapped]
    if required:
        yield (
            f"Profiles cannot be created in {name}: {', '.join(required)} may not be NULL and has no default. "
            "Give it a default (ALTER TABLE ... ALTER COLUMN ... SET DEFAULT ...)."
        )


def _of_unlisted(target: Target, rows: Sequence[Any]) -> Iterator[str]:
    if not rows:
        return
    names = [f"{row['name']}.{row['user_id']}" for row in rows[:NAMED_AT_MOST]]
    more = f" and {len(rows) - NAMED_AT_MOST} more" if len(rows) > NAMED_AT_MOST else ""
    yield (
        f"Not in spec.tables, though with a column of users, in schema {target.schema}: {', '.join(names)}{more}. "
        "Their rows are left as they are."
    )


def _of_cycle(shapes: Shapes) -> Iterator[str]:
    cycle = shapes.ordering.cycle
    if cycle:
        keys = ", ".join(f"{key.name} of {key.child} ({key.on_delete.words})" for key in cycle[:NAMED_AT_MOST])
        yield (
            f"Foreign keys make a cycle, so no table can be emptied first: {keys}. Users whose rows are linked that "
            "way are left whole. Make one of the keys ON DELETE NO ACTION DEFERRABLE."
        )
