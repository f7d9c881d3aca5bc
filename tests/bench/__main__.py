"""``python -m tests.bench [--users N]``: both ways, with and without an index on user_id, each on a fresh database."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from controller.cli.demo.local_postgres import LocalPostgres
from tests.bench import world

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = ("listing", "diff", "apply", "peak_mib")
CONTESTANTS = {
    "naive": ("tests.bench.naive",),
    "naive, unordered": ("tests.bench.naive", ""),
    "usersync": ("tests.bench.ours",),
}


@contextmanager
def emulator(users: int) -> Iterator[dict[str, Any]]:
    """An instance of Clerk in a process of its own, without a rate limit."""
    command = [sys.executable, "-m", "controller.emulator", "--users", str(users), "--rate-limit", "0"]
    process = subprocess.Popen([*command, "--environment", "production"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def contend(name: str, clerk: dict[str, Any], database_url: str) -> dict[str, Any]:
    """Let one contestant run in a process of its own; returns its figures."""
    module, *rest = CONTESTANTS[name]
    command = [sys.executable, "-m", module, clerk["url"], clerk["secret_key"], database_url, *rest]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Print a table as the figures come, and fail if a sweep left the database wrong."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--users", type=int, default=100_000)
    users = parser.parse_args().users
    print(f"{users:,} users; seconds; apply of the naive way is scaled up from 100 users of a kind", flush=True)
    print(f"{'':28}" + "".join(f"{column:>10}" for column in COLUMNS), flush=True)
    with LocalPostgres() as server, emulator(users) as clerk:
        with urllib.request.urlopen(f"{clerk['url']}/emulator/users") as answer:
            user_ids = json.loads(answer.read())["ids"]
        for index in (False, True):
            bout(server, clerk, user_ids, index=index)


def bout(server: LocalPostgres, clerk: dict[str, Any], user_ids: list[str], *, index: bool) -> None:
    """Let both ways mend the same world, and compare."""
    kind = "index" if index else "no index"
    template = f"world_{index}".lower()
    expected = asyncio.run(world.build(server.create_database(template), user_ids, index=index))
    figures: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(CONTESTANTS):
        database = f"{template}_{number}"
        database_url = server.create_database(database, template=template)
        figures[name] = contend(name, clerk, database_url)
        print(f"{name + ', ' + kind:28}" + "".join(f"{figures[name][column]:10.1f}" for column in COLUMNS), flush=True)
        if name == "usersync":
            check(asyncio.run(world.mended(database_url)), figures[name], expected, len(user_ids))
        server.drop_database(database)
    server.drop_database(template)
    ratios = {column: figures["naive"][column] / figures["usersync"][column] for column in COLUMNS}
    print(f"{'naive / usersync':28}" + "".join(f"{ratios[column]:9.1f}x" for column in COLUMNS), flush=True)


def check(left: tuple[int, int, int], figures: dict[str, Any], expected: world.Expected, users: int) -> None:
    """Refuse figures of a sweep that did not do its work."""
    found = (figures["missing"], figures["orphaned"], figures["duplicates"])
    if found != (expected.missing, expected.orphaned, expected.duplicates) or left != (users, 0, 0):
        sys.exit(f"The sweep is wrong: found {found}, expected {expected}; left {left}, expected {(users, 0, 0)}.")


if __name__ == "__main__":
    main()
