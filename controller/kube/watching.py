"""UserSyncs as they change, without end: list, watch, list again.

Decides how to go on after a closed stream, an expired version, an outage or a missing CRD; a deletion that fell
into a gap is told too. Used by `web`; the operator has its own informer.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog

from controller.errors import KubernetesUnavailable, UserSyncError
from controller.kube.refusals import Conflict, Expired, NotFound, from_status, translated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from controller.kube.client import ApiServer, Resource

log = structlog.get_logger(__name__)

STREAM_SECONDS = 240
SILENCE_SECONDS = 75.0
"""The API server sends a bookmark each minute; a stream that is silent for longer is dead."""
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)


class ChangeKind(Enum):
    """What happened."""

    APPLIED = "applied"
    """The resource is there, new or changed."""
    DELETED = "deleted"
    SYNCED = "synced"
    """All resources that there are have been told; comes after each complete list."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step; `resource` is empty for SYNCED."""

    kind: ChangeKind
    resource: Resource = field(default_factory=dict)


@dataclass(slots=True)
class _Known:
    """What has been told, so that a list can tell what has gone since."""

    resources: dict[str, Resource] = field(default_factory=dict)
    version: str = ""

    def replace(self, listed: Sequence[Resource]) -> list[Change]:
        present = {_key(resource): resource for resource in listed}
        gone = [Change(ChangeKind.DELETED, old) for key, old in self.resources.items() if key not in present]
        self.resources = present
        applied = [Change(ChangeKind.APPLIED, resource) for resource in listed]
        return [*gone, *applied, Change(ChangeKind.SYNCED)]

    def note(self, kind: str, resource: Resource) -> Change | None:
        self.version = resource["metadata"]["resourceVersion"]
        if kind == "DELETED":
            self.resources.pop(_key(resource), None)
            return Change(ChangeKind.DELETED, resource)
        if kind in {"ADDED", "MODIFIED"}:
            self.resources[_key(resource)] = resource
            return Change(ChangeKind.APPLIED, resource)
        return None


async def watch_user_syncs(api: ApiServer, namespace: str | None) -> AsyncGenerator[Change, None]:
    """Tell every change in `namespace`, or in the cluster; never ends and never raises for an outage."""
    known = _Known()
    failures = 0
    while True:
        try:
            if not known.version:
                listed, known.version = await api.list_user_syncs(namespace)
                for change in known.replace(listed):
                    yield change
            failures = 0
            async with aclosing(_stream(api, namespace, known)) as changes:
                async for change in changes:
                    yield change
        except Expired:
            known.version = ""
        except UserSyncError as error:
            log.warning("watch_interrupted", reason=error.reason, error=str(error))
            # whatever it was, a fresh list is right, and costs little beside the wait
            known.version = ""
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1


async def _stream(api: ApiServer, namespace: str | None, known: _Known) -> AsyncGenerator[Change, None]:
    doing = "watch usersyncs"
    with translated(doing):
        response = await api.open_watch(namespace, known.version, seconds=STREAM_SECONDS)
    try:
        if response.status != HTTPStatus.OK:
            with translated(doing):
                body = await response.text()
            raise _plain(from_status(doing, response.status, body, response.headers))
        while True:
            with translated(doing):
                async with asyncio.timeout(SILENCE_SECONDS):
                    line = await response.content.readline()
            if not line:
                return
            change = _read(line, known)
            if change is not None:
                yield change
    finally:
        response.close()


def _read(line: bytes, known: _Known) -> Change | None:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError as error:
        # a proxy that ends a stream in order may do so in the middle of a line
        message = "Could not watch usersyncs: the stream ended in the middle of a line."
        raise KubernetesUnavailable(message) from error
    resource = event["object"]
    if event["type"] == "ERROR":
        raise _plain(from_status("watch usersyncs", int(resource.get("code", 500)), json.dumps(resource), {}))
    return known.note(event["type"], resource)


def _plain(error: UserSyncError | NotFound | Conflict | Expired) -> UserSyncError | Expired:
    """For a watch, 404 and 409 mean what 410 does: begin anew; the list says what is wrong."""
    return Expired(str(error)) if isinstance(error, NotFound | Conflict) else error


def _key(resource: Resource) -> str:
    return str(resource["metadata"]["uid"])
