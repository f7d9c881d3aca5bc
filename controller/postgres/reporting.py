"""What a run came to, as the audit keeps it: JSON of counts, never of users.

Used by `runs`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.core.outcomes import Outcome


def outcome_json(outcome: Outcome) -> str:
    """Return the outcome as the column `outcome` of `usersync.runs` holds it."""
    held_back = outcome.held_back
    content = {
        "found": asdict(outcome.found),
        "remaining": asdict(outcome.remaining),
        "changes": asdict(outcome.changes),
        "held_back": None
        if held_back is None
        else {
            "reason": held_back.reason.value,
            "users": held_back.users,
            "percent": held_back.percent,
            "message": held_back.message,
        },
        "dry_run": outcome.dry_run,
        "declined": outcome.declined,
        "warnings": list(outcome.warnings),
    }
    return json.dumps(content)
