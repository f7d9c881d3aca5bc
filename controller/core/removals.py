"""On what terms users are removed: what becomes of their rows, and how many may go.

Handed to the stores with the proofs, by `sweeping` for a run's set and by `absorbing` for a single claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from datetime import timedelta

    from controller.core.targets import Approval, Deletion, DeletionPolicy


@dataclass(frozen=True, slots=True)
class RemovalTerms:
    """The policy, and the limit that a removing transaction must not pass.

    - `retention`: how long the archive keeps the rows.
    - `permitted`: how many users, all runs and events together, may be gone unapproved from `window` when the
      transaction commits; None where the limits do not apply (an approved set, a user's own request).
    - `approval`: the digest of the set that a person permitted, for the receipts.
    """

    policy: DeletionPolicy
    retention: timedelta
    window: timedelta
    permitted: int | None
    approval: str | None = None

    @classmethod
    def of(cls, deletion: Deletion, permitted: int | None, approval: Approval | None = None) -> Self:
        """Return the terms of a resource."""
        digest = approval.digest if approval else None
        return cls(deletion.policy, deletion.retention, deletion.limits.window, permitted, digest)
