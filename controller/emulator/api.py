"""Clerk's Backend API over HTTP: authentication, limits, faults, and then the answer.

Every request takes the same way: it is counted, checked against the key, the version and the rate limit,
then against the faults that are switched on. Knows nothing of webhooks.
"""

from __future__ import annotations

import asyncio
import gzip
import secrets
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import hdrs, web

from controller.emulator.faults import Endpoint, Fault, FaultName, alter_page, hidden_users
from controller.emulator.queries import VERSION_PARAMETER, read_query
from controller.emulator.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.core.users import Instance
    from controller.emulator.faults import Faults
    from controller.emulator.limits import RateLimiter, RequestCounter
    from controller.emulator.sessions import Sessions
    from controller.emulator.users import UserQuery, Users

VERSION_HEADER = "Clerk-API-Version"
VERSIONS = frozenset(
    {"2021-02-05", "2024-10-01", "2025-03-12", "2025-04-10", "2025-11-10", "2026-05-12"},
)
"""Clerk's documentation, "API versions"."""

HTML = "<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>We will be back soon</h1></body></html>"
OTHER_INSTANCE_ID = "ins_2OtherInstanceThanTheRight1"
ODD_ID = "usr_0b9f3a52"
OTHER_USER_ID = "user_2ThisIsSomebodyElse000000000"

_WORTH_COMPRESSING = 1024


@dataclass(frozen=True, slots=True)
class Account:
    """What the API knows of the instance it answers for."""

    instance: Instance
    secret_key: str
    users: Users
    deleted_cursor_works: bool
    """Clerk does not say what a cursor at a user deleted meanwhile does: go on, or answer 422."""
    delete_user: Callable[[str], object]
    """Ends a living user and announces it."""
    sessions: Sessions


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way: what it asks, whom it names, and what befell it."""

    request: web.Request
    endpoint: Endpoint
    user_id: str | None
    named: tuple[str, ...]
    faults: tuple[Fault, ...] = ()


class BackendAPI:
    """The routes under `/v1`."""

    def __init__(self, account: Account, faults: Faults, limiter: RateLimiter, counter: RequestCounter) -> None:
        """All four are shared with whoever steers the emulator."""
        self._account = account
        self._faults = faults
        self._limiter = limiter
        self._counter = counter

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, to be added to an application."""
        return [
            web.get("/v1/users", self._endpoint(self._list)),
            web.get("/v1/users/count", self._endpoint(self._count)),
            web.get("/v1/users/{user_id}", self._endpoint(self._look_up)),
            web.delete("/v1/users/{user_id}", self._endpoint(self._delete)),
            web.get("/v1/instance", self._endpoint(self._instance)),
            web.get("/v1/jwks", self._endpoint(self._jwks)),
        ]

    def _endpoint(self, answer: Callable[[Call], Any]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = _read_call(request)
            self._counter.count(call.endpoint, asyncio.get_running_loop().time())
            try:
                self._admit(call)
                met = self._faults.meet(call.endpoint, call.named)
                return await self._carry_out(
                    Call(call.request, call.endpoint, call.user_id, call.named, tuple(met)), answer
                )
            except Refusal as refusal:
                return _refuse(refusal)

        return handle

    def _admit(self, call: Call) -> None:
        request = call.request
        scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme != "Bearer" or not secrets.compare_digest(key.encode(), self._account.secret_key.encode()):
            raise Refusal.unauthorized(header_given=scheme == "Bearer")
        versions = [*request.headers.getall(VERSION_HEADER, ()), *request.query.getall(VERSION_PARAMETER, ())]
        if len(versions) > 1 or not VERSIONS.issuperset(versions):
            raise Refusal.bad_version()
        if call.endpoint is Endpoint.JWKS:
            return
        wait = self._limiter.admit(call.endpoint, asyncio.get_running_loop().time())
        if wait is not None:
            raise Refusal.too_many_requests(wait)

    async def _carry_out(self, call: Call, answer: Callable[[Call], Any]) -> web.StreamResponse:
        for fault in call.faults:
            await _before(fault, call.request)
        names = {fault.name for fault in call.faults}
        if FaultName.HTML_PAGE in names:
            return web.Response(text=HTML, content_type="text/html")
        if FaultName.HTML_404 in names:
            return web.Response(status=404, text=HTML, content_type="text/html")
        content = _alter_content(names, answer(call))
        if FaultName.UNANSWERED in names:
            await asyncio.get_running_loop().create_future()
        body = msgspec.json.encode(content)
        if FaultName.GARBAGE_GZIP in names:
            headers = {hdrs.CONTENT_ENCODING: "gzip"}
            return web.Response(body=body, content_type="application/json", headers=headers)
        if FaultName.TRUNCATED_BODY in names:
            return await _truncated(call.request, body)
        return await _json(call.request, body)

    def _list(self, call: Call) -> list[dict[str, Any]]:
        users = self._account.users
        query = read_query(call.request.query)
        self._refuse_unknown_cursor(query)
        ids = alter_page(call.faults, users.page(query, hidden_users(call.faults)), query)
        # A user who is named twice or was hidden still lives; a cursor may be of a user who is gone.
        page = [users.describe(user_id) for user_id in ids if user_id in users]
        if page and any(fault.name is FaultName.ODD_ID for fault in call.faults):
            page[0]["id"] = ODD_ID
        return page

    def _refuse_unknown_cursor(self, query: UserQuery) -> None:
        cursor = query.starting_after
        works = self._account.deleted_cursor_works
        if cursor is not None and not self._account.users.cursor_known(cursor, gone_too=works):
            raise Refusal.bad_parameter(name="starting_after", demand="must be the id of a user")

    def _count(self, call: Call) -> dict[str, Any]:
        query = read_query(call.request.query, counting=True)
        total = self._account.users.count(query, hidden_users(call.faults))
        return {"object": "total_count", "total_count": total}

    def _look_up(self, call: Call) -> dict[str, Any]:
        user_id = call.named[0]
        if user_id not in self._account.users or user_id in hidden_users(call.faults):
            raise Refusal.user_not_found(user_id)
        return self._account.users.describe(user_id)

    def _delete(self, call: Call) -> dict[str, Any]:
        user_id = call.named[0]
        if user_id not in self._account.users:
            raise Refusal.user_not_found(user_id)
        self._account.delete_user(user_id)
        return {"object": "user", "id": user_id, "deleted": True}

    def _instance(self, _call: Call) -> dict[str, Any]:
        instance = self._account.instance
        return {
            "object": "instance",
            "id": instance.id,
            "environment_type": instance.environment.value,
            "allowed_origins": None,
            "workspace_id": None,
        }

    def _jwks(self, _call: Call) -> dict[str, Any]:
        return self._account.sessions.key_set()


def _read_call(request: web.Request) -> Call:
    user_id = request.match_info.get("user_id")
    path = request.path
    if path == "/v1/users":
        named = tuple(text.lstrip("+-") for text in request.query.getall("user_id", ()))
        return Call(request, Endpoint.FILTER if named else Endpoint.LIST, None, named)
    if user_id is not None:
        endpoint = Endpoint.DELETE if request.method == hdrs.METH_DELETE else Endpoint.LOOKUP
        return Call(request, endpoint, user_id, (user_id,))
    endpoint = Endpoint(path.rsplit("/", 1)[1])
    return Call(request, endpoint, None, ())


async def _before(fault: Fault, request: web.Request) -> None:
    """Do what a fault does before there is an answer.

    Raises:
        Refusal: the fault is an answer of its own.
    """
    match fault.name:
        case FaultName.SLOW:
            await asyncio.sleep(fault.seconds or 0)
        case FaultName.TIMEOUT:
            # Ends when the client hangs up or the emulator stops: both cancel the handler.
            await asyncio.get_running_loop().create_future()
        case FaultName.RESET:
            _reset(request)
        case FaultName.SERVER_ERROR:
            raise Refusal(500, "internal_clerk_error", "There was an internal error on our servers.")
        case FaultName.FORBIDDEN:
            raise Refusal(403, "authorization_invalid", "You are not authorized to perform this request")
        case FaultName.UNPROCESSABLE:
            raise Refusal(422, "user_cannot_be_deleted", "The user cannot be deleted.")
        case FaultName.RATE_LIMITED:
            raise Refusal.too_many_requests(fault.seconds)
        case FaultName.OTHER_404:
            raise Refusal(404, "instance_not_found", "not found", long_message="No instance was found.")
        case _:
            return


def _reset(request: web.Request) -> None:
    transport = request.transport
    if transport is None:
        return
    # Without lingering, closing sends RST and not FIN, which a client could take for an empty answer.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _alter_content(names: set[FaultName], content: Any) -> Any:
    if FaultName.EMPTY_OBJECT in names:
        return {}
    if FaultName.OTHER_INSTANCE in names:
        content = {**content, "id": OTHER_INSTANCE_ID}
    if FaultName.OTHER_USER in names:
        content = {**content, "id": OTHER_USER_ID}
    return [content] if FaultName.LIST_INSTEAD in names else content


async def _truncated(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = "application/json"
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _json(request: web.Request, body: bytes) -> web.Response:
    response = web.Response(body=body, content_type="application/json")
    if len(body) >= _WORTH_COMPRESSING and "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
        response.body = await asyncio.to_thread(gzip.compress, body, 1)
        response.headers[hdrs.CONTENT_ENCODING] = "gzip"
        response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    return response


def _refuse(refusal: Refusal) -> web.Response:
    body = msgspec.json.encode(refusal.body(secrets.token_hex(16)))
    response = web.Response(body=body, status=refusal.status, content_type="application/json")
    if refusal.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = refusal.retry_after
    return response
