"""``python -m tests.simulation -n 10000``: plays random histories, and tells what they reached.

A history that breaks a promise is made as small as can be, and printed as the program that plays it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from tests.simulation.invariants import Broken
from tests.simulation.playing import Player, player
from tests.simulation.strategies import histories

if TYPE_CHECKING:
    from tests.simulation.histories import History

CHUNK = 500
"""Histories that hypothesis draws at a time."""


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="how many histories (1000)")
    parser.add_argument("--seed", type=int, default=None, help="to play the same ones again")
    parser.add_argument("--no-shrink", action="store_true", help="print the first that fails as it is")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"{options.n} histories, seed {first}", flush=True)
    began, failed = time.monotonic(), False
    with player() as playing:
        for start in range(0, options.n, CHUNK):
            try:
                number = min(CHUNK, options.n - start)
                play_chunk(playing, number, first + start // CHUNK, shrink=not options.no_shrink)
            except Exception as error:
                print(
                    f"After {playing.counts['histories']} histories: {error}",
                    *getattr(error, "__notes__", []),
                    sep="\n",
                )
                if not isinstance(error, Broken):
                    raise
                failed = True
                break
            print(f"{start + number} histories, {time.monotonic() - began:.0f} s", flush=True)
    tell(playing, time.monotonic() - began)
    return 1 if failed else 0


def tell(playing: Player, seconds: float) -> None:
    """Print what the histories reached."""
    for what, count in sorted(playing.counts.items()):
        print(f"  {count:>9}  {what}")
    count = playing.counts["histories"]
    print(f"{count} histories in {seconds:.0f} s, {1000 * seconds / max(1, count):.0f} ms each")


if __name__ == "__main__":
    sys.exit(main())
