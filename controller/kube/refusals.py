"""What the API server's refusals mean for us, in the words of `controller.errors`.

Decides what is worth another try. Used by `client`, `watching` and `events`, around each call.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from controller.errors import KubernetesRefused, KubernetesUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from controller.errors import UserSyncError

PERMANENT_500 = ("field not declared in schema", "duplicate entries for key")
"""Server-side apply answers 500 to a body that its schema does not take; trying that again would never end."""


class NotFound(Exception):
    """404; whether that is news or an error only the caller knows. Never leaves `kube`.

    `kind_served` is False where the path as such is unknown: no CRD, or an API server that is still starting.
    """

    def __init__(self, message: str, *, kind_served: bool) -> None:
        super().__init__(message)
        self.kind_served = kind_served


class Conflict(Exception):
    """409: the object has changed, or exists already. Never leaves `kube`."""


class Expired(Exception):
    """410: the resource version is too old to go on from. Never leaves `kube`."""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what the Kubernetes client raises into our errors; `doing` completes "Could not ...".

    Raises:
        KubernetesUnavailable: no answer, 429, or a 5xx that another try may mend.
        KubernetesRefused: any other refusal.
        NotFound, Conflict, Expired: 404, 409, 410.
    """
    try:
        yield
    except ApiException as error:
        raise from_status(doing, int(error.status or 0), error.body or "", error.headers or {}) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        detail = str(error) or type(error).__name__
        message = f"Could not {doing}: the Kubernetes API server does not answer ({detail})."
        raise KubernetesUnavailable(message) from error


def from_status(
    doing: str, status: int, body: str, headers: Mapping[str, str]
) -> UserSyncError | NotFound | Conflict | Expired:
    """Choose the error for an answer of the API server."""
    said = _message(body)
    match status:
        case HTTPStatus.NOT_FOUND:
            return NotFound(said, kind_served=_is_about_an_object(body))
        case HTTPStatus.CONFLICT:
            return Conflict(said)
        case HTTPStatus.GONE:
            return Expired(said)
    message = f"Could not {doing}: the Kubernetes API server answered {status}: {said}"
    if _is_transient(status, said):
        return KubernetesUnavailable(message, retry_after=_retry_after(headers))
    return KubernetesRefused(message)


def _is_transient(status: int, said: str) -> bool:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return True
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR and not any(sign in said for sign in PERMANENT_500)


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    value = headers.get("Retry-After", "")
    return timedelta(seconds=int(value)) if value.isascii() and value.isdigit() else None


def _is_about_an_object(body: str) -> bool:
    """Whether a 404 names the object that is not there; that of an unknown path is plain text."""
    try:
        return bool(json.loads(body)["details"]["name"])
    except (ValueError, KeyError, TypeError):
        return False


def _message(body: str) -> str:
    """Return the message of a Status object, or the head of whatever came instead."""
    try:
        said = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        said = body
    return str(said)[:500].strip() or "(no message)"
