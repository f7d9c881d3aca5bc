"""A real PgBouncer in transaction mode before a server of the tests: what Supabase's pooler and many others are.

Taken from the PATH, else from Debian's packages, unpacked into `$XDG_CACHE_HOME/usersync/pgbouncer-...` without
being installed and without any right. Where neither can be had a test that needs it fails and says what to do,
unless `USERSYNC_WITHOUT_PGBOUNCER=1` says that this is known: then it is skipped with that reason.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.controlplane.building import cache_folder
from tests.support.controlplane.processes import end, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS: Final = 15.0
APT_SECONDS: Final = 120.0
WITHOUT: Final = "USERSYNC_WITHOUT_PGBOUNCER"
OWN_SETTINGS: Final = ("application_name", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings")
"""What PgBouncer itself keeps in step with the client of each transaction."""
LEFT_BEHIND: Final = """
    SELECT 'prepared statement ' || name AS found FROM pg_prepared_statements
    UNION ALL SELECT 'setting ' || name FROM pg_settings WHERE source = 'session' AND name <> ALL ($1)
    UNION ALL SELECT 'advisory lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
    UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name <> ''
    UNION ALL SELECT 'temporary table ' || relname FROM pg_class WHERE relpersistence = 't'
    UNION ALL SELECT 'channel ' || channel FROM pg_listening_channels() AS channel
"""


class PgBouncerMissing(Exception):
    """There is none; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class PgBouncer:
    """`url` leads through it to the database; it has `size` sessions there."""

    url: str
    size: int

    async def left_behind(self) -> list[str]:
        """What transactions left in its sessions; nobody else may be in one."""
        found: list[str] = []
        sessions: set[int] = set()
        async with AsyncExitStack() as open_ones:
            for _ in range(self.size):
                connection = await asyncpg.connect(self.url, statement_cache_size=0)
                open_ones.push_async_callback(connection.close)
                # A transaction under way keeps its session, so that the next one gets another.
                await open_ones.enter_async_context(connection.transaction())
                sessions.add(await connection.fetchval("SELECT pg_backend_pid()"))
                found += [row["found"] for row in await connection.fetch(LEFT_BEHIND, list(OWN_SETTINGS))]
        assert len(sessions) == self.size
        return sorted(found)


@contextmanager
def pgbouncing(url: str, *, size: int = 2, mode: str = "transaction", in_turn: bool = True) -> Iterator[PgBouncer]:
    """A PgBouncer with `size` sessions on the server of `url`, given to transactions in turn, or the last one first."""
    program = _program_or_say_so()
    parts = urlsplit(url)
    account = pwd.getpwuid(os.getuid()) if os.getuid() else pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp(prefix="usersync-pgbouncer-", dir="/tmp"))
    try:
        # PgBouncer refuses to run as root, and another account cannot read below a private home.
        copied = program.copy_to(folder / "program")
        port = _free_port()
        settings = folder / "pgbouncer.ini"
        settings.write_text(f"""
[databases]
* = host={parts.hostname} port={parts.port} user={parts.username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
server_round_robin = {int(in_turn)}
""")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path == copied.path else 0o644)
        log = folder / "log"
        process = spawn(
            [copied.path, settings],
            log=log,
            env=copied.environment(),
            cwd=folder,
            account=(account.pw_uid, account.pw_gid),
        )
        try:
            _wait_for(process, port, log)
            yield PgBouncer(f"postgres://{parts.username}@127.0.0.1:{port}{parts.path}", size)
        finally:
            # SIGTERM is its quick end: SIGINT would wait for clients.
            end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Program:
    """`libraries`: where those lie that came with it."""

    path: Path
    libraries: Path | None = None

    def environment(self) -> dict[str, str]:
        found = {"LD_LIBRARY_PATH": str(self.libraries)} if self.libraries else {}
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin")} | found

    def works(self) -> bool:
        if not os.access(self.path, os.X_OK):
            return False
        asked = subprocess.run(
            [self.path, "--version"], env=self.environment(), capture_output=True, text=True, check=False
        )
        return asked.returncode == 0 and "PgBouncer" in asked.stdout

    def copy_to(self, folder: Path) -> Program:
        """Copy it with its libraries."""
        folder.mkdir()
        shutil.copy2(self.path, folder / "pgbouncer")
        for library in self.libraries.iterdir() if self.libraries else ():
            shutil.copy2(library, folder / library.name)
        return Program(folder / "pgbouncer", folder if self.libraries else None)


def find_or_fetch() -> Program:
    """The program, from the PATH, the cache, or Debian's packages.

    Raises:
        PgBouncerMissing: none of them has it.
    """
    if found := shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        return Program(Path(found))
    # Programs of one release of the system do not run on every other one.
    release = "-".join(platform.freedesktop_os_release().get(key, "") for key in ("ID", "VERSION_ID"))
    finished = cache_folder() / f"pgbouncer-{release}-{platform.machine()}"
    cached = Program(finished / "pgbouncer", finished / "libraries")
    if cached.works():
        return cached
    finished.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pgbouncer-", dir=finished.parent) as scratch:
        fetched = _fetch(Path(scratch))
        if not fetched.works():
            message = "Debian's package of PgBouncer was fetched, and does not run here"
            raise PgBouncerMissing(message)
        shutil.rmtree(finished, ignore_errors=True)
        fetched.path.parent.rename(finished)
    return cached


def _fetch(scratch: Path) -> Program:
    """Fetch the package and the libraries that it names, and unpack what is needed into `scratch/finished`."""
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        message = f"there is no pgbouncer on the PATH, and no {' or '.join(missing)} to fetch Debian's package with"
        raise PgBouncerMissing(message)
    packages, unpacked = scratch / "packages", scratch / "unpacked"
    packages.mkdir()
    apt = _Apt(scratch / "apt", packages)
    apt.download("pgbouncer")
    needed = _run("dpkg-deb", "-f", *map(str, packages.glob("pgbouncer_*.deb")), "Depends")
    # Of alternatives the first; the C library is there wherever dpkg is.
    apt.download(*(name for name in re.findall(r"(?:^|, )(lib[^\s,|]+)", needed) if name != "libc6"))
    for package in packages.glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(unpacked))
    finished = scratch / "finished"
    libraries = finished / "libraries"
    libraries.mkdir(parents=True)
    (unpacked / "usr/sbin/pgbouncer").rename(finished / "pgbouncer")
    for library in unpacked.rglob("*.so*"):
        if library.is_file() and library.parent.name.endswith("-linux-gnu"):
            shutil.copy2(library, libraries / library.name)
    return Program(finished / "pgbouncer", libraries)


class _Apt:
    """`apt-get download` with the lists of packages that the system has, else with fresh ones of our own."""

    def __init__(self, state: Path, into: Path) -> None:
        self._state = state
        self._into = into
        self._options: tuple[str, ...] = ("-q", "-o", "APT::Sandbox::User=")

    def download(self, *names: str) -> None:
        try:
            self._get("download", *names)
        except PgBouncerMissing:
            if self._state.exists():
                raise
            # No lists yet, as on a fresh machine, or so old that what they name is gone.
            for folder in ("lists/partial", "cache/archives/partial"):
                (self._state / folder).mkdir(parents=True)
            self._options += (
                "-o",
                f"Dir::State::lists={self._state / 'lists'}",
                "-o",
                f"Dir::Cache={self._state / 'cache'}",
            )
            self._get("update")
            self._get("download", *names)

    def _get(self, command: str, *names: str) -> None:
        _run("apt-get", *self._options, command, *names, cwd=self._into)


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, timeout=APT_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        message = f"{' '.join(command)} did not end within {APT_SECONDS:.0f} s"
        raise PgBouncerMissing(message) from error
    if done.returncode:
        message = f"{' '.join(command)} failed: {' / '.join((done.stderr or done.stdout).strip().splitlines()[-3:])}"
        raise PgBouncerMissing(message)
    return done.stdout


def _program_or_say_so() -> Program:
    try:
        return find_or_fetch()
    except PgBouncerMissing as error:
        if os.environ.get(WITHOUT) == "1":
            pytest.skip(f"{WITHOUT}=1: nothing is proved here about transaction-mode poolers ({error})")
        pytest.fail(
            f"This test needs a real PgBouncer: {error}. Install one (apt-get install pgbouncer, or brew install "
            f"pgbouncer), or set {WITHOUT}=1 to go without what it proves.",
            pytrace=False,
        )


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            said = log.read_text(errors="replace")
            assert process.poll() is None, f"PgBouncer ended: {said}"
            assert time.monotonic() < until, f"PgBouncer does not listen: {said}"
            time.sleep(0.01)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
