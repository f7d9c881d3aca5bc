"""Signed events of about 4 kB, and a sender that keeps a number of connections busy.

The sender writes prepared requests to raw sockets and reads answers, nothing else: about 30 us each, so it is not
what is measured; `Sent.sender_cpu` says what part of a core it took.
"""

from __future__ import annotations

import random
import re
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from controller.emulator.events import deleted_user, encode, envelope, new_message_id, sign

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BODY_BYTES = 4000
DELETED_SHARE = 0.10
REPEATED_SHARE = 0.05
DEADLINE_SECONDS = 120.0

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to be signed: a repeated one has the id and the body of an earlier one."""

    message_id: str
    user_id: str
    body: bytes


@dataclass(slots=True)
class Traffic:
    """Attempts in order, and what is to have happened once all are answered."""

    deliveries: list[Delivery] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    @property
    def messages(self) -> int:
        """How many different ones."""
        return len(self.created) + len(self.deleted)


def mix(count: int, present: Sequence[str], instance_id: str, user: dict[str, Any]) -> Traffic:
    """`count` attempts: newcomers, users of `present` who are deleted, and one in twenty once more."""
    chance = random.Random(4711)
    leaving = iter(present)
    traffic = Traffic()
    for number in range(count):
        draw = chance.random()
        if draw < REPEATED_SHARE and traffic.deliveries:
            traffic.deliveries.append(chance.choice(traffic.deliveries))
        elif draw < REPEATED_SHARE + DELETED_SHARE and (user_id := next(leaving, None)):
            traffic.deleted.append(user_id)
            traffic.deliveries.append(_delivery("user.deleted", deleted_user(user_id), instance_id))
        else:
            user_id = f"user_new{number:023d}"
            traffic.created.append(user_id)
            traffic.deliveries.append(_delivery("user.created", user | {"id": user_id}, instance_id))
    return traffic


def _delivery(event_type: str, data: dict[str, Any], instance_id: str) -> Delivery:
    event = envelope(event_type, data, instance_id=instance_id)
    # what Clerk sends of a deleted user is short; all bodies of one length make for one figure
    missing = BODY_BYTES - len(encode(event)) - len(',"more":""')
    body = encode(event | {"more": "x" * max(missing, 0)})
    return Delivery(new_message_id(), data["id"], body)


def prepare(deliveries: Sequence[Delivery], url: str, secret: str) -> list[bytes]:
    """Sign all of them now and write each as the bytes of a request; Svix's five minutes begin."""
    parts = urlsplit(url)
    return [_request(delivery, parts.path, parts.netloc, secret) for delivery in deliveries]


def _request(delivery: Delivery, path: str, host: str, secret: str) -> bytes:
    headers = {
        "Host": host,
        "Content-Type": "application/json",
        "Content-Length": str(len(delivery.body)),
        **sign(secret, delivery.body, message_id=delivery.message_id),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + delivery.body


@dataclass(frozen=True, slots=True)
class Sent:
    """What it took: the whole in seconds, each answer in milliseconds, and the part of a core that sending took."""

    seconds: float
    milliseconds: list[float]
    sender_cpu: float

    @property
    def per_second(self) -> float:
        """Answers."""
        return len(self.milliseconds) / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds within which `percent` of the answers came."""
        ranked = sorted(self.milliseconds)
        return ranked[min(int(len(ranked) * percent / 100), len(ranked) - 1)]


class WrongAnswer(Exception):
    """An answer was not 200, or did not come."""


def send(requests: Sequence[bytes], url: str, connections: int) -> Sent:
    """Send all, over so many connections, each of which waits for its answer before it sends the next.

    Raises:
        WrongAnswer: to any of them.
    """
    parts = urlsplit(url)
    waiting = deque(requests)
    took: list[float] = []
    cpu, began = time.process_time(), time.perf_counter()
    with selectors.DefaultSelector() as selector:
        lines = [_Line(socket.create_connection((parts.hostname, parts.port))) for _ in range(connections)]
        try:
            for line in lines:
                selector.register(line.socket, selectors.EVENT_READ, line)
                if waiting:
                    line.send(waiting.popleft())
            for line in _answered(selector, len(requests), began + DEADLINE_SECONDS):
                took.append((time.perf_counter() - line.sent_at) * 1000)
                if waiting:
                    line.send(waiting.popleft())
        finally:
            for line in lines:
                line.socket.close()
    seconds = time.perf_counter() - began
    return Sent(seconds, took, (time.process_time() - cpu) / seconds)


@dataclass(slots=True)
class _Line:
    """A connection with at most one request under way."""

    socket: socket.socket
    sent_at: float = 0.0
    received: bytes = b""

    def send(self, request: bytes) -> None:
        self.received = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Read what has come; whether the answer is whole."""
        chunk = self.socket.recv(65536)
        self.received += chunk
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not chunk or (found and not head.startswith(b"HTTP/1.1 200")):
            message = f"Not a 200, but: {self.received[:200]!r}"
            raise WrongAnswer(message)
        length = _LENGTH.search(head)
        return bool(found) and length is not None and len(body) >= int(length[1])


def _answered(selector: selectors.BaseSelector, count: int, until: float) -> Iterator[_Line]:
    while count:
        ready = selector.select(timeout=1.0)
        if not ready and time.perf_counter() > until:
            message = f"{count} answers did not come within {DEADLINE_SECONDS:.0f} s."
            raise WrongAnswer(message)
        for key, _ in ready:
            if key.data.receive():
                count -= 1
                yield key.data


def user_of(answer: bytes) -> dict[str, Any]:
    """Return the first user of an answer to `GET /v1/users`."""
    users: list[dict[str, Any]] = msgspec.json.decode(answer)
    return users[0]
