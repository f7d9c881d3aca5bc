"""The real kubectl, with nothing of the user's own configuration."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class KubectlError(AssertionError):
    """kubectl ended with an error; `stderr` is what it said, `code` its exit code."""

    def __init__(self, arguments: tuple[str, ...], code: int, stderr: str) -> None:
        """Keeps kubectl's own words, which are what tests look at."""
        super().__init__(f"kubectl {' '.join(arguments)}: exit code {code}\n{stderr}")
        self.code = code
        self.stderr = stderr


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with one kubeconfig: `kubectl("get", "usersyncs", "-n", "app")` returns what it printed."""

    program: Path
    kubeconfig: Path
    namespace: str | None = None

    def __call__(self, *arguments: str, stdin: str | None = None, timeout_seconds: float = 60.0) -> str:
        """Runs it and returns its standard output; `stdin` is what `-f -` reads.

        Raises:
            KubectlError: it ended with another code than 0.
        """
        done = self.run(*arguments, stdin=stdin, timeout_seconds=timeout_seconds)
        if done.returncode != 0:
            raise KubectlError(arguments, done.returncode, done.stderr)
        return done.stdout

    def run(
        self, *arguments: str, stdin: str | None = None, timeout_seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs it and returns code, standard output and standard error, whatever the code is."""
        scope = ["--namespace", self.namespace] if self.namespace else []
        return subprocess.run(
            [self.program, *scope, *arguments],
            input=stdin if stdin is not None else "",
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """Variables for this kubectl, and for programs that shall reach the same API server."""
        return os.environ | {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.kubeconfig.parent / "kubectl-cache"),
            "KUBERC": "off",  # a person's kuberc may change the defaults of every command
        }

    def in_namespace(self, namespace: str) -> Kubectl:
        """The same, with another default namespace."""
        return replace(self, namespace=namespace)
