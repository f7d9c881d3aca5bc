"""Reads from the API server's audit log which rights a ServiceAccount has really used.

So a test can hold a Role against what the program does: nothing missing, nothing granted in vain.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

POLICY: Final = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
- {level: None}
"""
"""Who, what and whether it was allowed, for ServiceAccounts alone; no bodies, so no Secret gets into the log."""


@dataclass(frozen=True, slots=True)
class Right:
    """One kind of request, as a Role would grant it."""

    verb: str
    group: str
    resource: str
    """With its subresource: `usersyncs/status`. For a path that is no resource, the path."""
    namespace: str
    allowed: bool


def rights_used(log: Path, user: str) -> set[Right]:
    """The distinct kinds of requests of `user`; a watch counts from its beginning."""
    used = set()
    for line in log.read_text().splitlines(keepends=True) if log.exists() else ():
        if not line.endswith("\n"):
            continue  # being written at this moment
        entry = json.loads(line)
        if entry["user"].get("username") == user:
            used.add(_right(entry))
    return used


def _right(entry: dict[str, object]) -> Right:
    target, annotations = entry.get("objectRef"), entry.get("annotations")
    assert isinstance(annotations, dict | None)
    allowed = (annotations or {}).get("authorization.k8s.io/decision") == "allow"
    if not isinstance(target, dict) or "resource" not in target:
        return Right(str(entry["verb"]), "", str(entry["requestURI"]).split("?", 1)[0], "", allowed)
    resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
    group, namespace = target.get("apiGroup", ""), target.get("namespace", "")
    return Right(str(entry["verb"]), group, resource, namespace, allowed)
