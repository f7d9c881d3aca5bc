"""The promises hold in a few hundred random histories, and in those that broke them once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.simulation.chunks import play_chunk
from tests.simulation.regressions import REGRESSIONS

if TYPE_CHECKING:
    from tests.simulation.histories import History
    from tests.simulation.playing import Player

HISTORIES = int(os.environ.get("SIMULATED_HISTORIES", "200"))


@pytest.mark.timeout(1200)
def test_every_promise_holds_in_random_histories(playing: Player) -> None:
    # The same ones each time, so that a change is judged by what it changes; `make simulate` looks for new ones.
    seed = int(os.environ.get("SIMULATION_SEED", "11"))
    print(f"{HISTORIES} histories, seed {seed}")

    play_chunk(playing, HISTORIES, seed, shrink=True)

    reached = playing.counts
    assert reached["runs done"] > HISTORIES
    assert reached["users removed by runs"] > 0
    assert reached["users removed by events"] > 0


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_history_that_broke_a_promise_once_breaks_none(playing: Player, name: str) -> None:
    history: History = REGRESSIONS[name]

    playing.play(history)
