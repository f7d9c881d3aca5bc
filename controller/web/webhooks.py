"""One request: read, verified, absorbed, answered.

Decides the answer, and that 200 comes only after the effect or the durable intent is committed. Who asks for what is
not decided here: that is `core.absorbing`. Writes no body and no user id to the log. Used by `app`.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from controller.core.absorbing import absorb
from controller.core.events import Delivery
from controller.core.outcomes import Absorbed
from controller.errors import TransientError, UserSyncError
from controller.web.events import read_event
from controller.web.refusals import RefusalKind, Refused

if TYPE_CHECKING:
    from controller.core.events import Event
    from controller.web.endpoints import Endpoint, Opened
    from controller.web.metrics import Metrics
    from controller.web.resources import Resources

log = structlog.get_logger(__name__)

BODY_BYTES_MAX = 1 << 20
"""Clerk's largest events, of users with much metadata, are some tens of kB."""
RETRY_AFTER_SECONDS = 5
ACTS = {"user.created": "creating", "user.deleted": "deleting"}
"""How the log calls the events that ask for something; `result` says what they came to."""
_INSTANCE = re.compile(r"ins_[A-Za-z0-9]{1,64}", re.ASCII)
CLAIMING = {Absorbed.CLAIMED, Absorbed.DOUBTED, Absorbed.RECORDED}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one process puts up with. Svix takes 15 s as the end of an attempt, so we answer before.

    `head_seconds`: until a connection has sent the headers of its first request, and as long it may be idle after
    each; a little more than proxies keep a connection, which else might send on one that we have just closed.
    """

    at_once: int = 200
    head_seconds: float = 75.0
    body_seconds: float = 10.0
    answer_seconds: float = 13.0


@dataclass(slots=True)
class Webhooks:
    """The handlers of the two paths."""

    resources: Resources
    metrics: Metrics
    bounds: Bounds = field(default_factory=Bounds)
    _under_way: int = field(default=0, init=False)
    _log: structlog.stdlib.BoundLogger = field(default_factory=log.bind, init=False)
    """Bound once: the module's would be made anew for each line."""

    def routes(self) -> list[web.RouteDef]:
        """Return the paths that are served, and a plain refusal of all others."""
        named, short = "/api/webhooks/clerk/{namespace}/{name}", "/api/webhooks/clerk"
        return [
            web.post(named, self._by_name, expect_handler=_expect),
            web.post(short, self._by_short_path, expect_handler=_expect),
            web.route("*", named, _refuse_method, expect_handler=_expect),
            web.route("*", short, _refuse_method, expect_handler=_expect),
            web.route("*", "/{rest:.*}", _refuse_path, expect_handler=_expect),
        ]

    async def _by_name(self, request: web.Request) -> web.Response:
        name = f"{request.match_info['namespace']}/{request.match_info['name']}"
        unknown = "There is no resource of this name with a webhook secret here."
        return await self._answer(request, self.resources.find(name), unknown)

    async def _by_short_path(self, request: web.Request) -> web.Response:
        unknown = (
            "This path serves where there is exactly one resource; send to /api/webhooks/clerk/{namespace}/{name}."
        )
        return await self._answer(request, self.resources.only(), unknown)

    async def _answer(self, request: web.Request, endpoint: Endpoint | None, unknown: str) -> web.Response:
        """Turn whatever happens into an answer."""
        began = time.perf_counter()
        resource = endpoint.spec.name if endpoint else None
        try:
            async with asyncio.timeout(self.bounds.answer_seconds):
                if endpoint is None:
                    raise Refused(RefusalKind.UNKNOWN_RESOURCE, unknown)  # noqa: TRY301 - answered like all others
                result = await self._receive(request, endpoint)
            response = _respond(HTTPStatus.OK, result=result.value)
        except Refused as refused:
            self.metrics.count_refusal(refused.kind.value)
            log.info("refused", resource=resource, kind=refused.kind.value)
            response = _refusal(refused)
        except UserSyncError as error:
            response = self._failure(resource, error)
        except TimeoutError:
            response = self._failure(resource, TransientError("It took too long."))
        except Exception:
            log.exception("request_failed", resource=resource)
            self.metrics.count_failure("Fault")
            response = _respond(HTTPStatus.INTERNAL_SERVER_ERROR, error="fault")
        self.metrics.observe_duration(response.status, time.perf_counter() - began)
        return response

    async def _receive(self, request: web.Request, endpoint: Endpoint) -> Absorbed:
        if self._under_way >= self.bounds.at_once:
            raise Refused(RefusalKind.BUSY, "Too many requests at once; send it again.")
        self._under_way += 1
        try:
            body = await _read_body(request, self.bounds.body_seconds)
            message_id = await endpoint.verify(request.headers, body)
            event = read_event(body, endpoint.spec.target.mapping)
            delivery = Delivery(message_id, event.type)
            async with endpoint.borrow() as opened:
                self._check_instance(event, delivery, endpoint, opened)
                result = await absorb(event, delivery, endpoint.spec, opened.served.inbox)
        finally:
            self._under_way -= 1
        if result in CLAIMING:
            endpoint.wake()
        self.metrics.count_event(event.type, result.value)
        self._log.info(
            ACTS.get(event.type, "absorbed"),
            resource=endpoint.spec.name,
            message=message_id,
            type=event.type,
            result=result.value,
        )
        self._log.debug("absorbed_for_user", message=message_id, user_id=event.user_id)
        return result

    def _check_instance(self, event: Event, delivery: Delivery, endpoint: Endpoint, opened: Opened) -> None:
        if event.instance_id == opened.instance_id:
            return
        log.warning(
            "event_of_another_instance",
            resource=endpoint.spec.name,
            message=delivery.message_id,
            instance=opened.instance_id,
            # whoever holds the secret could write a megabyte to the log
            event_instance=event.instance_id if _INSTANCE.fullmatch(event.instance_id) else "malformed",
        )
        self.metrics.count_event(event.type, RefusalKind.WRONG_INSTANCE.value)
        message = "The event is of another Clerk instance than the one that this resource is kept in step with."
        raise Refused(RefusalKind.WRONG_INSTANCE, message)

    def _failure(self, resource: str | None, error: UserSyncError) -> web.Response:
        """503, so that Svix sends it again, and nobody takes an outage for a bad signature."""
        self.metrics.count_failure(error.reason)
        log.warning("not_absorbed", resource=resource, reason=error.reason, error=str(error))
        seconds: float = RETRY_AFTER_SECONDS
        if isinstance(error, TransientError) and error.retry_after is not None:
            seconds = max(seconds, error.retry_after.total_seconds())
        # the reason's word alone: the message may name hosts, which is for the log and not for strangers
        return _respond(HTTPStatus.SERVICE_UNAVAILABLE, retry_after=math.ceil(seconds), error=error.reason)


async def _expect(request: web.Request) -> None:
    """Ask for the body where the client waits for that.

    aiohttp's own handler quotes the header in its refusal, and ends in a 500 where the header is not text.
    """
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="Only 100-continue can be expected.")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # the answer itself has not begun
    request.writer.output_size = 0


async def _refuse_method(request: web.Request) -> web.Response:
    raise web.HTTPMethodNotAllowed(request.method, ["POST"])


async def _refuse_path(_: web.Request) -> web.Response:
    raise web.HTTPNotFound


async def _read_body(request: web.Request, seconds: float) -> bytes:
    """Read the raw bytes, as many as may be, as long as may be."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        message = "Send the body as it was signed, without a Content-Encoding."
        raise Refused(RefusalKind.ENCODED, message)
    message = f"The body is larger than {BODY_BYTES_MAX} bytes."
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise Refused(RefusalKind.TOO_LARGE, message)
    try:
        if request.content.is_eof():
            # it came with its headers: no timer
            return await request.read()
        async with asyncio.timeout(seconds):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Refused(RefusalKind.TOO_LARGE, message) from error
    except TimeoutError as error:
        message = f"The body took more than {seconds:g} s."
        raise Refused(RefusalKind.TOO_SLOW, message) from error
    except web.RequestPayloadError as error:
        message = "The body does not come as its headers say."
        raise Refused(RefusalKind.MALFORMED_BODY, message) from error


def _refusal(refused: Refused) -> web.Response:
    retry_after = RETRY_AFTER_SECONDS if refused.kind is RefusalKind.BUSY else None
    response = _respond(refused.status, retry_after=retry_after, error=refused.kind.value, message=str(refused))
    if refused.kind in {RefusalKind.TOO_SLOW, RefusalKind.TOO_LARGE, RefusalKind.BUSY}:
        # what is left of the body would be read before the next request
        response.force_close()
    return response


def _respond(status: HTTPStatus, *, retry_after: int | None = None, **content: str) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.Response(
        status=status, body=json.dumps(content).encode(), content_type="application/json", headers=headers
    )
