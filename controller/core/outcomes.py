"""What a run or an event came to, in counts: for the status, the audit, exit codes and metrics.

Made by `sweeping` and `absorbing`; read by `reconciler`, `web` and `cli`. Holds no user id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.core.drift import Drift
    from controller.core.plans import HeldBack, Plan
    from controller.core.securing import Verdict


@dataclass(frozen=True, slots=True)
class Removal:
    """What one removing transaction did.

    `users_left` could not be removed (a foreign key, a trigger, an expired proof) and are whole, unless their
    removal had begun before; `limit_reached`: some of them because events had used up what the limits permit.
    `users_unfinished` have so many rows that they leave in batches: buried, and to be gone on with.
    """

    users: int = 0
    rows: int = 0
    users_left: int = 0
    limit_reached: bool = False
    users_unfinished: int = 0

    def __add__(self, other: Removal) -> Removal:
        """Sum of two removals."""
        return Removal(
            self.users + other.users,
            self.rows + other.rows,
            self.users_left + other.users_left,
            self.limit_reached or other.limit_reached,
            self.users_unfinished + other.users_unfinished,
        )


@dataclass(frozen=True, slots=True)
class Reduction:
    """What reducing duplicate profiles did: `rows` went; `users_left` keep all theirs, as something refers to them."""

    rows: int = 0
    users_left: int = 0

    def __add__(self, other: Reduction) -> Reduction:
        """Sum of two reductions."""
        return Reduction(self.rows + other.rows, self.users_left + other.users_left)


@dataclass(frozen=True, slots=True)
class Updating:
    """What a batch of updates did: of `users` some column was changed; of `users_left` the database refused one."""

    users: int = 0
    users_left: int = 0

    def __add__(self, other: Updating) -> Updating:
        """Sum of two."""
        return Updating(self.users + other.users, self.users_left + other.users_left)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a run did, or with `dry_run` what it would have done.

    `profiles_updated`: users whose mapped columns were brought in step; `users_spared`: suspects whom the proof found
    alive; `duplicates_left`: users whose surplus profile rows could not be removed.
    """

    profiles_created: int = 0
    users_removed: int = 0
    rows_removed: int = 0
    duplicates_removed: int = 0
    users_left: int = 0
    users_spared: int = 0
    duplicates_left: int = 0
    profiles_updated: int = 0


@dataclass(frozen=True, slots=True)
class Closing:
    """What the store adds as it closes a run.

    `receipts`: how many there are for this target, chained up to the hash `head` (hexadecimal; None: none yet).
    `claims_held`: deletions announced by events and proved, which wait as they would pass the limits.
    """

    receipts: int = 0
    head: str | None = None
    claims_held: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished run. A run that failed has none: its error says why.

    `found` is the drift at its start, `remaining` what it left; `declined` that a person said no;
    `users_waiting`: gone from Clerk's listing, but not for as long as the grace period demands.
    """

    run_id: str
    found: Drift
    remaining: Drift
    plan: Plan
    changes: Changes
    dry_run: bool = False
    declined: bool = False
    users_waiting: int = 0
    warnings: tuple[str, ...] = ()
    closing: Closing = field(default_factory=Closing)
    security: Verdict | None = None

    @property
    def held_back(self) -> HeldBack | None:
        """The deletion that was stopped, if one was."""
        return self.plan.held_back


class Absorbed(Enum):
    """What an event came to; the values are metric labels."""

    CREATED = "created"
    """A profile row was inserted."""
    PRESENT = "present"
    """The profile row was there already."""
    UPDATED = "updated"
    """Mapped columns were brought in step."""
    OLDER = "older"
    """The row holds later values than the event's."""
    TOMBSTONED = "tombstoned"
    """The user is deleted, and stays so."""
    CLAIMED = "claimed"
    """The deletion is recorded and waits for its proof."""
    HELD = "held"
    """The deletion is recorded, and waits for the holdback to end before it is proved."""
    DOUBTED = "doubted"
    """A sign-up that does not look like one of just now, or mapped columns of which it cannot be told whether row or
    event is later: what Clerk, asked by id, says follows."""
    RECORDED = "recorded"
    """Suspended: the id is recorded, to be looked up on resume."""
    REPEATED = "repeated"
    """This message had its effect before."""
    DRY_RUN = "dry_run"
    """Counted; nothing was written."""
    IGNORED = "ignored"
    """A type that asks nothing of us, or that the resource says to ignore."""


class Settled(Enum):
    """What a claim came to; the values are metric labels."""

    REMOVED = "removed"
    """Proved; tombstone and archive are written, the rows are gone."""
    CREATED = "created"
    """Recorded while suspended, or doubted; the user lives and has a profile."""
    UNKNOWN = "unknown"
    """A doubted sign-up of whom Clerk knows nothing: no profile, no row touched."""
    LIVES = "lives"
    """Held back, and at the end Clerk knows the user: nothing is to be done."""
    LEFT = "left"
    """Recorded while suspended; what Clerk answers asks for what the resource says to ignore."""
    """Recorded while suspended; the user lives and has a profile."""
    UPDATED = "updated"
    """Clerk was asked; the mapped columns are in step."""
    GONE = "gone"
    """Clerk was asked for values of a user whom it does not know; nothing was written."""
    POSTPONED = "postponed"
    """Clerk is away, or still says that the user lives; asked again later."""
    HELD_BACK = "held_back"
    """Proved, but beyond the limits: waits until they permit it, or a person does."""
    CONTINUED = "continued"
    """Of a user with very many rows some batches are gone; due again at once."""
    STOPPED = "stopped"
    """Clerk said several times that a user lives whose rows were being removed in batches: he is left as he is."""
    SWEPT = "swept"
    """Looked at again some time after the removal: what a live token had written since is gone, if anything."""
    REFUSED = "refused"
    """The user's own request, which Clerk refuses for good: lifted, nothing was done."""
    DISCARDED = "discarded"
    """Clerk said several times over some minutes that the user lives."""
