"""Sends events to a webhook endpoint as Svix does: signed, at least once, in no particular order.

Only 2xx within the timeout counts as received; anything else is tried again on Svix's schedule, which can
be compressed. Each attempt is signed anew under the same message id. Never tells the receiver that it is
an emulator. Faults of the way between (lost, repeated, late, overtaken) are switched on here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import aiohttp

from controller.emulator.events import Message, TimestampUnit, encode, envelope, example, new_message_id, sign

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_SCHEDULE = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=10),
)
"""Waits between the eight attempts: Svix's documentation, "Retry schedule"."""

USER_AGENT = "Svix-Webhooks/1.84.0 (sender-9YMgn; +https://www.svix.com/http-sender/)"
_KEPT_DELIVERIES = 100_000
_KEPT_MESSAGES = 10_000
_SUCCESS = range(200, 300)
_ABORT_HEADER = "webhook-delivery"
_ABORT = "abort-message"


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where events go, and how. Without a `url` none is sent.

    `compression` divides the waits of the retry schedule. `timeout` is not compressed. Several `secrets`
    sign each attempt side by side, as while a secret rotates; empty: one is made up.
    """

    url: str | None = None
    secrets: tuple[str, ...] = ()
    compression: float = 1.0
    timeout: timedelta = timedelta(seconds=15)
    timestamp_unit: TimestampUnit = TimestampUnit.MILLISECONDS


class DeliveryFaultName(StrEnum):
    """What can happen to a message on its way."""

    LOSE = "lose"
    """It is never sent."""
    DUPLICATE = "duplicate"
    """It is sent `copies` times at once, under one id."""
    DELAY = "delay"
    """Its first attempt is `seconds` late (not compressed)."""
    REORDER = "reorder"
    """Its first attempt waits until a later message has been sent."""


@dataclass(frozen=True, slots=True)
class DeliveryFault:
    """One fault of the way; it befalls the next `times` messages (None: all) of `event_type` (None: any)."""

    name: DeliveryFaultName
    times: int | None = 1
    event_type: str | None = None
    copies: int = 2
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt: `status` is None when there was no answer, and `error` says why."""

    message_id: str
    event_type: str
    attempt: int
    at: datetime
    status: int | None
    error: str | None

    @property
    def succeeded(self) -> bool:
        """Whether Svix would count it as received."""
        return self.status is not None and self.status in _SUCCESS


class WebhookSender:
    """One endpoint, and the messages under way to it."""

    def __init__(self, settings: WebhookSettings, *, instance_id: str) -> None:
        self._settings = settings
        self._instance_id = instance_id
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._messages: deque[Message] = deque(maxlen=_KEPT_MESSAGES)
        self._deliveries: deque[Delivery] = deque(maxlen=_KEPT_DELIVERIES)
        self._faults: list[tuple[DeliveryFault, int | None]] = []
        self._overtaken: list[asyncio.Event] = []

    @property
    def settings(self) -> WebhookSettings:
        """Where events go, and how; may be replaced while messages are under way."""
        return self._settings

    @settings.setter
    def settings(self, settings: WebhookSettings) -> None:
        self._settings = settings

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Every attempt so far, oldest first."""
        return tuple(self._deliveries)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Every message so far, lost ones too, oldest first."""
        return tuple(self._messages)

    @property
    def pending(self) -> int:
        """How many messages (copies counted) are neither received nor given up."""
        return len(self._tasks)

    def switch_on(self, fault: DeliveryFault) -> None:
        """Let the fault befall the messages to come."""
        self._faults.append((fault, fault.times))

    def clear_faults(self) -> None:
        """Switch all faults off, and let go of messages that wait to be overtaken."""
        self._faults.clear()
        self._release()

    def send(self, event_type: str, data: Mapping[str, Any], *, at: datetime | None = None) -> str | None:
        """Send an event in the background; return its message id, or None when no endpoint is set."""
        if self._settings.url is None:
            return None
        unit = self._settings.timestamp_unit
        event = envelope(event_type, data, instance_id=self._instance_id, at=at, unit=unit)
        return self.post(Message(new_message_id(), event_type, encode(event)))

    def send_example(self, event_type: str, *, instance_id: str | None = None) -> str | None:
        """Send what "Send Example" in the dashboard sends; `instance_id`: None is the right one."""
        if self._settings.url is None:
            return None
        event = example(event_type, self._instance_id if instance_id is None else instance_id)
        return self.post(Message(new_message_id(), event_type, encode(event)))

    def post(self, message: Message) -> str:
        """Send a message as it is, whatever its body; return its id."""
        self._messages.append(message)
        copies, delay, overtaken = 1, 0.0, None
        for fault in self._meet(message.event_type):
            match fault.name:
                case DeliveryFaultName.LOSE:
                    copies = 0
                case DeliveryFaultName.DUPLICATE:
                    copies *= fault.copies
                case DeliveryFaultName.DELAY:
                    delay += fault.seconds
                case DeliveryFaultName.REORDER:
                    overtaken = asyncio.Event()
        for _ in range(copies):
            task = asyncio.get_running_loop().create_task(self._deliver(message, delay, overtaken))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if overtaken is not None and copies:
            self._overtaken.append(overtaken)
        return message.id

    def replay(self, message_id: str) -> None:
        """Send a message again under its old id, as "Resend" in the dashboard does.

        Raises:
            LookupError: no message with that id was ever sent, or it is too long ago.
        """
        for message in self._messages:
            if message.id == message_id:
                self.post(message)
                return
        raise LookupError(message_id)

    async def settle(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109  the bound is the point of the call
        """Wait until no message is under way.

        Raises:
            TimeoutError: some still are.
        """
        async with asyncio.timeout(timeout):
            while self._tasks:
                await asyncio.wait(self._tasks)

    async def open(self) -> None:
        """Make ready to send."""
        self._session = aiohttp.ClientSession()

    async def close(self) -> None:
        """Give up every message that is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _meet(self, event_type: str) -> list[DeliveryFault]:
        met: list[DeliveryFault] = []
        left: list[tuple[DeliveryFault, int | None]] = []
        for fault, times in self._faults:
            if fault.event_type not in (None, event_type):
                left.append((fault, times))
                continue
            met.append(fault)
            if times is None or times > 1:
                left.append((fault, None if times is None else times - 1))
        self._faults = left
        return met

    async def _deliver(self, message: Message, delay: float, overtaken: asyncio.Event | None) -> None:
        if overtaken is not None:
            await overtaken.wait()
        await asyncio.sleep(delay)
        for attempt in range(1, len(RETRY_SCHEDULE) + 2):
            delivery, aborted = await self._attempt(message, attempt)
            self._deliveries.append(delivery)
            if overtaken is None:
                self._release()
            if delivery.succeeded or aborted or attempt > len(RETRY_SCHEDULE):
                return
            await asyncio.sleep(RETRY_SCHEDULE[attempt - 1].total_seconds() / self._settings.compression)

    async def _attempt(self, message: Message, attempt: int) -> tuple[Delivery, bool]:
        """Make one attempt; return it, and whether the receiver asked for no more."""
        settings = self._settings
        at = datetime.now(UTC)
        status, error, aborted = None, None, False
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            **sign(settings.secrets, message.body, message_id=message.id, at=at),
        }
        if self._session is None or settings.url is None:
            error = "no endpoint"
        else:
            timeout = aiohttp.ClientTimeout(total=settings.timeout.total_seconds())
            try:
                async with self._session.post(
                    settings.url, data=message.body, headers=headers, timeout=timeout, allow_redirects=False
                ) as response:
                    status = response.status
                    aborted = response.headers.get(_ABORT_HEADER) == _ABORT
            except TimeoutError:
                error = "timeout"
            except aiohttp.ClientError as failure:
                error = type(failure).__name__
        return Delivery(message.id, message.event_type, attempt, at, status, error), aborted

    def _release(self) -> None:
        waiting, self._overtaken = self._overtaken, []
        for event in waiting:
            event.set()
