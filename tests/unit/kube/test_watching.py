"""A watch goes on whatever its stream does; what the API server itself does is in the e2e tests."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from controller.kube.watching import ChangeKind, watch_user_syncs

if TYPE_CHECKING:
    from controller.kube.client import ApiServer

LISTED = {"metadata": {"uid": "1", "name": "production", "namespace": "app", "resourceVersion": "7"}}
CHANGED = {"metadata": {**LISTED["metadata"], "resourceVersion": "8"}}


class Stream:
    """A response of the API server with these lines, which then ends."""

    status = 200

    def __init__(self, *lines: bytes) -> None:
        self.content = self
        self._lines = list(lines)

    async def readline(self) -> bytes:
        return self._lines.pop(0) if self._lines else b""

    def close(self) -> None:
        pass


class Cluster:
    """Lists one resource, and gives one stream after the other."""

    def __init__(self, *streams: Stream) -> None:
        self.lists = 0
        self._streams = list(streams)

    async def list_user_syncs(self, _namespace: str | None) -> tuple[list[dict[str, Any]], str]:
        self.lists += 1
        return [LISTED], "7"

    async def open_watch(self, _namespace: str | None, _version: str, *, seconds: int) -> Stream:
        assert seconds > 0
        return self._streams.pop(0)


async def test_a_stream_that_ends_in_the_middle_of_a_line_is_followed_by_a_fresh_list() -> None:
    whole = json.dumps({"type": "MODIFIED", "object": CHANGED}).encode()
    cluster = Cluster(Stream(whole[:40]), Stream(whole + b"\n"))
    told = []
    async with aclosing(watch_user_syncs(cast("ApiServer", cluster), "app")) as changes:
        async for change in changes:
            told.append((change.kind, change.resource.get("metadata", {}).get("resourceVersion")))
            if told[-1] == (ChangeKind.APPLIED, "8"):
                break
    assert cluster.lists == 2
    once = [(ChangeKind.APPLIED, "7"), (ChangeKind.SYNCED, None)]
    assert told == [*once, *once, (ChangeKind.APPLIED, "8")]
