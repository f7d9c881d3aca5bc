"""Steers an emulator in another process over HTTP, under `/emulator`.

No key is asked: it listens on the loopback address only, and everything in it is made up. Used by the demo
and by tests that run programs as processes; within a process, use `ClerkEmulator` itself.
"""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from aiohttp import web

from controller.emulator.faults import Fault
from controller.emulator.users import BULK_FROM, BULK_UNTIL
from controller.emulator.webhooks import DeliveryFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.emulator.server import ClerkEmulator

_T = TypeVar("_T")


class AddUsers(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /emulator/users`: `count` in bulk without webhooks."""

    count: int
    created_from: int = BULK_FROM
    created_until: int = BULK_UNTIL


class SignUp(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /emulator/sign-ups`: one user, and the webhook."""

    id: str | None = None
    created_at: int | None = None
    webhook: bool = True


class DeleteUsers(msgspec.Struct, forbid_unknown_fields=True):
    """`DELETE /emulator/users`: these users, or the `newest`, and the webhooks."""

    ids: list[str] = []
    newest: int = 0
    webhook: bool = True


class EditUser(msgspec.Struct, forbid_unknown_fields=True):
    """`PATCH /emulator/users/{user_id}`: fields to set, and the webhook."""

    changes: dict[str, Any]
    webhook: bool = True


class Webhooks(msgspec.Struct, forbid_unknown_fields=True):
    """`PUT /emulator/webhooks`: what is not given stays as it is."""

    url: str | msgspec.UnsetType | None = msgspec.UNSET
    secrets: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    compression: float | msgspec.UnsetType = msgspec.UNSET
    timeout_seconds: float | msgspec.UnsetType = msgspec.UNSET


class SendEvent(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /emulator/webhooks/events`: an event of any type."""

    type: str
    data: dict[str, Any]


class SendExample(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /emulator/webhooks/examples`: what "Send Example" in the dashboard sends, of this instance or another."""

    type: str = "user.created"
    instance_id: str | None = None


class ControlAPI:
    """The routes under `/emulator`; a body that cannot be read answers 400, an unknown user 404."""

    def __init__(self, emulator: ClerkEmulator) -> None:
        self._emulator = emulator

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, to be added to an application."""
        return [
            web.get("/emulator", _answering(self._state)),
            web.get("/emulator/users", _answering(self._user_ids)),
            web.post("/emulator/users", _answering(self._add_users)),
            web.delete("/emulator/users", _answering(self._delete_users)),
            web.patch("/emulator/users/{user_id}", _answering(self._edit_user)),
            web.post("/emulator/sign-ups", _answering(self._sign_up)),
            web.get("/emulator/faults", _answering(self._faults)),
            web.post("/emulator/faults", _answering(self._switch_on)),
            web.delete("/emulator/faults", _answering(self._clear_faults)),
            web.delete("/emulator/faults/{number}", _answering(self._switch_off)),
            web.get("/emulator/requests", _answering(self._requests)),
            web.delete("/emulator/requests", _answering(self._reset_requests)),
            web.put("/emulator/webhooks", _answering(self._set_webhooks)),
            web.post("/emulator/webhooks/events", _answering(self._send_event)),
            web.post("/emulator/webhooks/examples", _answering(self._send_example)),
            web.post("/emulator/webhooks/faults", _answering(self._switch_on_delivery_fault)),
            web.delete("/emulator/webhooks/faults", _answering(self._clear_delivery_faults)),
            web.get("/emulator/webhooks/deliveries", _answering(self._deliveries)),
            web.post("/emulator/webhooks/replays/{message_id}", _answering(self._replay)),
        ]

    def state(self) -> dict[str, Any]:
        """Return what a program needs to know of the emulator; the first line that the process prints."""
        emulator = self._emulator
        return {
            "url": emulator.url,
            "secret_key": emulator.secret_key,
            "instance_id": emulator.instance.id,
            "environment": emulator.instance.environment.value,
            "webhook_secret": emulator.webhook_secret,
            "users": emulator.count,
        }

    async def _state(self, _request: web.Request) -> dict[str, Any]:
        return self.state()

    async def _user_ids(self, _request: web.Request) -> dict[str, Any]:
        return {"ids": list(self._emulator.users)}

    async def _add_users(self, request: web.Request) -> dict[str, Any]:
        asked = await _read(request, AddUsers)
        ids = self._emulator.add_users(asked.count, created_from=asked.created_from, created_until=asked.created_until)
        return {"ids": ids}

    async def _sign_up(self, request: web.Request) -> dict[str, Any]:
        asked = await _read(request, SignUp)
        return {"id": self._emulator.sign_up(asked.id, created_at=asked.created_at, webhook=asked.webhook)}

    async def _edit_user(self, request: web.Request) -> dict[str, Any]:
        asked = await _read(request, EditUser)
        user_id = request.match_info["user_id"]
        self._emulator.edit(user_id, webhook=asked.webhook, **asked.changes)
        return {"id": user_id}

    async def _delete_users(self, request: web.Request) -> dict[str, Any]:
        asked = await _read(request, DeleteUsers)
        newest = list(self._emulator.users)[-asked.newest :] if asked.newest else []
        return {"ids": self._emulator.delete_many([*asked.ids, *newest], webhook=asked.webhook)}

    async def _faults(self, _request: web.Request) -> dict[str, Any]:
        return {"faults": {str(number): asdict(fault) for number, fault in self._emulator.faults.on.items()}}

    async def _switch_on(self, request: web.Request) -> dict[str, Any]:
        return {"number": self._emulator.faults.switch_on(await _read(request, Fault))}

    async def _switch_off(self, request: web.Request) -> dict[str, Any]:
        self._emulator.faults.switch_off(int(request.match_info["number"]))
        return {}

    async def _clear_faults(self, _request: web.Request) -> dict[str, Any]:
        self._emulator.faults.clear()
        return {}

    async def _requests(self, _request: web.Request) -> dict[str, Any]:
        requests = self._emulator.requests
        return {"total": requests.total, "peak": requests.peak, "by_endpoint": dict(requests.by_endpoint)}

    async def _reset_requests(self, _request: web.Request) -> dict[str, Any]:
        self._emulator.requests.reset()
        return {}

    async def _set_webhooks(self, request: web.Request) -> dict[str, Any]:
        asked = await _read(request, Webhooks)
        given = {
            name: value
            for name in ("url", "secrets", "compression")
            if (value := getattr(asked, name)) is not msgspec.UNSET
        }
        if asked.timeout_seconds is not msgspec.UNSET:
            given["timeout"] = timedelta(seconds=asked.timeout_seconds)
        self._emulator.webhooks.settings = replace(self._emulator.webhooks.settings, **given)
        return {}

    async def _send_event(self, request: web.Request) -> dict[str, Any]:
        asked = await _read(request, SendEvent)
        return {"message_id": self._emulator.webhooks.send(asked.type, asked.data)}

    async def _send_example(self, request: web.Request) -> dict[str, Any]:
        asked = await _read(request, SendExample)
        return {"message_id": self._emulator.webhooks.send_example(asked.type, instance_id=asked.instance_id)}

    async def _switch_on_delivery_fault(self, request: web.Request) -> dict[str, Any]:
        self._emulator.webhooks.switch_on(await _read(request, DeliveryFault))
        return {}

    async def _clear_delivery_faults(self, _request: web.Request) -> dict[str, Any]:
        self._emulator.webhooks.clear_faults()
        return {}

    async def _deliveries(self, _request: web.Request) -> dict[str, Any]:
        webhooks = self._emulator.webhooks
        return {"pending": webhooks.pending, "deliveries": [asdict(each) for each in webhooks.deliveries]}

    async def _replay(self, request: web.Request) -> dict[str, Any]:
        self._emulator.webhooks.replay(request.match_info["message_id"])
        return {}


async def _read(request: web.Request, kind: type[_T]) -> _T:
    content = msgspec.json.decode(await request.read() or b"{}")
    # msgspec passes over what a dataclass does not have: a misspelt parameter would make another fault.
    known = {each.name for each in fields(kind)} if is_dataclass(kind) else set(content)
    if unknown := set(content) - known:
        message = f"unknown: {', '.join(sorted(unknown))}"
        raise ValueError(message)
    return msgspec.convert(content, kind)


def _answering(
    answer: Callable[[web.Request], Awaitable[dict[str, Any]]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            status, content = 200, await answer(request)
        except LookupError as unknown:
            status, content = 404, {"error": f"unknown: {unknown}"}
        except (msgspec.DecodeError, ValueError) as wrong:
            status, content = 400, {"error": str(wrong)}
        return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")

    return handle
