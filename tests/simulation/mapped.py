"""The promises about mapped columns, each checked against what was seen of a history.

By Clerk's own versions: each edit has values of its own, so that what is written tells of which edit it is.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from controller.core.users import UserId
from tests.support.databases import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.evidence import Entry
    from tests.simulation.stories import Story


def _written(story: Story) -> Iterator[tuple[Entry, int | None]]:
    """Yield what the product wrote of users, and where they ended: of which edit, counted from 0; -1: of none.

    A sign-up whose event says nothing of the user makes a row without values, which are of no edit and in nobody's way.
    """
    if not story.world.maps:
        return
    ends = {each.entries[0].id for each in (*story.removed, *story.begun)}
    for entry in story.evidence.log:
        if entry.id in ends:
            yield entry, None
        elif entry.what in {"insert", "update"} and entry.table == TABLES[0] and entry.actor:
            versions = story.world.clerk.versions[UserId(str(entry.user_id))]
            values = tuple(entry.content["values"])
            if entry.what == "insert" and not any(values):
                continue
            yield entry, next((place for place, each in enumerate(versions) if each.values == values), -1)


def values_are_of_one_version(story: Story) -> Iterator[str]:
    for entry, place in _written(story):
        if place == -1:
            yield f"{entry.actor} wrote {entry.content['values']} of {entry.user_id}, which Clerk never said"


def older_is_never_written_over_newer(story: Story) -> Iterator[str]:
    """While a user has not been removed: what was noted of him is forgotten then."""
    highest: dict[str | None, int] = {}
    of_removal = {each.entries[0].id: each.user_id for each in (*story.removed, *story.begun)}
    for entry, place in _written(story):
        if place is None:
            highest.pop(of_removal[entry.id], None)
        elif place < highest.get(entry.user_id, -1):
            yield f"{entry.actor} wrote edit {place} of {entry.user_id} over edit {highest[entry.user_id]}"
        else:
            highest[entry.user_id] = place


def versions_only_grow(story: Story) -> Iterator[str]:
    """What is noted of a user, until it is forgotten."""
    noted: dict[str | None, int] = {}
    for entry in story.evidence.log:
        if entry.what == "forgotten":
            noted.pop(entry.user_id, None)
        elif entry.what == "noted":
            if entry.content < noted.get(entry.user_id, entry.content):
                yield f"{entry.actor} noted {entry.content} of {entry.user_id} after {noted[entry.user_id]}"
            noted[entry.user_id] = entry.content


def mapped_columns_converge(story: Story) -> Iterator[str]:
    world = story.world
    if not world.maps or not world.at_rest:
        return
    held: dict[str, list[Any]] = defaultdict(list)
    for user_id, *values in story.values:
        held[user_id].append(tuple(values))
    for user in world.clerk.users:
        told = world.clerk.versions[user][-1].values
        for values in held[user]:
            if values != told:
                yield f"{user} has {values} in the end, and Clerk says {told}"


PROMISES_OF_VALUES = (
    values_are_of_one_version,
    older_is_never_written_over_newer,
    versions_only_grow,
    mapped_columns_converge,
)
