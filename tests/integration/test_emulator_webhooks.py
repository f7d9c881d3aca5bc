"""Webhooks of the emulator, sent over real HTTP to a receiver that verifies them with Svix's library."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web
from svix.webhooks import Webhook

from controller.emulator import (
    ClerkEmulator,
    DeliveryFault,
    DeliveryFaultName,
    EmulatorSettings,
    WebhookSettings,
)
from controller.emulator.events import Message
from controller.emulator.webhooks import RETRY_SCHEDULE
from tests.support.clerk_openapi import hold_event
from tests.support.emulators import calling, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOURS = 27 * 3600 + 35 * 60 + 5
"""The whole schedule, in seconds: Svix's documentation of its retries."""


class Receiver:
    """An endpoint that verifies, remembers, and answers as told."""

    def __init__(self) -> None:
        self.secret = ""
        self.answers: deque[web.Response | float] = deque()
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        Webhook(self.secret).verify(body, dict(request.headers))
        self.ids.append(request.headers["svix-id"])
        self.events.append(msgspec.json.decode(body))
        answer = self.answers.popleft() if self.answers else web.Response()
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return web.Response()
        return answer


@asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[str]:
    """Listen; give the URL."""
    app = web.Application()
    app.add_routes([web.post("/hook", receiver.handle)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def clerk(receiver: Receiver) -> AsyncIterator[ClerkEmulator]:
    # The schedule of 27.6 hours in a tenth of a second.
    async with receiving(receiver) as url:
        settings = EmulatorSettings(webhooks=WebhookSettings(url=url, compression=HOURS * 10))
        async with ClerkEmulator(settings) as emulator:
            receiver.secret = emulator.webhook_secret
            yield emulator


async def test_sign_up_edit_and_deletion_are_announced_in_clerks_form(clerk: ClerkEmulator, receiver: Receiver) -> None:
    user_id = clerk.sign_up()
    await clerk.webhooks.settle()
    clerk.edit(user_id, first_name="Zoë", external_id="ex_1")
    await clerk.webhooks.settle()
    clerk.delete(user_id)
    await clerk.webhooks.settle()
    assert receiver.types == ["user.created", "user.updated", "user.deleted"]
    for event in receiver.events:
        hold_event(event)
        assert (event["data"]["id"], event["instance_id"]) == (user_id, clerk.instance.id)
    assert receiver.events[2]["data"]["external_id"] == "ex_1"


async def test_a_deletion_over_the_api_is_announced(clerk: ClerkEmulator, receiver: Receiver) -> None:
    (user_id,) = clerk.add_users(1)
    async with calling(clerk) as caller:
        await caller.delete(f"/users/{user_id}")
    await clerk.webhooks.settle()
    assert receiver.types == ["user.deleted"]


async def test_bulk_users_and_silent_changes_are_not_announced(clerk: ClerkEmulator, receiver: Receiver) -> None:
    ids = clerk.add_users(5)
    clerk.sign_up(webhook=False)
    clerk.edit(ids[0], webhook=False, username="ada")
    clerk.delete(ids[0], webhook=False)
    assert clerk.webhooks.pending == 0
    assert receiver.events == []


async def test_an_event_of_any_type_can_be_sent_by_hand(clerk: ClerkEmulator, receiver: Receiver) -> None:
    message_id = clerk.webhooks.send("session.created", {"object": "session"})
    await clerk.webhooks.settle()
    assert receiver.types == ["session.created"]
    assert receiver.ids == [message_id]


async def test_failures_are_tried_again_under_the_same_id_until_received(
    clerk: ClerkEmulator, receiver: Receiver
) -> None:
    receiver.answers.extend(
        [
            web.Response(status=500),
            web.Response(status=404),
            web.Response(status=302, headers={"Location": "/hook"}),
        ]
    )
    clerk.sign_up()
    await clerk.webhooks.settle()
    deliveries = clerk.webhooks.deliveries
    assert [delivery.status for delivery in deliveries] == [500, 404, 302, 200]
    assert [delivery.attempt for delivery in deliveries] == [1, 2, 3, 4]
    assert [delivery.succeeded for delivery in deliveries] == [False, False, False, True]
    assert len(set(receiver.ids)) == 1


async def test_a_message_is_given_up_after_eight_attempts(clerk: ClerkEmulator, receiver: Receiver) -> None:
    receiver.answers.extend(web.Response(status=500) for _ in range(20))
    clerk.sign_up()
    await clerk.webhooks.settle()
    assert len(receiver.ids) == 8


def test_the_schedule_is_svix_documented_one() -> None:
    assert sum(RETRY_SCHEDULE, timedelta()) == timedelta(seconds=HOURS)


async def test_no_answer_in_time_is_a_failure(clerk: ClerkEmulator, receiver: Receiver) -> None:
    clerk.webhooks.settings = replace(clerk.webhooks.settings, timeout=timedelta(seconds=0.2))
    receiver.answers.append(5.0)
    clerk.sign_up()
    await clerk.webhooks.settle()
    first, *_, last = clerk.webhooks.deliveries
    assert (first.status, first.error) == (None, "timeout")
    assert last.succeeded


async def test_an_endpoint_that_is_down_is_a_failure(clerk: ClerkEmulator) -> None:
    clerk.webhooks.settings = replace(clerk.webhooks.settings, url="http://127.0.0.1:1/hook")
    clerk.sign_up()
    await clerk.webhooks.settle()
    assert [delivery.status for delivery in clerk.webhooks.deliveries] == [None] * 8


async def test_a_receiver_can_ask_for_no_more_attempts(clerk: ClerkEmulator, receiver: Receiver) -> None:
    receiver.answers.append(web.Response(status=400, headers={"webhook-delivery": "abort-message"}))
    clerk.sign_up()
    await clerk.webhooks.settle()
    assert len(receiver.ids) == 1


async def test_a_lost_message_never_arrives(clerk: ClerkEmulator, receiver: Receiver) -> None:
    clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.LOSE))
    lost = clerk.sign_up()
    found = clerk.sign_up()
    await clerk.webhooks.settle()
    assert [event["data"]["id"] for event in receiver.events] == [found]
    assert lost in clerk.users


async def test_a_repeated_message_arrives_under_one_id(clerk: ClerkEmulator, receiver: Receiver) -> None:
    clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.DUPLICATE, copies=5))
    clerk.sign_up()
    await clerk.webhooks.settle()
    assert len(receiver.ids) == 5
    assert len(set(receiver.ids)) == 1


async def test_a_late_message_is_overtaken(clerk: ClerkEmulator, receiver: Receiver) -> None:
    clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.DELAY, seconds=0.3, event_type="user.created"))
    clerk.delete(clerk.sign_up())
    await clerk.webhooks.settle()
    assert receiver.types == ["user.deleted", "user.created"]


async def test_a_reordered_message_arrives_after_the_next(clerk: ClerkEmulator, receiver: Receiver) -> None:
    clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.REORDER))
    clerk.delete(clerk.sign_up())
    await clerk.webhooks.settle()
    assert receiver.types == ["user.deleted", "user.created"]


async def test_faults_befall_the_named_type_as_often_as_told(clerk: ClerkEmulator, receiver: Receiver) -> None:
    clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.LOSE, event_type="user.deleted", times=2))
    for _ in range(3):
        clerk.delete(clerk.sign_up())
    await clerk.webhooks.settle()
    assert sorted(receiver.types) == ["user.created"] * 3 + ["user.deleted"]


async def test_clearing_the_faults_lets_waiting_messages_go(clerk: ClerkEmulator, receiver: Receiver) -> None:
    clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.REORDER, times=None))
    clerk.sign_up()
    clerk.webhooks.clear_faults()
    await clerk.webhooks.settle()
    assert receiver.types == ["user.created"]


async def test_a_replay_comes_under_the_old_id(clerk: ClerkEmulator, receiver: Receiver) -> None:
    clerk.sign_up()
    await clerk.webhooks.settle()
    (message,) = clerk.webhooks.messages
    clerk.webhooks.replay(message.id)
    await clerk.webhooks.settle()
    assert receiver.ids == [message.id, message.id]
    with pytest.raises(LookupError):
        clerk.webhooks.replay("msg_unknown")


async def test_a_forged_body_can_be_posted_as_it_is(clerk: ClerkEmulator, receiver: Receiver) -> None:
    clerk.webhooks.post(Message("msg_1", "odd", b'{"type": "odd"}'))
    await clerk.webhooks.settle()
    assert receiver.events == [{"type": "odd"}]


async def test_every_secret_verifies_while_they_rotate(clerk: ClerkEmulator, receiver: Receiver) -> None:
    new = "whsec_plJ3nmyCDGBKInavdOK15jsl"
    clerk.webhooks.settings = replace(clerk.webhooks.settings, secrets=(new, clerk.webhook_secret))
    clerk.sign_up()
    await clerk.webhooks.settle()
    receiver.secret = new
    clerk.sign_up()
    await clerk.webhooks.settle()
    assert len(receiver.events) == 2


async def test_without_an_endpoint_nothing_is_sent(clerk: ClerkEmulator) -> None:
    clerk.webhooks.settings = replace(clerk.webhooks.settings, url=None)
    clerk.sign_up()
    assert clerk.webhooks.messages == ()


async def test_stopping_gives_up_messages_under_way(clerk: ClerkEmulator, receiver: Receiver) -> None:
    clerk.webhooks.settings = replace(clerk.webhooks.settings, compression=1.0)
    receiver.answers.append(web.Response(status=500))
    clerk.sign_up()
    await until(lambda: clerk.webhooks.deliveries)
    await clerk.stop()
    assert clerk.webhooks.pending == 0
    assert len(receiver.ids) == 1


async def test_settling_ends_when_the_time_is_up(clerk: ClerkEmulator) -> None:
    clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.DELAY, seconds=60))
    clerk.sign_up()
    with pytest.raises(TimeoutError):
        await clerk.webhooks.settle(0.05)
