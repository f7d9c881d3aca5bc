"""Finds kube-apiserver, etcd and kubectl, or builds them from their Go modules, once per version and user.

The versions are those of `kubernetes/go.mod` and `etcd/go.mod`, pinned by the go.sum beside each. The result
stays in `$XDG_CACHE_HOME/usersync/controlplane-<versions>/`; another version gets another folder, so a
stale program is never taken for a fresh one. `KUBEBUILDER_ASSETS`, as users of envtest have it, goes first.
Cold, the build takes 5 to 11 minutes on two cores, 2.5 GB of modules and 4 GB of Go's own build cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.controlplane import toolchain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE: Final = Path(__file__).parent
PROGRAMS: Final = ("kube-apiserver", "etcd", "kubectl")
PROGRESS_SECONDS: Final = 20.0


class BuildError(Exception):
    """The programs are not there and cannot be built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder that holds the three programs."""

    folder: Path

    @property
    def kube_apiserver(self) -> Path:
        """The API server."""
        return self.folder / "kube-apiserver"

    @property
    def etcd(self) -> Path:
        """The store of the API server."""
        return self.folder / "etcd"

    @property
    def kubectl(self) -> Path:
        """The client, of the API server's own version."""
        return self.folder / "kubectl"

    def are_complete(self) -> bool:
        """Whether all three are there and may be run."""
        return all(os.access(self.folder / name, os.X_OK) for name in PROGRAMS)


@dataclass(frozen=True, slots=True)
class Versions:
    """Releases that the go.mod files pin, without the leading v."""

    kubernetes: str
    etcd: str

    @property
    def key(self) -> str:
        """Name of the cache folder; differs whenever a release differs."""
        return f"controlplane-{self.kubernetes}-etcd-{self.etcd}"


def pinned_versions() -> Versions:
    """What the go.mod files pin."""
    return Versions(
        kubernetes=_pinned(HERE / "kubernetes" / "go.mod", "k8s.io/kubernetes"),
        etcd=_pinned(HERE / "etcd" / "go.mod", "go.etcd.io/etcd/server/v3"),
    )


def find() -> Programs | None:
    """The programs if they are to be had at once, without a build."""
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        given = Programs(Path(assets))
        if given.are_complete():
            return given
    cached = Programs(cache_folder() / pinned_versions().key)
    return cached if cached.are_complete() else None


def build(say: Callable[[str], None] = print) -> Programs:
    """The programs, built now if need be; several processes may ask at the same time.

    Raises:
        BuildError: no Go, no network, or a failed compilation.
    """
    if found := find():
        return found
    versions, cache = pinned_versions(), cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{versions.key}.lock", say):
        if found := find():
            return found
        say(
            f"building kube-apiserver and kubectl {versions.kubernetes} and etcd {versions.etcd} from their Go modules:"
            " once, 5 to 11 minutes on two cores",
        )
        partial = cache / f"{versions.key}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _compile_all(versions, partial, say)
        finished = cache / versions.key
        shutil.rmtree(finished, ignore_errors=True)
        partial.rename(finished)
    say(f"built: {finished}")
    return Programs(finished)


def cache_folder() -> Path:
    """The project's folder in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "usersync"


def _pinned(go_mod: Path, module: str) -> str:
    match = re.search(rf"^require {re.escape(module)} v(\S+)$", go_mod.read_text(), re.MULTILINE)
    if match is None:
        message = f"{go_mod} has no line `require {module} v...`; put it back, on a line of its own"
        raise BuildError(message)
    return match[1]


@contextlib.contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Holds an exclusive lock, which ends with the process however that ends."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process builds the control plane: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _compile_all(versions: Versions, target: Path, say: Callable[[str], None]) -> None:
    try:
        go = toolchain.find_or_install(target.parent, say)
    except toolchain.ToolchainError as error:
        raise BuildError(str(error)) from error
    release = versions.kubernetes.split(".")
    # Unstamped, the server calls itself v0.0.0-master+$Format:%H$ and clients cannot tell what it supports.
    stamp = " ".join(
        f"-X k8s.io/component-base/version.{name}={value}"
        for name, value in {
            "gitVersion": f"v{versions.kubernetes}",
            "gitMajor": release[0],
            "gitMinor": release[1],
            "gitTreeState": "clean",
        }.items()
    )
    _compile(go, "kubernetes", ("k8s.io/kubernetes/cmd/kube-apiserver", target / "kube-apiserver", stamp), say)
    _compile(go, "kubernetes", ("k8s.io/kubernetes/cmd/kubectl", target / "kubectl", stamp), say)
    _compile(go, "etcd", ("go.etcd.io/etcd/server/v3", target / "etcd", ""), say)


def _compile(go: Path, module: str, what: tuple[str, Path, str], say: Callable[[str], None]) -> None:
    """Compiles one program (package, output, stamp) with a line of progress now and then."""
    package, output, stamp = what
    argv = [str(go), "build", "-v", "-trimpath", "-mod=readonly", "-buildvcs=false", f"-ldflags=-s -w {stamp}"]
    started, log = time.monotonic(), output.with_name(f"{output.name}.log")
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    environment["GOWORK"] = "off"  # a workspace of the user's own would build something else than go.sum pins
    environment.pop("GOROOT", None)  # it would lead one release's compiler to another's library
    with log.open("w") as lines:
        compiler = subprocess.Popen(
            [*argv, "-o", str(output), package], cwd=HERE / module, env=environment, stderr=lines
        )
    try:
        while True:
            try:
                compiler.wait(PROGRESS_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"  {output.name}: {_progress(log)} after {time.monotonic() - started:.0f} s")
    finally:
        if compiler.poll() is None:
            compiler.terminate()
            compiler.wait()
    report = log.read_text(errors="replace")
    log.unlink()
    if compiler.returncode != 0:
        output.unlink(missing_ok=True)
        tail = "\n".join(report.splitlines()[-15:])
        message = (
            f"go build {package} failed with exit code {compiler.returncode}. The Go module proxy must be reachable "
            "(GOPROXY), and about 7 GB of disk free; or point KUBEBUILDER_ASSETS at a folder with kube-apiserver, "
            f"etcd and kubectl. The compiler's last lines:\n{tail}"
        )
        raise BuildError(message)
    say(f"  {output.name}: done after {time.monotonic() - started:.0f} s")


def _progress(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    fetched = sum(line.startswith("go: downloading") for line in lines)
    compiled = f"{len(lines) - fetched} packages compiled"
    return f"{fetched} modules fetched, {compiled}" if fetched else compiled
