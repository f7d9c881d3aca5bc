"""What a person asks for one user: put back what was removed of him, or erase all that is left of him.

Decides what Clerk must have said before: only who lives is put back (or whom a person forces back), only who is
proved gone is erased. The store carries it out. Used by the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from controller.core.contact import require_pinned
from controller.core.planning import in_hours
from controller.core.proving import prove_absence
from controller.core.users import Presence
from controller.errors import ClerkAnswerOdd, ClerkRefused, ClerkUnavailable, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from controller.core.ports import Clock, Directory
    from controller.core.proofs import Proof
    from controller.core.users import UserId


@dataclass(frozen=True, slots=True)
class RestoreTerms:
    """How a user is to be put back.

    - `tables`: only these, by the name they had or have; none: all.
    - `renamed`: the name a table had when its rows were removed -> the name it has now.
    - `skips_conflicts`: what conflicts with rows that are there now stays in the archive, instead of all of it.
    - `duplicates`: surplus profile rows too.
    - `dry_run`: everything is done and undone again.
    - `lives`: Clerk knows the user.
    """

    requested_by: str
    tables: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    skips_conflicts: bool = False
    duplicates: bool = False
    dry_run: bool = False
    lives: bool = False

    def wants(self, table: str) -> bool:
        """Whether rows are to be put back that were removed from the table of that name."""
        return not self.tables or table in self.tables or self.renamed.get(table) in self.tables


@dataclass(frozen=True, slots=True)
class Links:
    """What became of references of rows that had stayed, counted by the table of these.

    - `restored`: they refer again to what was put back.
    - `left`: the row is gone or refers to something else by now, or there is nothing to refer to.
    - `skipped`: a constraint of today, or a missing right, stands in the way.
    """

    restored: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back. Rows by the table's present name; `left`: columns whose values stay in the archive."""

    rows: Mapping[str, int]
    skipped: Mapping[str, int]
    left: Mapping[str, tuple[str, ...]]
    tombstone_lifted: bool
    links: Links = field(default_factory=Links)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased: rows by table, and archived rows; not `finished`: more is left than one proof permits."""

    rows: Mapping[str, int]
    archived: int
    finished: bool = True


class Erasure(Protocol):
    """One user's erasure, while no run is under way."""

    async def remove(self, proof: Proof) -> Erased:
        """Remove rows and every trace of the user but tombstone and receipt; of very many rows a part.

        Raises:
            RequestRefused: the proof does not hold, or the database keeps a row.
        """


class Archive(Protocol):
    """The database of one target, as a person's request uses it."""

    async def pinned_instance(self) -> str | None:
        """Return the instance id that this target belongs to, or None before first contact."""

    async def restore(self, user_id: UserId, terms: RestoreTerms) -> Restored:
        """Put the user's archived rows back and lift his tombstone, in one transaction.

        Raises:
            RequestRefused: nothing is there to be put back, or it does not fit; nothing was changed.
            TargetBusy: a run is under way.
        """

    def erasing(self, requested_by: str) -> AbstractAsyncContextManager[Erasure]:
        """Keep runs away while one user is erased.

        Raises:
            TargetBusy: a run is under way.
        """


async def restore(
    user_id: UserId, terms: RestoreTerms, directory: Directory, archive: Archive, *, grace_period: timedelta | None
) -> Restored:
    """Put a user back whom Clerk knows; or whomever, where a `grace_period` says that a person forces it.

    Raises:
        RequestRefused: Clerk does not know him, or cannot be asked; or as `Archive.restore`.
        WrongInstance: the key is of another instance than the pinned one, whatever is forced.
    """
    pinned = await _pinned(archive)
    try:
        require_pinned(await directory.instance(), pinned)
        presence = await directory.look_up(user_id)
    except (ClerkUnavailable, ClerkRefused, ClerkAnswerOdd) as error:
        if grace_period is None:
            message = (
                f"Nothing was put back, as Clerk could not be asked whether the user lives: {error} Try again, or give "
                "--force if you know that he is to have his rows."
            )
            raise RequestRefused(message) from error
        return _warned(
            await archive.restore(user_id, terms),
            f"Clerk could not be asked whether the user lives ({error})",
            grace_period,
        )
    if presence is Presence.PRESENT:
        return await archive.restore(user_id, replace(terms, lives=True))
    if grace_period is None:
        message = (
            f"Nothing was put back: Clerk ({pinned}) does not know the user, so the next runs would find his rows "
            "orphaned and remove them again. Give --force if he is to have them all the same."
        )
        raise RequestRefused(message)
    return _warned(await archive.restore(user_id, terms), "Clerk does not know the user", grace_period)


async def erase(user_id: UserId, requested_by: str, directory: Directory, archive: Archive, clock: Clock) -> Erased:
    """Erase a user whom Clerk proves gone, and again for each part of very many rows.

    Raises:
        RequestRefused: he lives; or as `Erasure.remove`.
        TargetBusy: a run is under way.
        WrongInstance: the key is of another instance than the pinned one.
        ClerkUnavailable, ClerkRefused, ClerkAnswerOdd: there is no proof.
    """
    pinned = await _pinned(archive)
    require_pinned(await directory.instance(), pinned)
    proof = await prove_absence(directory, clock, user_id)
    if proof is None:
        message = (
            f"Nothing was erased: the user lives at Clerk ({pinned}). Delete him there first, then erase him here."
        )
        raise RequestRefused(message)
    async with archive.erasing(requested_by) as erasure:
        erased = await erasure.remove(proof)
        while not erased.finished:
            proof = await prove_absence(directory, clock, user_id)
            if proof is None:
                message = f"The user lives at Clerk ({pinned}) again, so what is left of his rows stays."
                raise RequestRefused(message)
            erased = await erasure.remove(proof)
    return erased


def _warned(restored: Restored, why: str, grace_period: timedelta) -> Restored:
    warning = (
        f"{why}: the next runs find him orphaned again if Clerk does not list him, and after the grace period "
        f"({in_hours(grace_period)}) remove what was put back."
    )
    return replace(restored, warnings=(*restored.warnings, warning))


async def _pinned(archive: Archive) -> str:
    pinned = await archive.pinned_instance()
    if pinned is None:
        message = "This database and schema have never been worked on by usersync, so nothing is known of any user."
        raise RequestRefused(message)
    return pinned
