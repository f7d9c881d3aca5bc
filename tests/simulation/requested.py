"""The promises about users' own requests, each checked against what was seen of a history."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from controller.core.claims import ClaimKind
from controller.core.leaving import OWN_REQUEST
from controller.core.users import UserId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.evidence import Entry
    from tests.simulation.stories import Story


def _receipts_of_requests(story: Story) -> dict[str, list[Entry]]:
    """The receipts of those who are gone on their own request; not those of rows that came back of them."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in story.entries("receipts"):
        content = entry.content
        if (content["act"], content["reason"], content["requested_by"]) == ("erased", "requested", OWN_REQUEST):
            found[str(story.user_of_hash.get(content["user_hash"]))].append(entry)
    return found


def requests_end_fulfilled_or_refused(story: Story) -> Iterator[str]:
    """One is lifted only where Clerk has refused, and nothing is done; else it ends with its receipt."""
    receipts = _receipts_of_requests(story)
    for entry in story.claims("unclaimed", ClaimKind.OWN_REQUEST):
        user = str(entry.user_id)
        if any(receipt.xid == entry.xid for receipt in receipts[user]):
            continue
        refused_at = story.evidence.refused.get(UserId(user))
        if refused_at is None or refused_at > entry.true_at:
            yield f"{entry.actor} ended the request of {user}, which is not fulfilled, and Clerk had not refused it"
        if story.buried_before(entry, user):
            yield f"{entry.actor} lifted the request of {user}, who was buried before"


def requests_have_one_receipt(story: Story) -> Iterator[str]:
    """Exactly one for each user whose request was not lifted, and none for anybody else."""
    asked = Counter(str(entry.user_id) for entry in story.claims("claimed", ClaimKind.OWN_REQUEST))
    ended = Counter(str(entry.user_id) for entry in story.claims("unclaimed", ClaimKind.OWN_REQUEST))
    receipts = _receipts_of_requests(story)
    for user, found in receipts.items():
        if len(found) > 1:
            yield f"{user} has {len(found)} receipts of his own request"
        if not asked[user]:
            yield f"{user} has a receipt of a request that he never made"
    for user in story.evidence.answered_deleted:
        if not receipts[user]:
            yield f"{user} was told that he is deleted, and has no receipt"
    if story.world.at_rest:
        for user, times in asked.items():
            if ended[user] != times:
                yield f"the request of {user} is neither fulfilled nor lifted in the end"


def nothing_is_left_of_who_asked(story: Story) -> Iterator[str]:
    """No row and no archived one, also of rows that came later."""
    if not story.world.at_rest:
        return
    asked = _receipts_of_requests(story)
    for user in asked:
        if UserId(user) in story.world.clerk.users:
            yield f"{user} is gone on his own request, and Clerk has him still"
    for row_id, (table, user_id) in story.live.items():
        if user_id in asked:
            yield f"row {row_id} of {user_id} in {table} is there, who is gone on his own request"
    for row_id, (table, user_id, _) in story.archive.items():
        if user_id in asked:
            yield f"row {row_id} of {user_id} in {table} is archived, who is gone on his own request"


PROMISES_OF_REQUESTS = (
    requests_end_fulfilled_or_refused,
    requests_have_one_receipt,
    nothing_is_left_of_who_asked,
)
