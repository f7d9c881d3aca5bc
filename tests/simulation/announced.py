"""The promises about what the resource says of events: to have them at once, after a holdback, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.core.claims import ClaimKind
from controller.core.targets import OnUserCreated, OnUserDeleted
from tests.simulation.histories import CONTROLLERS
from tests.simulation.stories import actor_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.evidence import Entry
    from tests.simulation.stories import Removed, Story

ASKED_FOR = {ClaimKind.DELETION: OnUserDeleted.IMMEDIATE, ClaimKind.HOLDBACK: OnUserDeleted.HOLDBACK}
"""Which setting each claim of a deletion comes from."""


def _announced(story: Story, *kinds: ClaimKind) -> list[Entry]:
    """Claims that an event has left; a removal in batches leaves one too, for who goes on with it."""
    return [entry for entry in story.claims("claimed", *kinds) if ":msg" in entry.actor]


def _first_removals(story: Story) -> list[Removed]:
    """Removals of users who were not deleted before, and had not asked for it."""
    return [
        each
        for each in (*story.removed, *story.begun)
        if not (each.goes_on or each.on_request or story.buried_before(each.entries[0], each.user_id))
    ]


def deletions_are_claimed_as_configured(story: Story) -> Iterator[str]:
    """A claim is of the setting that held when its event came; an event without one removes nobody."""
    for kind, setting in ASKED_FOR.items():
        for entry in _announced(story, kind):
            spec = story.evidence.specs[entry.actor]
            if spec.webhook.on_user_deleted is not setting:
                yield f"{entry.actor} claimed ({kind.value}) {entry.user_id} under {spec.webhook.on_user_deleted}"
    claims = _announced(story, ClaimKind.DELETION, ClaimKind.HOLDBACK, ClaimKind.CATCH_UP)
    for removed in _first_removals(story):
        first = removed.entries[0].id
        if not removed.by_run and not any(each.user_id == removed.user_id and each.id < first for each in claims):
            yield f"{removed.actor} removed {removed.user_id} by an event that asks for nothing"


def holdbacks_are_kept(story: Story) -> Iterator[str]:
    """No event and no run removes whose holdback is not over, unless another event asks for it at once."""
    weighed = {entry.actor: entry.id for entry in story.entries("weighed")}
    at_once = _announced(story, ClaimKind.DELETION)
    for removed in _first_removals(story):
        first = removed.entries[0]
        # What comes after a run has decided is too late for it.
        until = weighed.get(removed.actor, first.id) if removed.by_run else first.id
        standing = _standing(story, removed.user_id, until)
        if standing is None or _is_over(story, standing, first):
            continue
        if removed.by_run or not any(each.user_id == removed.user_id and each.id < first.id for each in at_once):
            yield f"{removed.actor} removed {removed.user_id}, whose holdback began at {standing.true_at}"


def _standing(story: Story, user_id: str, until: int) -> Entry | None:
    """The claim that held the user back when the log was as long as that."""
    found: Entry | None = None
    for entry in story.evidence.log:
        if entry.id >= until:
            break
        if entry.user_id == user_id and entry.table == ClaimKind.HOLDBACK.value:
            found = entry if entry.what == "claimed" else None
    return found


def _is_over(story: Story, began: Entry, ends: Entry) -> bool:
    """By the database's clock: one that is put forward shortens it, one that is set back does not."""
    jumps = [seconds for at, seconds in story.evidence.jumps if began.true_at <= at <= ends.true_at]
    waited = ends.true_at - began.true_at + sum(seconds for seconds in jumps if seconds > 0)
    return waited >= story.world.history.beginning.holdback_hours * 3600 - 1


def profiles_are_created_as_configured(story: Story) -> Iterator[str]:
    doubted = _announced(story, ClaimKind.CREATION)
    for entry in story.entries("insert"):
        if not entry.actor or actor_name(entry.actor) in CONTROLLERS:
            continue
        if story.evidence.specs[entry.actor].webhook.on_user_created is not OnUserCreated.IGNORE:
            continue
        # A sign-up that was doubted is settled as it was asked for when it came.
        if not any(each.user_id == entry.user_id and each.id < entry.id for each in doubted):
            yield f"{entry.actor} created a profile of {entry.user_id}, though sign-ups are to be ignored"


PROMISES_OF_EVENTS = (
    deletions_are_claimed_as_configured,
    holdbacks_are_kept,
    profiles_are_created_as_configured,
)
