"""``python -m tests.bench.webhook [--events N] [--rounds N]``: `usersync serve` beside Express + svix + pg.

Both get the same signed events and do the same transaction on copies of the same database, in turn, in processes of
their own. A round counts only if every answer was 200 and every effect is there: profiles, deliveries, claims.
Ours settles claims meanwhile and writes a log line per event; the other does neither. `app_us` and `server_us` are
microseconds on a processor per event, of the program and of PostgreSQL: other work on the machine changes them least.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psutil
import yaml

from controller.cli.demo.local_postgres import LocalPostgres
from controller.core.targets import Target
from controller.core.users import Environment, Instance
from controller.postgres import Database
from controller.runtime import SystemClock
from tests.bench.__main__ import emulator
from tests.bench.deliveries import Traffic, WrongAnswer, mix, prepare, send, user_of
from tests.bench.measuring import cpu_seconds, peak_memory
from tests.support.controlplane.processes import end, spawn
from tests.support.databases import create_tables, fetch, seed_users, user_ids
from tests.support.serving import start
from tests.support.usersyncs import clerk as clerk_of
from tests.support.usersyncs import usersync

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = ("per_second", "p50_ms", "p99_ms", "app_us", "server_us", "peak_mib")
CONNECTIONS = (32, 128)
WARM_UP = 1000
"""Events before those that are timed: connections are opened, and code is compiled where a runtime does that."""
ROWS = 4
"""Of a user who will be deleted, in each table but the profile's."""
PATH = "/api/webhooks/clerk"
EXPRESS = Path(__file__).parent / "express"
LEFT = """
    SELECT
        (SELECT count(*) FROM user_progress WHERE user_id = ANY($1)) AS profiles,
        (SELECT count(DISTINCT user_id) FROM user_progress WHERE user_id = ANY($1)) AS users,
        (SELECT count(*) FROM usersync.deliveries) AS deliveries,
        (SELECT count(*) FROM unnest($2::text[]) AS u (id) WHERE EXISTS (
            SELECT FROM usersync.claims AS c WHERE c.user_id = u.id AND c.kind = 'deletion'
        )) AS claimed,
        (SELECT count(*) FROM unnest($2::text[]) AS u (id) CROSS JOIN usersync.target AS t JOIN usersync.buried AS b
            ON b.user_hash = sha256(t.salt || convert_to(t.instance_id || u.id, 'UTF8'))) AS settled,
        (SELECT count(*) FROM tasks WHERE user_id = ANY($2)) AS rows
"""
"""In one statement, so in one snapshot: a claim is settled at once or not yet."""


@dataclass(frozen=True, slots=True)
class World:
    """What both contestants work on."""

    server: LocalPostgres
    clerk: dict[str, Any]
    present: list[str]
    user: dict[str, Any]
    events: int

    def traffic(self) -> Traffic:
        """Make up events of just now: one that looks older is looked up at Clerk before it creates anything."""
        now = int(time.time() * 1000)
        user = self.user | {"created_at": now, "updated_at": now}
        return mix(WARM_UP + self.events, self.present, self.clerk["instance_id"], user)


class Contestant(Protocol):
    """A program that serves webhooks."""

    name: str

    def start(self, folder: Path, world: World, database_url: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start it; returns it and the URL, once it serves."""


class Ours:
    """`usersync serve -f FILE`."""

    name = "usersync"

    def start(self, folder: Path, world: World, database_url: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start it on a manifest, whose Secrets are in the same file."""
        resource = usersync(
            clerk=clerk_of(
                apiUrl=world.clerk["url"],
                instanceId=world.clerk["instance_id"],
                webhookSecretRefs=[{"name": "clerk", "key": "CLERK_WEBHOOK_SECRET"}],
            ),
            deletion={"limits": {"users": 1_000_000, "percent": 100}},
        )
        keys = {"CLERK_SECRET_KEY": world.clerk["secret_key"], "CLERK_WEBHOOK_SECRET": world.clerk["webhook_secret"]}
        secrets = [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content}
            for name, content in (("clerk", keys), ("supabase", {"DATABASE_URL": database_url}))
        ]
        manifest = folder / "usersync.yaml"
        manifest.write_text(yaml.safe_dump_all([resource, *secrets]))
        program = start(folder, "-f", str(manifest))

        async def serving() -> str:
            await program.saying("serving")
            return await program.url()

        return program.process, asyncio.run(serving()) + PATH


class Express:
    """`express/server.js`."""

    name = "express + svix + pg"

    def start(self, folder: Path, world: World, database_url: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start it on the environment."""
        log = folder / "express.log"
        environment = {
            "NODE_ENV": "production",
            "DATABASE_URL": database_url,
            "CLERK_WEBHOOK_SECRET": world.clerk["webhook_secret"],
        }
        node = shutil.which("node") or "node"
        process = spawn([node, EXPRESS / "server.js"], log=log, env=os.environ | environment)
        while not (said := log.read_text()).endswith("\n"):
            if process.poll() is not None:
                sys.exit(f"Express ended with {process.returncode}: {said}")
            time.sleep(0.01)
        return process, f"http://127.0.0.1:{json.loads(said)['port']}{PATH}"


def install_express() -> str | None:
    """Install what the lock file names; returns why that cannot be."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "Node is not installed, so usersync is measured alone"
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(command, cwd=EXPRESS, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"npm ci failed ({' '.join(done.stderr.split())[:200]}), so usersync is measured alone"
    return None


async def build(database_url: str, present: list[str], instance: Instance) -> None:
    """Fill the template: users who will be deleted, an index on user_id as is recommended, unique for profiles."""
    await create_tables(database_url, index=True, unique=True)
    await seed_users(database_url, present, rows=ROWS)
    async with Database.open(database_url, Target(), SystemClock()) as database:
        await database.inspect()
        await database.pin_instance(instance)


def bout(contestant: Contestant, world: World, connections: int) -> dict[str, float]:
    """Let one of them serve a copy of the database; returns its figures."""
    database_url = world.server.create_database("bout", template="template_webhook")
    with tempfile.TemporaryDirectory() as folder:
        process, url = contestant.start(Path(folder), world, database_url)
        try:
            traffic = world.traffic()
            requests = prepare(traffic.deliveries, url, world.clerk["webhook_secret"])
            send(requests[:WARM_UP], url, connections)
            app, server = cpu_seconds(process.pid), cpu_of_sessions(world.server)
            sent = send(requests[WARM_UP:], url, connections)
            app, server = cpu_seconds(process.pid) - app, cpu_of_sessions(world.server) - server
            peak = peak_memory(process.pid)
            check(contestant, database_url, traffic)
        except WrongAnswer as wrong:
            sys.exit(f"{contestant.name}: {wrong}")
        finally:
            end(process)
    world.server.drop_database("bout")
    return {
        "per_second": sent.per_second,
        "p50_ms": sent.percentile(50),
        "p99_ms": sent.percentile(99),
        "app_us": app / len(sent.milliseconds) * 1e6,
        "server_us": server / len(sent.milliseconds) * 1e6,
        "peak_mib": peak,
        "sender_cpu": sent.sender_cpu,
    }


def cpu_of_sessions(server: LocalPostgres) -> float:
    """Time on a processor that the server's processes have taken so far; both contestants keep their sessions."""
    postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    return sum(cpu_seconds(process.pid) for process in psutil.Process(postmaster).children())


def check(contestant: Contestant, database_url: str, traffic: Traffic) -> None:
    """Refuse figures of events that did not have their effect, once."""
    (left,) = asyncio.run(fetch(database_url, LEFT, traffic.created, traffic.deleted))
    whole = len(traffic.created)
    expected = (whole, whole, traffic.messages, len(traffic.deleted), left["claimed"] * ROWS)
    found = (left["profiles"], left["users"], left["deliveries"], left["claimed"] + left["settled"], left["rows"])
    if found != expected:
        sys.exit(f"{contestant.name} is wrong: profiles, users, deliveries, claims, rows {found} and not {expected}.")


def rounds(world: World, contestants: list[Contestant], connections: int, count: int) -> Iterator[str]:
    """Yield the lines of the table for one number of connections; medians over the rounds, which alternate."""
    figures: dict[str, list[dict[str, float]]] = {contestant.name: [] for contestant in contestants}
    for _ in range(count):
        for contestant in contestants:
            figures[contestant.name].append(bout(contestant, world, connections))
    medians = {
        name: {column: statistics.median(each[column] for each in measured) for column in measured[0]}
        for name, measured in figures.items()
    }
    for name, median in medians.items():
        cells = "".join(f"{median[column]:12,.1f}" for column in COLUMNS)
        yield f"{f'{name}, {connections}':28}{cells}   sending took {median['sender_cpu']:.0%} of a core"
    if len(medians) > 1:
        other, ours = medians[Express.name], medians[Ours.name]
        cells = "".join(f"{ours[column] / other[column]:11.2f}x" for column in COLUMNS)
        yield f"{'usersync / express':28}{cells}"


def main() -> None:
    """Print the table as the figures come."""
    parser = argparse.ArgumentParser(prog="make bench WEBHOOK=1")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fsync", action="store_true", help="let the server wait for the disk at each commit")
    options = parser.parse_args()
    contestants: list[Contestant] = [Ours()]
    if missing := install_express():
        print(f"{missing}.", flush=True)
    else:
        contestants.append(Express())
    settings = {"fsync": "on" if options.fsync else "off"}
    with LocalPostgres(settings=settings) as server, emulator(1) as clerk:
        with urllib.request.urlopen(_list_users(clerk)) as answer:
            user = user_of(answer.read())
        instance = Instance(clerk["instance_id"], Environment.PRODUCTION)
        present = user_ids(options.events // 5)
        asyncio.run(build(server.create_database("template_webhook"), present, instance))
        world = World(server, clerk, present, user, options.events)
        print(f"{options.events:,} events, median of {options.rounds} rounds, fsync {settings['fsync']}; connections")
        print(f"{'':28}" + "".join(f"{column:>12}" for column in COLUMNS), flush=True)
        for connections in CONNECTIONS:
            for line in rounds(world, contestants, connections, options.rounds):
                print(line, flush=True)


def _list_users(clerk: dict[str, Any]) -> urllib.request.Request:
    return urllib.request.Request(
        f"{clerk['url']}/v1/users?limit=1", headers={"Authorization": f"Bearer {clerk['secret_key']}"}
    )


if __name__ == "__main__":
    main()
