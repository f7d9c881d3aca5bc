"""Histories as hypothesis draws them, so many from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from tests.simulation.invariants import Broken
from tests.simulation.playing import Player, player
from tests.simulation.strategies import histories

if TYPE_CHECKING:
    from collections import Counter

    from tests.simulation.histories import History

CHUNK = 500
"""Histories that hypothesis draws at a time, each chunk from a seed of its own."""


def play_chunk(playing: Player, number: int, chunk_seed: int, *, shrink: bool) -> None:
    """Play some histories.

    Raises:
        Broken: of the smallest history that was found to break a promise.
    """

    @seed(chunk_seed)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.normal,
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(histories())
    def holds(history: History) -> None:
        playing.play(history)

    holds()


@dataclass(frozen=True)
class Played:
    """What one process has played. `failure`: the history that broke a promise, and how to play it again."""

    histories: int
    counts: Counter[str]
    failure: str | None = None


def play_share(number: int, chunk_seed: int, *, shrink: bool) -> Played:
    """Play a chunk on a server of its own."""
    with player() as playing:
        failure = None
        try:
            play_chunk(playing, number, chunk_seed, shrink=shrink)
        except Broken as broken:
            failure = "\n".join([str(broken), *getattr(broken, "__notes__", [])])
        return Played(number, playing.counts, failure)
