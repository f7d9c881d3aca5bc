"""``python -m tests.bench.values [--users N]``: a sweep with three mapped columns beside one without, on one world.

The first one with a mapping finds the columns empty, and fills those of every user; the next one finds them in step.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import urllib.request
from typing import Any

import asyncpg

from controller.cli.demo.local_postgres import LocalPostgres
from tests.bench import world
from tests.bench.__main__ import emulator

COLUMNS = ("listing", "diff", "update", "apply", "peak_mib")


def sweep(clerk: dict[str, Any], database_url: str, *values: str) -> dict[str, Any]:
    """Do one in a process of its own; returns its figures."""
    command = [sys.executable, "-m", "tests.bench.ours", clerk["url"], clerk["secret_key"], database_url, *values]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def show(name: str, figures: dict[str, Any]) -> None:
    """Print one line."""
    print(f"{name:36}" + "".join(f"{figures.get(column, 0):10.1f}" for column in COLUMNS), flush=True)


async def add_columns(database_url: str) -> None:
    """Add the columns that are mapped."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("ALTER TABLE user_progress ADD email text, ADD name text, ADD plan text")
    finally:
        await connection.close()


async def filled(database_url: str) -> int:
    """Count the rows with an address."""
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval("SELECT count(email) FROM user_progress"))
    finally:
        await connection.close()


def main() -> None:
    """Print a table as the figures come, and fail if a sweep left the columns wrong."""
    parser = argparse.ArgumentParser(prog="make bench VALUES=1")
    parser.add_argument("--users", type=int, default=100_000)
    users = parser.parse_args().users
    print(f"{users:,} users, an index on user_id; seconds; three mapped columns", flush=True)
    print(f"{'':36}" + "".join(f"{column:>10}" for column in COLUMNS), flush=True)
    with LocalPostgres() as server, emulator(users) as clerk:
        with urllib.request.urlopen(f"{clerk['url']}/emulator/users") as answer:
            user_ids = json.loads(answer.read())["ids"]
        template = server.create_database("world")
        asyncio.run(world.build(template, user_ids, index=True))
        asyncio.run(add_columns(template))
        plain = server.create_database("world_plain", template="world")
        show("without mapped columns", sweep(clerk, plain))
        show("without mapped columns, in step", sweep(clerk, plain))
        server.drop_database("world_plain")
        mapped = server.create_database("world_mapped", template="world")
        first = sweep(clerk, mapped, "values")
        show("the first one with mapped columns", first)
        again = sweep(clerk, mapped, "values")
        show("with mapped columns, in step", again)
        found = (first["outdated"], again["outdated"], again["remaining"], asyncio.run(filled(mapped)))
    # those without a profile get theirs with the row
    if found != (users - users // 100, 0, 0, users):
        sys.exit(f"The sweep is wrong: {found}.")


if __name__ == "__main__":
    main()
