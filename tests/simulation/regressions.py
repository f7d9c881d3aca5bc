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
    "a deletion is held back, and an old message comes while the resource is suspended and configured anew": h.History(
        3,
        h.Beginning(living=3, on_deleted="Holdback"),
        (
            h.Step(0.0, h.Leave(0, (0.0,))),
            h.Step(10.0, h.Configure(suspend=True)),
            h.Step(20.0, h.Tell(0, "user.created", (0.0,))),
            h.Step(10.0, h.Configure()),
            h.Step(60.0, h.Poll("w1")),
        ),
    ),
    "runs go on beyond the grace period while a deletion is held back": h.History(
        4,
        h.Beginning(living=3, grace_hours=0, on_deleted="Holdback"),
        (h.Step(0.0, h.Leave(0, (0.0,))), h.Step(100.0, h.Sweep("a")), h.Step(3700.0, h.Sweep("b"))),
    ),
    "sign-ups and deletions are to be ignored, and one more is told": h.History(
        5,
        h.Beginning(living=3, on_deleted="Ignore"),
        (
            h.Step(0.0, h.Configure(on_deleted="Ignore", on_created="Ignore")),
            h.Step(1.0, h.SignUp((0.0,))),
            h.Step(1.0, h.Leave(0, (0.0,))),
        ),
    ),
    "Clerk says that it has deleted who asks for it, and has not": h.History(
        6,
        h.Beginning(living=3),
        (
            h.Step(5.0, h.Deceive(Lie.KEEPS_SECRETLY)),
            h.Step(1.0, h.Request(0, (0.5, 40.0))),
            h.Step(60.0, h.Poll("w1")),
        ),
    ),
    "who asks for his deletion while Clerk is away is removed by a run, and erased when Clerk answers": h.History(
        7,
        h.Beginning(living=3, grace_hours=0),
        (
            h.Step(0.0, h.Deceive(Lie.UNAVAILABLE)),
            h.Step(1.0, h.Request(0)),
            h.Step(10.0, h.Leave(0, ())),
            h.Step(0.1, h.Deceive()),
            h.Step(0.0, h.Disturb("w1", Fate.STALL, 0, stall=4000.0)),
            h.Step(0.0, h.Disturb("w2", Fate.STALL, 0, stall=4000.0)),
            h.Step(0.1, h.Sweep("a")),
        ),
    ),
    "who is buried asks for his deletion, and Clerk refuses the key": h.History(
        8,
        h.Beginning(living=3),
        (
            h.Step(5.0, h.Leave(0, (0.0,))),
            h.Step(20.0, h.Deceive(Lie.REFUSES)),
            h.Step(1.0, h.Request(0, (10.0,))),
            h.Step(20.0, h.Poll("w1")),
        ),
    ),
    "a token writes on after its user has left on his own request, and asks once more": h.History(
        9,
        h.Beginning(living=3),
        (
            h.Step(0.0, h.Request(0, (5.0, 30.0))),
            h.Step(20.0, h.Write(0, 0)),
            h.Step(0.0, h.Write(0, 1)),
            h.Step(1.0, h.Sweep("a")),
        ),
    ),
    "a user is edited, and what is told of it comes in another order": h.History(
        10,
        h.Beginning(living=3, maps=True),
        (
            h.Step(0.0, h.Sweep("a")),
            h.Step(700.0, h.Edit(0, (20.0, 600.0))),
            h.Step(1.0, h.Edit(0, (0.0,), second=(0.0,))),
            h.Step(10.0, h.Tell(0, "user.updated", (0.0,), back=1)),
            h.Step(1.0, h.Tell(0, "user.updated", (0.0,), back=2)),
            h.Step(300.0, h.Sweep("b")),
        ),
    ),
    "an old sign-up of who has left is told again where columns are mapped": h.History(
        11,
        h.Beginning(living=3, maps=True),
        (
            h.Step(0.0, h.Leave(0, (0.0,))),
            h.Step(10.0, h.Tell(0, "user.created", (0.0,))),
            h.Step(1.0, h.Tell(0, "user.updated", (0.0,))),
        ),
    ),
}
