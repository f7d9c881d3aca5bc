"""What a shell is told."""

from __future__ import annotations

import pytest

from controller.cli.exits import Exit, exit_of_error, exit_of_outcome, worst
from controller.core.outcomes import Changes, Outcome
from controller.core.plans import HoldReason
from controller.core.targets import Action, expand
from controller.errors import ClerkUnavailable, InsecureClerkURL, InvalidSpec, SecretNotFound, TargetBusy
from tests.unit.cli.outcomes import drift, held_back, outcome

ANALYZE, FIX_PROGRESS, CLEANUP = Action.ANALYZE, Action.FIX_PROGRESS, Action.CLEANUP
FIX_DUPLICATES, FULL_SYNC = Action.FIX_DUPLICATES, Action.FULL_SYNC
MENDED = drift()


@pytest.mark.parametrize(
    ("action", "finished", "expected"),
    [
        pytest.param(ANALYZE, outcome(), 0, id="analyze, in sync"),
        pytest.param(ANALYZE, outcome(drift(missing=1)), 3, id="analyze, a profile missing"),
        pytest.param(ANALYZE, outcome(drift(orphaned=1)), 3, id="analyze, an orphan"),
        pytest.param(ANALYZE, outcome(drift(duplicates=1)), 3, id="analyze, a duplicate"),
        pytest.param(ANALYZE, outcome(drift(foreign=9)), 0, id="analyze, foreign ids are no drift"),
        pytest.param(FIX_PROGRESS, outcome(drift(missing=3), MENDED), 0, id="fix-progress, all created"),
        pytest.param(FIX_PROGRESS, outcome(drift(missing=3), drift(missing=1)), 3, id="fix-progress, one left"),
        pytest.param(ANALYZE, outcome(drift(outdated=1)), 3, id="analyze, an outdated column"),
        pytest.param(FIX_PROGRESS, outcome(drift(outdated=3), MENDED), 0, id="fix-progress, all updated"),
        pytest.param(FIX_PROGRESS, outcome(drift(outdated=3), drift(outdated=1)), 3, id="fix-progress, one outdated"),
        pytest.param(CLEANUP, outcome(drift(outdated=3)), 0, id="cleanup, not asked about columns"),
        pytest.param(FIX_PROGRESS, outcome(drift(orphaned=3)), 0, id="fix-progress, not asked about orphans"),
        pytest.param(FIX_PROGRESS, outcome(drift(missing=3), dry_run=True), 3, id="fix-progress, dry run"),
        pytest.param(FIX_PROGRESS, outcome(drift(orphaned=3), dry_run=True), 0, id="fix-progress, dry run, other kind"),
        pytest.param(CLEANUP, outcome(drift(orphaned=2), MENDED), 0, id="cleanup, all removed"),
        pytest.param(CLEANUP, outcome(drift(orphaned=2), dry_run=True), 3, id="cleanup, dry run"),
        pytest.param(
            CLEANUP,
            outcome(drift(orphaned=2), drift(orphaned=1), changes=Changes(users_removed=1, users_left=1)),
            3,
            id="cleanup, a foreign key kept one",
        ),
        pytest.param(
            CLEANUP,
            outcome(drift(orphaned=2), drift(orphaned=1), changes=Changes(users_removed=2)),
            0,
            id="cleanup, somebody signed up during the run",
        ),
        pytest.param(
            CLEANUP,
            outcome(drift(orphaned=6), drift(orphaned=5), changes=Changes(users_removed=1, users_spared=5)),
            3,
            id="cleanup, users whom only the question by id finds",
        ),
        pytest.param(CLEANUP, outcome(drift(orphaned=30), plan=held_back()), 4, id="cleanup, over the limit"),
        pytest.param(
            CLEANUP,
            outcome(drift(orphaned=30), plan=held_back(HoldReason.EMPTY_SOURCE)),
            4,
            id="cleanup, an empty listing",
        ),
        pytest.param(
            CLEANUP,
            outcome(drift(orphaned=30), plan=held_back(HoldReason.PARTIAL_SOURCE)),
            4,
            id="cleanup, a listing that hides users",
        ),
        pytest.param(
            CLEANUP, outcome(drift(orphaned=30), plan=held_back(), dry_run=True), 4, id="cleanup, blocked, dry run"
        ),
        pytest.param(FIX_DUPLICATES, outcome(drift(duplicates=2), MENDED), 0, id="fix-duplicates, all reduced"),
        pytest.param(FIX_DUPLICATES, outcome(drift(duplicates=2)), 3, id="fix-duplicates, a trigger kept them"),
        pytest.param(FULL_SYNC, outcome(drift(missing=1, orphaned=1), MENDED), 0, id="full-sync, all mended"),
        pytest.param(FULL_SYNC, outcome(drift(orphaned=1), declined=True), 3, id="full-sync, a person said no"),
        pytest.param(FULL_SYNC, outcome(), 0, id="full-sync, in sync"),
    ],
)
def test_a_run_ends_with_the_promised_code(action: Action, finished: Outcome, expected: int) -> None:
    assert exit_of_outcome(finished, expand((action,))) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidSpec("spec.tables: ..."), 2),
        (SecretNotFound("DATABASE_URL is not set"), 2),
        (InsecureClerkURL("http"), 1),
        (ClerkUnavailable("500"), 1),
        (TargetBusy("another run"), 1),
        (RuntimeError("a fault of ours"), 1),
    ],
)
def test_an_error_tells_a_wrong_manifest_from_a_failure(error: Exception, expected: int) -> None:
    assert exit_of_error(error) == expected


@pytest.mark.parametrize(
    ("exits", "expected"),
    [
        ([], Exit.DONE),
        ([Exit.DONE, Exit.DRIFT], Exit.DRIFT),
        ([Exit.BLOCKED, Exit.DRIFT, Exit.DONE], Exit.BLOCKED),
        ([Exit.BLOCKED, Exit.ERROR, Exit.DRIFT], Exit.ERROR),
    ],
)
def test_of_several_resources_the_worst_speaks(exits: list[Exit], expected: Exit) -> None:
    assert worst(exits) is expected
