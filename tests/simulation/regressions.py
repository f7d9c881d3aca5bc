"""Histories that a fault has been found by, each as small as it could be made, or that show a guard at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation import histories as h
from tests.simulation.clerk import Lie
from tests.simulation.crashes import Fate

if TYPE_CHECKING:
    from collections.abc import Mapping

REGRESSIONS: Mapping[str, h.History] = {
    "nobody is left in Clerk, and then somebody signs up": h.History(
        1861,
        h.Beginning(living=1, gone=5, missing=2, duplicates=1, grace_hours=24, limit_users=1),
        (
            h.Step(0.05, h.Leave(2, ())),
            h.Step(0.05, h.Leave(0, (0.0,))),
            h.Step(0.05, h.Leave(1, ())),
            h.Step(3600.0, h.Sweep("a")),
        ),
    ),
    "a living user is missed once, seen again, and gone after that": h.History(
        1,
        h.Beginning(living=3),
        (
            h.Step(0.0, h.Deceive(Lie.HIDES_FROM_BOTH, (1,))),
            h.Step(1.0, h.Sweep("a")),
            h.Step(60.0, h.Deceive()),
            h.Step(13 * 3600.0, h.Sweep("b")),
            h.Step(60.0, h.Leave(1, ())),
            h.Step(13 * 3600.0, h.Sweep("a")),
        ),
    ),
    "a set is held back and approved after a newcomer has joined it": h.History(
        2,
        h.Beginning(living=6, gone=2, grace_hours=0, limit_users=1),
        (
            h.Step(1.0, h.Sweep("a")),
            h.Step(60.0, h.Leave(0, ())),
            h.Step(60.0, h.Sweep("b")),
            h.Step(60.0, h.Approve(1)),
            h.Step(60.0, h.Sweep("a")),
        ),
    ),
    "surplus profiles of a user who is leaving in batches are reduced on the way, and erased in the end": h.History(
        seed=158,
        beginning=h.Beginning(
            living=1,
            gone=1,
            missing=0,
            duplicates=2,
            unique=False,
            indexed=True,
            grace_hours=0,
            interval_hours=1,
            limit_users=2,
            policy="Erase",
            batches=True,
        ),
        steps=(
            h.Step(
                after=400.0, event=h.Disturb(process="cli", fate=Fate.TERMINATE, steps=67, commits=False, stall=0.0)
            ),
            h.Step(after=0.05, event=h.Leave(who=4, arrives=())),
            h.Step(after=0.05, event=h.Leave(who=2, arrives=())),
            h.Step(after=0.05, event=h.Leave(who=2, arrives=())),
            h.Step(after=0.05, event=h.Leave(who=2, arrives=())),
            h.Step(after=288000.0, event=h.SignUp(arrives=(), rows=1, profile=True)),
        ),
    ),
    "under Retain, deletions of users without rows wait for no limit": h.History(
        141,
        h.Beginning(
            living=6,
            gone=0,
            missing=2,
            duplicates=1,
            unique=False,
            grace_hours=0,
            interval_hours=8,
            limit_users=1,
            policy="Retain",
        ),
        (
            h.Step(0.0, h.Leave(4, (0.0,))),
            h.Step(0.0, h.Tell(0, "user.deleted", (0.0,))),
            h.Step(0.0, h.Tell(0, "user.deleted", (0.0,))),
            h.Step(0.05, h.Leave(0, ())),
            h.Step(0.05, h.Leave(0, ())),
            h.Step(0.05, h.Leave(4, (0.0,))),
            h.Step(0.05, h.Leave(7, (0.0,))),
            h.Step(0.05, h.Leave(5, ())),
            h.Step(0.05, h.Leave(0, (0.0,))),
            h.Step(1.0, h.Sweep("a")),
            h.Step(3700.0, h.Sweep("b")),
            h.Step(0.1, h.Leave(7, ())),
            h.Step(60.0, h.Sweep("a")),
            h.Step(3700.0, h.Sweep("b")),
            h.Step(30.0, h.Approve(1)),
            h.Step(1.0, h.Sweep("a")),
            h.Step(0.0, h.Deceive(Lie.HIDES_FROM_LISTING, (1, 0))),
        ),
    ),
}
