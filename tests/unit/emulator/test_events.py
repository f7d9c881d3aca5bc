"""Webhook events and their signatures."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from svix.webhooks import Webhook, WebhookVerificationError

from controller.emulator.events import TimestampUnit, deleted_user, encode, envelope, sign
from controller.emulator.users import Users
from tests.support.clerk_openapi import NotOfClerksForm, hold_event

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_signature_is_that_of_svix_own_test_vector() -> None:
    headers = sign(
        SECRET,
        '{"test": 2432232314}',
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        at=datetime.fromtimestamp(1614265330, tz=UTC),
    )
    assert headers == {
        "svix-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "svix-timestamp": "1614265330",
        "svix-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_signed_body_is_verified_by_svix_library() -> None:
    body = encode(envelope("user.deleted", deleted_user("user_a"), instance_id="ins_a"))
    Webhook(SECRET).verify(body, sign(SECRET, body))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", sign(SECRET, body))


def test_a_body_that_is_no_text_can_be_signed() -> None:
    at = datetime.fromtimestamp(0, tz=UTC)
    assert sign(SECRET, "é", message_id="msg_a", at=at) == sign(SECRET, "é".encode(), message_id="msg_a", at=at)
    assert sign(SECRET, b"\xff\xfe")["svix-signature"].startswith("v1,")


def test_each_of_two_secrets_verifies_while_they_rotate() -> None:
    other = "whsec_plJ3nmyCDGBKInavdOK15jsl"
    headers = sign([other, SECRET], b"{}")
    Webhook(SECRET).verify(b"{}", headers)
    Webhook(other).verify(b"{}", headers)


def test_white_labelled_headers_are_named_webhook() -> None:
    assert set(sign(SECRET, b"{}", prefix="webhook")) == {"webhook-id", "webhook-timestamp", "webhook-signature"}


@pytest.mark.parametrize(("unit", "timestamp"), [(TimestampUnit.SECONDS, 5), (TimestampUnit.MILLISECONDS, 5250)])
def test_the_timestamp_can_be_in_either_unit(unit: TimestampUnit, timestamp: int) -> None:
    at = datetime.fromtimestamp(5.25, tz=UTC)
    assert envelope("user.created", {}, instance_id="ins_a", at=at, unit=unit)["timestamp"] == timestamp


@pytest.mark.parametrize("event_type", ["user.created", "user.updated"])
def test_events_of_a_user_have_clerks_form(event_type: str) -> None:
    users = Users(seed=0, now=lambda: 0)
    user_id = users.sign_up()
    users.edit(user_id, {"phone_number": "+12025550123", "public_metadata": {"plan": "pro"}})
    data = users.describe(user_id)
    hold_event(envelope(event_type, data, instance_id="ins_a"))


@pytest.mark.parametrize("external_id", [None, "ex_1"])
def test_the_event_of_a_deletion_has_clerks_form(external_id: str | None) -> None:
    hold_event(envelope("user.deleted", deleted_user("user_a", external_id), instance_id="ins_a"))


def test_an_event_of_another_form_is_found_out() -> None:
    event = envelope("user.created", deleted_user("user_a"), instance_id="ins_a")
    with pytest.raises(NotOfClerksForm):
        hold_event(event)
    event = envelope("user.deleted", deleted_user("user_a"), instance_id="ins_a")
    with pytest.raises(NotOfClerksForm, match="instance_id"):
        hold_event({key: value for key, value in event.items() if key != "instance_id"})
