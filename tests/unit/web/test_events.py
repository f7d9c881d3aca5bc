"""Which bodies are events, and whom they name."""

from __future__ import annotations

import json

import pytest

from controller.core.mapping import Constant, Field, MappedColumn
from controller.core.users import Profile, UserId
from controller.web.events import read_event
from controller.web.refusals import RefusalKind, Refused


def body(**content: object) -> bytes:
    return json.dumps({"type": "user.created", "instance_id": "ins_1", "data": {"id": "user_2abc"}} | content).encode()


def test_type_instance_and_user_are_read() -> None:
    event = read_event(body(unknown={"of": "ours"}))
    assert (event.type, event.instance_id, event.user_id) == ("user.created", "ins_1", "user_2abc")


@pytest.mark.parametrize("user_id", [None, "", "system", "user_", "user_a b", "user_2abc\n", "user_" + "a" * 300])
def test_an_id_that_is_not_of_clerks_form_names_nobody(user_id: str | None) -> None:
    assert read_event(body(data={"id": user_id})).user_id is None


def test_a_deletion_without_an_id_names_nobody() -> None:
    assert read_event(body(type="user.deleted", data={"object": "user", "deleted": True})).user_id is None


@pytest.mark.parametrize("data", [None, [], "user_2abc", {"id": 5}])
def test_data_of_another_type_is_not_looked_at(data: object) -> None:
    assert read_event(body(type="email.created", data=data)).user_id is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"{",
        b"{}",
        b'{"type": "user.created"}',
        b'{"type": "' + b"x" * 101 + b'", "instance_id": "ins_1", "data": {}}',
        b'{"type": 5, "instance_id": "ins_1", "data": {}}',
        b'{"type": "user.created", "instance_id": null, "data": {}}',
        b'{"type": "user.created", "instance_id": "ins_1"}',
        b'{"type": "user.created", "instance_id": "ins_1", "data": []}',
        b'{"type": "user.created", "instance_id": "ins_1", "data": {"id": 5}}',
        b'{"type": "user.created", "instance_id": "ins_1", "data": {"id": "user_1"}} trailing',
        b'{"type": "\xff", "instance_id": "ins_1", "data": {}}',
        b'{"x": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"type": "user.x", "instance_id": "i", "data": ' + b"[" * 400_000 + b"]" * 400_000 + b"}",
    ],
    ids=lambda content: content[:40],
)
def test_what_is_no_event_is_refused_as_malformed(content: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read_event(content)
    assert caught.value.kind is RefusalKind.MALFORMED_BODY


MAPPING = (MappedColumn("email", Field(("primaryEmailAddress",))), MappedColumn("kind", Constant("human")))
EMAIL = {"id": "idn_1", "email_address": "ada@example.com"}
DESCRIBED = {
    "object": "user", "id": "user_2abc", "created_at": 1, "updated_at": 2, "primary_email_address_id": "idn_1",
    "email_addresses": [EMAIL],
}  # fmt: skip


@pytest.mark.parametrize("event_type", ["user.created", "user.updated"])
def test_what_is_mapped_is_read_from_the_description_of_the_user(event_type: str) -> None:
    event = read_event(body(type=event_type, data=DESCRIBED), MAPPING)
    assert event.profile == Profile(UserId("user_2abc"), 2, ("ada@example.com", "human"))


@pytest.mark.parametrize("event_type", ["user.deleted", "session.created"])
def test_other_events_describe_no_user(event_type: str) -> None:
    assert read_event(body(type=event_type, data=DESCRIBED), MAPPING).profile is None


@pytest.mark.parametrize("odd", [{"updated_at": None}, {"updated_at": -1}, {"email_addresses": 5}, {"id": "system"}])
def test_what_does_not_describe_a_user_as_clerk_does_is_left_out(odd: dict[str, object]) -> None:
    assert read_event(body(data=DESCRIBED | odd), MAPPING).profile is None


def test_without_a_mapping_nothing_more_is_read() -> None:
    assert read_event(body(data=DESCRIBED)).profile is None
