"""A user deletes his own account: asked by his front-end, with his session token.

Decides who is let in (`sessions` says what a token proves; an Origin that is no authorized party is refused, and a
cookie counts only with one), and what is answered: 200 when all is gone, 202 when the intent is stored and the rest
follows. The work is the worker's, whichever way the request ends. The body is never read, a token never looked for in
the query. Writes no user id to the log. Used by `app`.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import hdrs, web

from controller.core.outcomes import Settled
from controller.errors import ClerkUnavailable, TransientError, UserSyncError
from controller.web.rates import Rates
from controller.web.refusals import RefusalKind, Refused
from controller.web.sessions import NotReverified, instance_of, minutes_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controller.core.claims import Claim
    from controller.core.ports import Inbox
    from controller.core.receipts import Receipt
    from controller.core.targets import AccountDeletion as AccountDeletionTerms
    from controller.core.targets import Spec
    from controller.core.users import UserId
    from controller.web.endpoints import Endpoint, Opened
    from controller.web.metrics import Metrics
    from controller.web.resources import Resources
    from controller.web.sessions import Session

log = structlog.get_logger(__name__)

PATH: Final = "/api/user/delete"
METHODS: Final = (hdrs.METH_DELETE, hdrs.METH_POST)
COOKIE: Final = "__session"
BODY_BYTES_MAX: Final = 64 * 1024
"""Of a body that nobody reads; more than that is no front-end's."""
RETRY_AFTER_SECONDS: Final = 5
PREFLIGHT_SECONDS: Final = 600
LEASE: Final = timedelta(seconds=30)
"""For so long the process that stored a request settles it; if it is killed, any worker does then."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one process puts up with; `patience`: how long a user waits for all to be gone before he hears 202."""

    at_once: int = 50
    patience_seconds: float = 0.5
    answer_seconds: float = 13.0


@dataclass(frozen=True, slots=True)
class Credential:
    """A token, and whether the browser sent it by itself."""

    token: str = field(repr=False)
    from_cookie: bool


@dataclass(slots=True)
class AccountDeletion:
    """The handler of the one path; without a resource that permits it, there is no such path."""

    resources: Resources
    metrics: Metrics
    bounds: Bounds = field(default_factory=Bounds)
    rates: Rates = field(default_factory=Rates)
    _under_way: int = field(default=0, init=False)

    def routes(self) -> list[web.RouteDef]:
        """Return the path."""
        return [web.route("*", PATH, self._handle, expect_handler=_expect_nothing)]

    async def _handle(self, request: web.Request) -> web.Response:
        endpoints = self.resources.ending_accounts()
        if not endpoints:
            raise web.HTTPNotFound
        began = time.perf_counter()
        origin = _permitted_origin(request, endpoints)
        if request.method == hdrs.METH_OPTIONS:
            response = _preflight(origin)
        elif request.method in METHODS:
            response = await self._answer(request, endpoints)
            self.metrics.observe_duration(response.status, time.perf_counter() - began)
        else:
            raise web.HTTPMethodNotAllowed(request.method, [*METHODS, hdrs.METH_OPTIONS])
        response.headers[hdrs.CACHE_CONTROL] = "no-store"
        response.headers[hdrs.VARY] = hdrs.ORIGIN
        if origin is not None:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = hdrs.RETRY_AFTER
        return response

    async def _answer(self, request: web.Request, endpoints: Sequence[Endpoint]) -> web.Response:
        """Turn whatever happens into an answer."""
        try:
            async with asyncio.timeout(self.bounds.answer_seconds):
                return await self._receive(request, endpoints)
        except Refused as refused:
            self.metrics.count_refusal(refused.kind.value)
            log.info("account_deletion_not_admitted", kind=refused.kind.value)
            return _refusal(refused)
        except UserSyncError as error:
            return self._failure(error)
        except TimeoutError:
            return self._failure(TransientError("It took too long."))
        except Exception:
            log.exception("account_deletion_failed")
            self.metrics.count_failure("Fault")
            return _respond(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "fault"})

    async def _receive(self, request: web.Request, endpoints: Sequence[Endpoint]) -> web.Response:
        if self._under_way >= self.bounds.at_once:
            raise Refused(RefusalKind.BUSY, "Too many requests at once; send it again.")
        self._under_way += 1
        try:
            if (request.content_length or 0) > BODY_BYTES_MAX:
                raise Refused(RefusalKind.TOO_LARGE, f"The body is larger than {BODY_BYTES_MAX} bytes; send none.")
            credential = _read_credential(request)
            instance_id = instance_of(credential.token)
            endpoint = _endpoint_of(instance_id, endpoints)
            async with endpoint.borrow() as opened:
                if opened.instance_id != instance_id:
                    raise _unknown_instance()
                session = await opened.signing_keys.read(credential.token, endpoint.spec.account_deletion)
                _check_origin(request, credential, session, endpoint.spec.account_deletion)
                self._count(instance_id, session.user_id)
                result, response = await self._delete(endpoint, opened, session.user_id)
        finally:
            self._under_way -= 1
        self.metrics.count_account_deletion(result)
        log.info("account_deletion", resource=endpoint.spec.name, result=result)
        log.debug("account_deletion_of_user", resource=endpoint.spec.name, user_id=session.user_id)
        return response

    def _count(self, instance_id: str, user_id: UserId) -> None:
        wait = self.rates.take((instance_id, user_id), asyncio.get_running_loop().time())
        if wait:
            raise TooOften(wait)

    async def _delete(self, endpoint: Endpoint, opened: Opened, user_id: UserId) -> tuple[str, web.Response]:
        """Store the intent, wait a moment for it to be carried out, and say how far it is."""
        spec, inbox = endpoint.spec, opened.served.inbox
        if spec.dry_run:
            message = "Nothing was deleted, here or in Clerk, and nothing will be: spec.dryRun is set."
            return "dry_run", _respond(HTTPStatus.CONFLICT, {"status": "not_deleted", "message": message})
        claim = await inbox.request_removal(user_id, LEASE)
        receipt: Receipt | None = None
        # from here on the request is stored: an outage lets it take longer, and no more
        with suppress(UserSyncError):
            if claim is not None and await self._settle(endpoint, inbox, claim) is Settled.REFUSED:
                message = "Nothing was deleted: Clerk refuses to delete this user. The log of usersync says why."
                return "refused", _respond(HTTPStatus.BAD_GATEWAY, {"status": "not_deleted", "message": message})
            receipt = await inbox.receipt_of_request(user_id)
        if receipt is None:
            return "pending", _pending(suspended=spec.suspend)
        return "deleted" if claim else "deleted_before", _respond(HTTPStatus.OK, _deleted(receipt, spec))

    async def _settle(self, endpoint: Endpoint, inbox: Inbox, claim: Claim) -> Settled | None:
        """Wait a moment for the worker; None if it is still at it, or does it later."""
        settling = endpoint.settle_now(claim)
        if settling is None:
            await inbox.go_on_later(claim)
            endpoint.wake()
            return None
        done, _ = await asyncio.wait({settling}, timeout=self.bounds.patience_seconds)
        return settling.result() if done and not settling.cancelled() else None

    def _failure(self, error: UserSyncError) -> web.Response:
        """503: the same request may be made again."""
        self.metrics.count_failure(error.reason)
        log.warning("account_deletion_not_stored", reason=error.reason, error=str(error))
        seconds: float = RETRY_AFTER_SECONDS
        if isinstance(error, TransientError) and error.retry_after is not None:
            seconds = max(seconds, error.retry_after.total_seconds())
        # the reason's word alone: the message may name hosts, which is for the log and not for strangers
        content = {"error": error.reason, "message": "The request could not be taken now; ask again."}
        return _respond(HTTPStatus.SERVICE_UNAVAILABLE, content, retry_after=seconds)


class TooOften(Refused):
    """The user asks too often."""

    def __init__(self, wait: float) -> None:
        """`wait`: seconds until he may ask again."""
        super().__init__(RefusalKind.RATE, "This user asks too often; wait a moment.")
        self.wait = wait


async def _expect_nothing(_: web.Request) -> None:
    """Let a client that waits before it sends its body have the answer instead."""


def _permitted_origin(request: web.Request, endpoints: Sequence[Endpoint]) -> str | None:
    """Return the Origin if it is an authorized party of any resource: before a token is read, nobody knows of which."""
    origins = request.headers.getall(hdrs.ORIGIN, [])
    if len(origins) != 1:
        return None
    permitted = any(origins[0] in endpoint.spec.account_deletion.authorized_parties for endpoint in endpoints)
    return origins[0] if permitted else None


def _preflight(origin: str | None) -> web.Response:
    if origin is None:
        return _refusal(Refused(RefusalKind.ORIGIN, "This page may not ask here."))
    return web.Response(
        status=HTTPStatus.NO_CONTENT,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(METHODS),
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: f"{hdrs.AUTHORIZATION}, {hdrs.CONTENT_TYPE}",
            hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_SECONDS),
        },
    )


def _read_credential(request: web.Request) -> Credential:
    """Take the token of the header, or where there is no such header, that of the cookie.

    Raises:
        Refused: there is none, or more than one.
    """
    headers = request.headers.getall(hdrs.AUTHORIZATION, [])
    if headers:
        scheme, _, token = headers[0].partition(" ")
        # of two, a proxy before us may have looked at the other
        if len(headers) > 1 or scheme.lower() != "bearer" or not token.strip():
            raise Refused(RefusalKind.NO_SESSION, "The header Authorization is not one Bearer token.")
        return Credential(token.strip(), from_cookie=False)
    token = request.cookies.get(COOKIE, "")
    if not token:
        message = f"Send Clerk's session token, as Authorization: Bearer or in the cookie {COOKIE}."
        raise Refused(RefusalKind.NO_SESSION, message)
    return Credential(token, from_cookie=True)


def _endpoint_of(instance_id: str, endpoints: Sequence[Endpoint]) -> Endpoint:
    """Return the resource of an instance; an instance that none is of costs no question to anybody.

    Raises:
        Refused: there is none, or more than one.
        ClerkUnavailable: there may be one, which has not been opened yet.
    """
    named = [endpoint for endpoint in endpoints if endpoint.instance_id == instance_id]
    # who merely names somebody's instance, without a key of it, must not take this way from its users
    found = [endpoint for endpoint in named if endpoint.was_open] or named
    if len(found) > 1:
        log.warning("account_deletion_ambiguous", resources=[endpoint.spec.name for endpoint in found])
        message = (
            "More than one UserSync of this instance has spec.accountDeletion.enabled; leave it enabled in one of them."
        )
        raise Refused(RefusalKind.AMBIGUOUS, message)
    if found:
        return found[0]
    if any(endpoint.instance_id is None for endpoint in endpoints):
        message = "Not all resources are open yet, so it is not known which instances are served."
        raise ClerkUnavailable(message)
    raise _unknown_instance()


def _unknown_instance() -> Refused:
    return Refused(RefusalKind.NOT_A_SESSION, "The token is of no Clerk instance that is served here.")


def _check_origin(request: web.Request, credential: Credential, session: Session, terms: AccountDeletionTerms) -> None:
    """Refuse what another page may have made the browser send.

    Raises:
        Refused: an Origin is none of the authorized parties; or with a cookie, not the one of the token.
    """
    origins = request.headers.getall(hdrs.ORIGIN, [])
    if not set(origins) <= set(terms.authorized_parties):
        raise Refused(RefusalKind.ORIGIN, "The Origin is not among spec.accountDeletion.authorizedParties.")
    if credential.from_cookie and origins != [session.origin]:
        message = f"With the cookie {COOKIE}, the header Origin must be the page that the token was made for."
        raise Refused(RefusalKind.ORIGIN, message)


def _deleted(receipt: Receipt, spec: Spec) -> dict[str, Any]:
    rows = {table.name: receipt.rows.get(table.name, 0) for table in spec.target.tables}
    return {
        "status": "deleted",
        "rows": rows | dict(receipt.rows),
        "receipt": {
            "act": receipt.act,
            "requestedBy": receipt.requested_by,
            "issuedAt": receipt.issued_at.isoformat(),
            "userHash": receipt.user_hash,
            "position": receipt.position,
            "link": receipt.link,
        },
    }


def _pending(*, suspended: bool) -> web.Response:
    message = "The deletion is recorded and will be carried out"
    message += " once usersync is no longer suspended." if suspended else "; ask again to hear when it is done."
    return _respond(HTTPStatus.ACCEPTED, {"status": "pending", "message": message}, retry_after=RETRY_AFTER_SECONDS)


def _refusal(refused: Refused) -> web.Response:
    if isinstance(refused, NotReverified):
        return _respond(refused.status, reverification_error(refused.within))
    content = {"status": "not_deleted", "error": refused.kind.value, "message": str(refused)}
    retry_after: float | None = None
    if isinstance(refused, TooOften):
        retry_after = refused.wait
    elif refused.kind is RefusalKind.BUSY:
        retry_after = RETRY_AFTER_SECONDS
    response = _respond(refused.status, content, retry_after=retry_after)
    if refused.kind is RefusalKind.TOO_LARGE:
        # what is left of the body would be read before the next request
        response.force_close()
    return response


def reverification_error(within: timedelta) -> dict[str, Any]:
    """Return what Clerk's front-end opens its dialogue on: `reverificationError` of its library `shared`."""
    reverification = {"level": "second_factor", "afterMinutes": minutes_of(within)}
    return {
        "clerk_error": {
            "type": "forbidden",
            "reason": "reverification-error",
            "metadata": {"reverification": reverification},
        }
    }


def _respond(status: HTTPStatus, content: Mapping[str, Any], *, retry_after: float | None = None) -> web.Response:
    headers = {} if retry_after is None else {hdrs.RETRY_AFTER: str(math.ceil(retry_after))}
    return web.Response(
        status=status, body=json.dumps(content).encode(), content_type="application/json", headers=headers
    )
