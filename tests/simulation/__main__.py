"""``python -m tests.simulation -n 10000``: plays random histories, and tells what they reached.

A history that breaks a promise is made as small as can be, and printed as the program that plays it again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial

from tests.simulation.chunks import CHUNK, play_share


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="how many histories (1000)")
    parser.add_argument("-j", type=int, default=2, help="how many processes play them (2)")
    parser.add_argument("--seed", type=int, default=None, help="to play the same ones again, with any -j")
    parser.add_argument("--no-shrink", action="store_true", help="print the first that fails as it is")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"{options.n} histories, seed {first}", flush=True)
    began, total, failed = time.monotonic(), Counter[str](), False
    starts = range(0, options.n, CHUNK)
    # Begun anew: what a fork inherits of an event loop and of open sockets is not to be shared.
    with ProcessPoolExecutor(options.j, multiprocessing.get_context("spawn")) as pool:
        play = partial(play_share, shrink=not options.no_shrink)
        shares = [pool.submit(play, min(CHUNK, options.n - start), first + start // CHUNK) for start in starts]
        for share in as_completed(shares):
            if share.cancelled():
                continue
            played = share.result()
            total += played.counts
            if played.failure is not None:
                failed = True
                print(f"Broken: {played.failure}", flush=True)
                pool.shutdown(wait=False, cancel_futures=True)
            print(f"{total['histories']} histories, {time.monotonic() - began:.0f} s", flush=True)
    tell(total, time.monotonic() - began)
    return 1 if failed else 0


def tell(counts: Counter[str], seconds: float) -> None:
    """Print what the histories reached."""
    for what, count in sorted(counts.items()):
        print(f"  {count:>9}  {what}")
    print(f"{counts['histories']} histories in {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
