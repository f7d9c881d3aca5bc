"""The answers to a request that is not given its effect.

Decides which status each has: 401 and 400 are the sender's fault, 503 never is, so that an outage cannot be taken
for a bad signature. Used by `signatures`, `events` and `webhooks`.
"""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus


class RefusalKind(Enum):
    """Why; the values are metric labels and stand in the answer."""

    MISSING_HEADER = "missing_header"
    MALFORMED_HEADER = "malformed_header"
    TIMESTAMP = "timestamp"
    SIGNATURE = "signature"
    MALFORMED_BODY = "malformed_body"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    ENCODED = "encoded"
    WRONG_INSTANCE = "wrong_instance"
    UNKNOWN_RESOURCE = "unknown_resource"
    BUSY = "busy"
    NO_SESSION = "no_session"
    NOT_A_SESSION = "not_a_session"
    EXPIRED = "expired"
    ISSUER = "issuer"
    MACHINE = "machine"
    AUTHORIZED_PARTY = "authorized_party"
    ORIGIN = "origin"
    PENDING_SESSION = "pending_session"
    IMPERSONATED = "impersonated"
    REVERIFICATION = "reverification"
    AMBIGUOUS = "ambiguous"
    RATE = "rate"


STATUS = {
    RefusalKind.MISSING_HEADER: HTTPStatus.UNAUTHORIZED,
    RefusalKind.MALFORMED_HEADER: HTTPStatus.UNAUTHORIZED,
    RefusalKind.TIMESTAMP: HTTPStatus.UNAUTHORIZED,
    RefusalKind.SIGNATURE: HTTPStatus.UNAUTHORIZED,
    RefusalKind.MALFORMED_BODY: HTTPStatus.BAD_REQUEST,
    RefusalKind.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    RefusalKind.TOO_SLOW: HTTPStatus.REQUEST_TIMEOUT,
    RefusalKind.ENCODED: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    RefusalKind.WRONG_INSTANCE: HTTPStatus.FORBIDDEN,
    RefusalKind.UNKNOWN_RESOURCE: HTTPStatus.NOT_FOUND,
    RefusalKind.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    RefusalKind.NO_SESSION: HTTPStatus.UNAUTHORIZED,
    RefusalKind.NOT_A_SESSION: HTTPStatus.UNAUTHORIZED,
    RefusalKind.EXPIRED: HTTPStatus.UNAUTHORIZED,
    RefusalKind.ISSUER: HTTPStatus.UNAUTHORIZED,
    RefusalKind.MACHINE: HTTPStatus.UNAUTHORIZED,
    RefusalKind.AUTHORIZED_PARTY: HTTPStatus.FORBIDDEN,
    RefusalKind.ORIGIN: HTTPStatus.FORBIDDEN,
    RefusalKind.PENDING_SESSION: HTTPStatus.FORBIDDEN,
    RefusalKind.IMPERSONATED: HTTPStatus.FORBIDDEN,
    RefusalKind.REVERIFICATION: HTTPStatus.FORBIDDEN,
    RefusalKind.AMBIGUOUS: HTTPStatus.CONFLICT,
    RefusalKind.RATE: HTTPStatus.TOO_MANY_REQUESTS,
}


class Refused(Exception):
    """This request gets no effect; the message is one sentence for whoever sent it, and names no secret."""

    def __init__(self, kind: RefusalKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def status(self) -> HTTPStatus:
        """The status of the answer."""
        return STATUS[self.kind]
