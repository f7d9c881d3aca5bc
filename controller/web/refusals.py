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
