"""Exit codes: what a shell, CI or cron is told of a command.

0 in sync, or the command did all it was asked; 1 error; 2 usage or an invalid manifest; 3 drift found
(`analyze`, `--dry-run`) or left behind, findings of `doctor` and `policies check`; 4 a deletion is
blocked. Pure; used by `failures` and `sweeps`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from controller.core.targets import Action
from controller.errors import InvalidSpec, SecretNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.core.drift import Drift
    from controller.core.outcomes import Outcome


class Exit(IntEnum):
    """The values are promised to users; those above 128 are the shell's own convention for signals."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    DRIFT = 3
    BLOCKED = 4
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


_BY_WEIGHT = (Exit.DONE, Exit.DRIFT, Exit.BLOCKED, Exit.USAGE, Exit.ERROR)


def exit_of_outcome(outcome: Outcome, repairs: frozenset[Action]) -> Exit:
    """Tell what a finished run came to; `repairs` is what it was asked to do, empty for `analyze`.

    A dry run and a repair answer for the kinds of drift that they were asked about: `cleanup` ends with 0
    while profiles are missing or outdated, `analyze` does not.
    """
    if outcome.held_back is not None:
        return Exit.BLOCKED
    if not repairs or outcome.dry_run:
        return Exit.DRIFT if _asked_about(outcome.found, repairs) else Exit.DONE
    return Exit.DRIFT if _left_behind(outcome, repairs) else Exit.DONE


def exit_of_error(error: Exception) -> Exit:
    """Tell 2 (correct the command, the manifest or the environment) from 1."""
    return Exit.USAGE if isinstance(error, InvalidSpec | SecretNotFound) else Exit.ERROR


def worst(exits: Iterable[Exit]) -> Exit:
    """Return the exit code that stands for several resources."""
    return max(exits, key=_BY_WEIGHT.index, default=Exit.DONE)


def _asked_about(drift: Drift, repairs: frozenset[Action]) -> int:
    kinds = {
        Action.FIX_PROGRESS: drift.missing + drift.outdated,
        Action.CLEANUP: drift.orphaned,
        Action.FIX_DUPLICATES: drift.duplicates,
    }
    return sum(kinds[action] for action in repairs) if repairs else drift.total


def _left_behind(outcome: Outcome, repairs: frozenset[Action]) -> bool:
    """Whether something stood in the way, or Clerk's listing left out users whom it knows by id.

    Orphans that remain are not counted by the last observation: who signed up during the run is not in its
    listing, and lives.
    """
    if outcome.declined or outcome.changes.users_left or outcome.changes.users_spared:
        return True
    if Action.CLEANUP in repairs and outcome.users_waiting:
        return True
    others = repairs - {Action.CLEANUP}
    return bool(others) and _asked_about(outcome.remaining, others) > 0
