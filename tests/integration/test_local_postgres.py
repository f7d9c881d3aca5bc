from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controller.cli.demo.local_postgres import LocalPostgres, find_binaries
from controller.errors import DatabaseUnavailable
from tests.support.databases import fetch_value

if TYPE_CHECKING:
    from collections.abc import Callable

STARTER = """
import time
from controller.cli.demo.local_postgres import LocalPostgres
server = LocalPostgres()
server.start()
print(server.port, server.folder, flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait for a condition, at most this long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_leaves_nothing_behind() -> None:
    with LocalPostgres() as server:
        folder, port = server.folder, server.port
        assert listens(port)
    assert not folder.exists()
    assert not listens(port)


def test_data_outlives_a_restart_and_a_kill() -> None:
    with LocalPostgres() as server:
        server.create_database("kept")
        server.restart()
        server.kill()
        server.start()
        assert server.execute("SELECT count(*) FROM pg_database WHERE datname = 'kept'").strip() == "1"


async def test_a_database_is_reached_over_tcp_and_over_the_socket(postgres_server: LocalPostgres) -> None:
    over_tcp = await fetch_value(postgres_server.url(), "SELECT inet_server_addr() IS NOT NULL")
    over_socket = await fetch_value(postgres_server.socket_url(), "SELECT inet_server_addr() IS NULL")
    assert over_tcp
    assert over_socket


def test_an_odd_database_name_is_quoted(postgres_server: LocalPostgres) -> None:
    postgres_server.create_database('od"d name')
    postgres_server.drop_database('od"d name')
    assert postgres_server.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'od%'").strip() == "0"


def test_a_server_ends_with_the_process_that_was_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port, folder = process.stdout.readline().split()
    try:
        assert listens(int(port))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert until(lambda: not listens(int(port)))
    finally:
        process.stdout.close()
        until(lambda: not (Path(folder) / "data" / "postmaster.pid").exists())
        shutil.rmtree(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root starts the server as somebody else")
def test_binaries_that_the_account_cannot_read_are_copied(tmp_path: Path) -> None:
    package = find_binaries().parents[1]
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for tree in (package, package.with_name(f"{package.name}.libs")):
        if tree.exists():
            shutil.copytree(tree, private / tree.name, symlinks=True)
    with LocalPostgres(binaries=private / package.name / find_binaries().parent.name / "bin") as server:
        assert server.execute("SELECT 1").strip() == "1"
    assert private.stat().st_mode & 0o777 == 0o700


def test_a_server_that_cannot_start_says_why() -> None:
    server = LocalPostgres(settings={"shared_buffers": "much"})
    with pytest.raises(DatabaseUnavailable, match="shared_buffers"):
        server.start()
    with pytest.raises(DatabaseUnavailable):
        _ = server.folder
