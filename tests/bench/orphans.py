"""``python -m tests.bench.orphans [--users N] [--orphans N]``: orphans archived and removed out of a large base.

Both ways, with and without an index on user_id, each on a fresh database and in a process of its own. The database's
part alone is measured: Clerk's look-ups, one for each orphan, take what its rate limit says. `longest` is the longest
transaction of the removal, `other` the longest besides it: the comparison, which locks no row of the application.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from typing import Any

from controller.cli.demo.local_postgres import LocalPostgres
from tests.bench.population import Population, add_indexes, build, left_behind, rows_of

COLUMNS = ("listing", "diff", "removal", "closing", "seconds", "longest", "other", "rows_per_s", "peak_mib")
CONTESTANTS = {"usersync": "tests.bench.orphans_ours", "naive": "tests.bench.orphans_naive"}
SETTINGS = {"max_wal_size": "16GB", "shared_buffers": "512MB"}
"""So that no checkpoint falls into what is measured."""


def contend(module: str, database_url: str, population: Population) -> dict[str, Any]:
    """Let one contestant run in a process of its own; returns its figures."""
    command = [sys.executable, "-m", module, database_url, str(population.users), str(population.orphans)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def bout(server: LocalPostgres, template: str, population: Population, kind: str) -> None:
    """Let both ways remove the same orphans, each on a copy of `template`."""
    before = asyncio.run(rows_of(server.url(template), population.gone()))
    for name, module in CONTESTANTS.items():
        database_url = server.create_database("bout", template=template)
        figures = contend(module, database_url, population)
        check(database_url, name, figures, population, before)
        server.drop_database("bout")
        cells = (f"{figures[column]:11,.2f}" if column in figures else f"{'':11}" for column in COLUMNS)
        measured = figures.get("measured", population.orphans)
        scaled = f"  removal scaled up from {measured:,} users" if measured < population.orphans else ""
        print(f"{name + ', ' + kind:22}" + "".join(cells) + scaled, flush=True)


def check(
    database_url: str, name: str, figures: dict[str, Any], population: Population, before: tuple[int, int]
) -> None:
    """Refuse figures of a removal that did not do its work."""
    own, total = before
    after = asyncio.run(rows_of(database_url, population.gone()))
    if after != (own - figures["rows"], total - figures["rows"]):
        sys.exit(f"The removal is wrong ({name}): {before} rows of orphans and in all before, {after} after.")
    if name == "usersync":
        left = asyncio.run(left_behind(database_url))
        if (after[0], *left) != (0, own, population.orphans, population.orphans):
            sys.exit(
                f"The removal is wrong: {after[0]} of {own} rows are left; archived, tombstones, receipts: {left}."
            )


def main() -> None:
    """Measure both ways, with and without an index."""
    parser = argparse.ArgumentParser(prog="make bench ORPHANS=1")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--orphans", type=int, default=10_000)
    options = parser.parse_args()
    population = Population(options.users, options.orphans)
    with LocalPostgres(settings=SETTINGS) as server:
        template = "population"
        database_url = server.create_database(template)
        asyncio.run(build(database_url, population.users))
        own, total = asyncio.run(rows_of(database_url, population.gone()))
        print(f"{population.orphans:,} orphans with {own:,} rows", end=" ")
        print(f"among {population.users:,} users with {total:,}; seconds, without Clerk's answers", flush=True)
        print(f"{'':22}" + "".join(f"{column:>11}" for column in COLUMNS), flush=True)
        bout(server, template, population, "no index")
        asyncio.run(add_indexes(database_url))
        bout(server, template, population, "index")


if __name__ == "__main__":
    main()
