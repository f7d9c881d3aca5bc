"""Two thousand requests of strangers and of senders gone wrong: no error of ours, no effect without a signature.

`make fuzz N=60000` sends more of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from controller.emulator.events import sign
from controller.web.webhooks import Bounds
from tests.support.fakes.directory import INSTANCE, user
from tests.support.webhooks import PATH, SECRET, FakeWorld, fake_service, is_signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUESTS = int(os.environ.get("USERSYNC_FUZZ", "2000"))
Headers = list[tuple[bytes, bytes]]

PARTS = [f"{family}-{part}".encode() for family in ("svix", "webhook") for part in ("id", "timestamp", "signature")]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
events = st.fixed_dictionaries(
    {},
    optional={
        "object": st.just("event"),
        "type": st.sampled_from(["user.created", "user.deleted", "user.", "session.created"]) | json_values,
        "instance_id": st.just(INSTANCE.id) | json_values,
        "data": st.fixed_dictionaries({"id": st.just(user(1)) | json_values}) | json_values,
        "timestamp": json_values,
    },
)
genuine = st.builds(
    lambda kind, number: json.dumps({"type": kind, "instance_id": INSTANCE.id, "data": {"id": user(number)}}).encode(),
    st.sampled_from(["user.created", "user.deleted", "user.updated", "session.created"]),
    st.integers(0, 50),
)
bodies = st.one_of(
    genuine,
    genuine,
    events.map(lambda event: json.dumps(event).encode()),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")),
)
raw_values = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=30).map(lambda text: text.encode(errors="surrogatepass")),
    st.integers().map(lambda number: str(number).encode()),
    st.lists(st.sampled_from([b"v1,", b"v1", b"v2,", b" ", b",", b"A" * 43 + b"=", b"=", b"\xe9"]), max_size=6).map(
        b"".join
    ),
)
other_names = st.sampled_from(
    [
        b"Content-Type",
        b"Content-Encoding",
        b"Transfer-Encoding",
        b"Expect",
        b"Connection",
        b"Upgrade",
        b"X-Odd",
        b"Host",
    ]
)
noise = st.lists(st.tuples(st.sampled_from(PARTS) | other_names, raw_values), max_size=4)


class Stranger:
    """Sends bytes; a service for all examples, on a loop of its own."""

    def __init__(self, runner: asyncio.Runner, world: FakeWorld, address: tuple[str, int]) -> None:
        self._runner = runner
        self._address = address
        self.world = world
        self.answers: Counter[int | None] = Counter()
        self.began = time.perf_counter()

    def send(self, path: bytes, headers: Headers, body: bytes) -> int | None:
        """Return the status, or None where the connection was closed without an answer."""
        status = self._runner.run(self._send(path, headers, body))
        self.answers[status] += 1
        return status

    async def _send(self, path: bytes, headers: Headers, body: bytes) -> int | None:
        lines = [b"POST %s HTTP/1.1" % path, b"Host: x", *(b"%s: %s" % header for header in headers)]
        lines += [b"Content-Length: %d" % len(body), b"Connection: close", b"", body]
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(b"\r\n".join(lines))
            async with asyncio.timeout(30):
                line = await reader.readline()
        except ConnectionError:
            return None
        finally:
            writer.close()
        return int(line.split()[1]) if line else None


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    async def start() -> tuple[AsyncExitStack, FakeWorld, tuple[str, int]]:
        stack, world = AsyncExitStack(), FakeWorld()
        sender = await stack.enter_async_context(fake_service(world, bounds=Bounds(body_seconds=0.2)))
        base = sender.session._base_url
        assert base is not None
        assert base.host is not None
        assert base.port is not None
        return stack, world, (base.host, base.port)

    # a line for each of very many requests would hide the figures
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with asyncio.Runner() as runner:
        stack, world, address = runner.run(start())
        yield Stranger(runner, world, address)
        runner.run(stack.aclose())
    structlog.reset_defaults()


def check(stranger: Stranger, headers: Headers, body: bytes) -> None:
    """No answer is an error of ours, and what has an effect is signed."""
    before = set(stranger.world.store.delivered)
    status = stranger.send(PATH.encode(), headers, body)
    assert status is None or status < 500
    if status == 200 or stranger.world.store.delivered != before:
        text = CIMultiDict(
            (name.decode(), value.decode(errors="surrogateescape").strip(" \t")) for name, value in headers
        )
        assert is_signed(SECRET, text, body)


def signed(body: bytes) -> Headers:
    return [(name.encode(), value.encode()) for name, value in sign(SECRET, body).items()]


many: Callable[[float], settings] = lambda share: settings(  # noqa: E731
    max_examples=int(REQUESTS * share), deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@many(0.35)
@given(headers=noise, body=bodies)
def test_a_strangers_request_is_never_an_error_of_ours(stranger: Stranger, headers: Headers, body: bytes) -> None:
    check(stranger, headers, body)


@many(0.3)
@given(body=bodies)
def test_a_signed_body_is_never_an_error_of_ours_whatever_it_holds(stranger: Stranger, body: bytes) -> None:
    check(stranger, signed(body), body)


@many(0.35)
@given(body=bodies, added=noise, data=st.data())
def test_a_genuine_message_with_something_changed_is_never_an_error_of_ours(
    stranger: Stranger, body: bytes, added: Headers, data: st.DataObject
) -> None:
    headers = data.draw(st.permutations([*signed(body), *added]))
    place = data.draw(st.integers(0, len(headers) - 1))
    name, value = headers[place]
    change = data.draw(st.sampled_from(["none", "drop", "repeat", "replace", "cut", "body"]))
    match change:
        case "drop":
            headers = [*headers[:place], *headers[place + 1 :]]
        case "repeat":
            headers = [*headers, headers[place]]
        case "replace":
            headers = [*headers[:place], (name, data.draw(raw_values)), *headers[place + 1 :]]
        case "cut":
            headers = [*headers[:place], (name, value[: len(value) // 2]), *headers[place + 1 :]]
        case "body":
            body = data.draw(bodies)
    check(stranger, headers, body)


def test_genuine_messages_were_among_them(stranger: Stranger) -> None:
    sent = stranger.answers.total()
    by_status = ", ".join(f"{count} x {status or 'closed'}" for status, count in stranger.answers.most_common())
    print(f"\n{sent} requests in {time.perf_counter() - stranger.began:.0f} s: {by_status}")
    assert sent >= REQUESTS
    assert stranger.answers[200] >= REQUESTS / 100
    assert stranger.answers[None] < sent / 10
