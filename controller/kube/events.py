"""Events of a UserSync (events.k8s.io/v1): what `kubectl describe` shows of its past.

Decides how a repeat is told (as a series, not as one more object). An Event that cannot be written is logged and
forgotten: it must never stop a run. Used by `reconciler`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import structlog
from kubernetes.aio.client import EventsV1Api, EventsV1Event, V1ObjectMeta, V1ObjectReference

from controller.errors import UserSyncError
from controller.kube.fields import API_VERSION, GROUP, KIND
from controller.kube.refusals import Conflict, Expired, NotFound, translated

if TYPE_CHECKING:
    from controller.kube.client import ApiServer, Resource

log = structlog.get_logger(__name__)

REPORTER = f"{GROUP}/controller"
NOTE_MAX = 1024
WORD_MAX = 128
SERIES_SECONDS = 1800.0
REMEMBERED = 1000


class Severity(Enum):
    """The two types that the API server takes."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told."""

    severity: Severity
    reason: str
    note: str
    action: str = "Reconcile"


@dataclass(slots=True)
class _Series:
    name: str
    at: float
    count: int = 1


@dataclass(slots=True)
class Events:
    """Writes Events in the name of this process; `instance` is the pod."""

    api: ApiServer
    instance: str
    _series: OrderedDict[tuple[str, Notice], _Series] = field(default_factory=OrderedDict)

    async def post(self, resource: Resource, notice: Notice) -> None:
        """Tell it once; if the very same was told within half an hour, count that one up."""
        key = (str(resource["metadata"]["uid"]), notice)
        series = self._series.get(key)
        try:
            if (
                series is not None
                and time.monotonic() - series.at < SERIES_SECONDS
                and await self._count(resource, series)
            ):
                return
            name = await self._create(resource, notice)
        except (UserSyncError, NotFound, Conflict, Expired) as error:
            log.warning("event_not_written", reason=notice.reason, error=str(error))
            return
        self._series[key] = _Series(name, time.monotonic())
        while len(self._series) > REMEMBERED:
            self._series.popitem(last=False)

    async def _create(self, resource: Resource, notice: Notice) -> str:
        metadata = resource["metadata"]
        # generateName with a dot is refused; the time makes the name unique as well
        name = f"{metadata['name'][:220]}.{time.time_ns():x}"
        event = EventsV1Event(
            metadata=V1ObjectMeta(name=name, namespace=metadata["namespace"]),
            regarding=V1ObjectReference(
                api_version=API_VERSION,
                kind=KIND,
                namespace=metadata["namespace"],
                name=metadata["name"],
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"],
            ),
            type=notice.severity.value,
            reason=notice.reason[:WORD_MAX],
            action=notice.action[:WORD_MAX],
            note=_cut(notice.note),
            event_time=datetime.now(UTC),
            reporting_controller=REPORTER,
            reporting_instance=self.instance[:WORD_MAX] or "usersync",
        )
        with translated(f"write an Event of {metadata['namespace']}/{metadata['name']}"):
            await EventsV1Api(self.api.client).create_namespaced_event(
                metadata["namespace"], event, _request_timeout=self.api.calls.timeout
            )
        return name

    async def _count(self, resource: Resource, series: _Series) -> bool:
        """Count a series up; False if the API server has dropped the Event by now."""
        namespace = resource["metadata"]["namespace"]
        body: dict[str, Any] = {
            "series": {
                "count": series.count + 1,
                "lastObservedTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
        }
        try:
            with translated(f"count up an Event of {namespace}"):
                await EventsV1Api(self.api.client).patch_namespaced_event(
                    series.name,
                    namespace,
                    body,
                    _content_type="application/merge-patch+json",
                    _request_timeout=self.api.calls.timeout,
                )
        except NotFound:
            return False
        series.count += 1
        series.at = time.monotonic()
        return True


def _cut(note: str) -> str:
    return note if len(note) <= NOTE_MAX else note[: NOTE_MAX - 3] + "..."
