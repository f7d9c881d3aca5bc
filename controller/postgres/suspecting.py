"""Suspects, and the sets of them that wait for a person: noted, aged, marked, held and approved.

Decides ages by the database's clock, and which users an approval permits; whether a set may go is
`core.planning`'s. Used by `runs`, under the run's fence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from controller.core.approving import VALID_FOR, HeldSet, name_after
from controller.core.suspects import Suspects, Terms
from controller.postgres.queries import load

if TYPE_CHECKING:
    from uuid import UUID

    from controller.core.approving import SetDigest
    from controller.core.targets import Approval
    from controller.postgres.connections import Transaction

_SQL: Final = load("suspects")
DUE: Final = "due"
APPROVED: Final = "approved"
"""Kinds of `usersync.drifted` that a run may remove."""


async def weigh(transaction: Transaction, run_id: UUID, schema: str, instance_id: str, terms: Terms) -> None:
    """Note the orphaned as suspects, let go those who were seen again, and mark who is due."""
    await transaction.change(_SQL["forget_marks"], run_id)
    epoch = await _epoch(transaction)
    await transaction.change(_SQL["note_suspects"], run_id, schema, instance_id, epoch, terms.longest_gap)
    await transaction.change(_SQL["forget_suspects"], run_id, schema)
    await transaction.change(_SQL["mark_due"], run_id, schema, terms.grace_period)
    await transaction.change(_SQL["forget_held_users"], run_id, schema)


async def _epoch(transaction: Transaction) -> str:
    readable = await transaction.value(_SQL["may_read_epoch"])
    epoch: str = await transaction.value(_SQL["epoch" if readable else "epoch_by_table"])
    return epoch


async def set_apart(transaction: Transaction, run_id: UUID, schema: str, approval: Approval, header: str) -> str | None:
    """Mark those of the due whom `approval` permits; returns why it permits nobody, if it does not."""
    stored = await transaction.row(_SQL["find_set"], schema, approval.digest, VALID_FOR)
    void = _why_void(stored, header)
    if void is not None:
        return f"The approval of {approval.digest} is of no effect: {void}."
    await transaction.change(_SQL["set_apart"], run_id, schema, stored["set_number"])
    return None


def _why_void(stored: Any, header: str) -> str | None:
    """Say why a stored set (None: there is none) permits nobody, if it does not."""
    if stored is None:
        return "no set of that digest has been held back here"
    if stored["used"]:
        return "it has been used"
    if stored["expired"]:
        return f"the set was held back more than {VALID_FOR.days} days ago"
    if stored["header"] != header:
        return "instance, schema, tables or policy have changed since"
    return None


async def count(transaction: Transaction, run_id: UUID, schema: str, terms: Terms) -> Suspects:
    """Count who was marked, and who went within the window."""
    row = await transaction.row(_SQL["weigh"], run_id, schema, terms.window)
    return Suspects(
        due=row["due"],
        due_counted=row["due_counted"],
        waiting=row["orphaned"] - row["due"] - row["approved"],
        removed=row["removed"],
        approved=row["approved"],
    )


async def hold(transaction: Transaction, run_id: UUID, schema: str, digest: SetDigest) -> HeldSet:
    """Store the due as a set under its digest, each user with the number of the first set that had him."""
    number = await transaction.value(_SQL["next_set_number"], schema)
    await transaction.change(_SQL["add_held_users"], run_id, schema, number)
    await transaction.change(_SQL["keep_apart"], run_id, schema, number)
    named = digest.hexdigest()
    while await transaction.value(_SQL["is_used"], schema, named):
        named = name_after(named)
    row = await transaction.row(_SQL["hold_set"], schema, named, digest.header, number, digest.users)
    return HeldSet(named, digest.users, row["held_since"], row["seen_before"])


async def approve(transaction: Transaction, run_id: UUID, schema: str, approval: Approval) -> None:
    """Record who permitted a set, in its own row and in that of the run."""
    await transaction.change(_SQL["approve"], schema, approval.digest, approval.given_by)
    await transaction.change(_SQL["note_approval"], run_id, approval.digest, approval.given_by)


async def use_up(transaction: Transaction, run_id: UUID, schema: str, approval: Approval) -> None:
    """Let an approval permit nobody any more."""
    await transaction.change(_SQL["use_up"], schema, approval.digest, run_id)
