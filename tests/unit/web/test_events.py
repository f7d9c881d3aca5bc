"""Which bodies are events, and whom they name."""

from __future__ import annotations

import json

import pytest

from controller.web.events import read_event
from controller.web.refusals import RefusalKind, Refused


def body(**content: object) -> bytes:
    return json.dumps({"type": "user.created", "instance_id": "ins_1", "data": {"id": "user_2abc"}} | content).encode()


def test_type_instance_and_user_are_read() -> None:
    event = read_event(body(unknown={"of": "ours"}))
    assert (event.type, event.instance_id, event.user_id) == ("user.created", "ins_1", "user_2abc")


@pytest.mark.parametrize("user_id", [None, "", "system", "user_", "user_a b", "user_2abc\n"])
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
