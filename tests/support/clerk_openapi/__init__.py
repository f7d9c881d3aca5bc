"""Holds answers and webhook events to Clerk's own OpenAPI descriptions.

Decides whether a body is one that Clerk could have sent; knows nothing of the emulator. Used by contract
tests. Error statuses that an operation does not list (429, 5xx) are held to `ClerkErrors` all the same.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS30Validator

_HERE = Path(__file__).parent
_JSON = "application/json"


class NotOfClerksForm(AssertionError):
    """A body that Clerk's description does not allow."""


def hold_answer(method: str, path: str, status: int, content: object) -> None:
    """Hold the content of an answer to the operation, `path` as in the description: `/users/{user_id}`.

    Raises:
        NotOfClerksForm: what is wrong, and where.
    """
    described = _description("backend_api")
    responses = described["paths"][path][method.lower()]["responses"]
    if str(status) in responses:
        response = _resolve(described, responses[str(status)])
        schema = response["content"][_JSON]["schema"]
    elif status >= 400:
        schema = {"$ref": "#/components/schemas/ClerkErrors"}
    else:
        message = f"{method} {path} never answers {status}"
        raise NotOfClerksForm(message)
    _hold(described, schema, content, f"{method} {path} {status}")


def hold_event(event: dict[str, Any]) -> None:
    """Hold the body of a webhook to the description of its type.

    Raises:
        NotOfClerksForm: what is wrong, and where.
    """
    described = _description("webhooks")
    event_type = event.get("type")
    if event_type not in described["x-webhooks"]:
        message = f"no such event: {event_type}"
        raise NotOfClerksForm(message)
    schema = described["x-webhooks"][event_type]["post"]["requestBody"]["content"][_JSON]["schema"]
    _hold(described, schema, event, str(event_type))


@cache
def _description(name: str) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((_HERE / f"{name}.json").read_text(encoding="utf-8"))
    return described


def _resolve(described: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        _, _, kind, name = part["$ref"].split("/", 3)
        part = described["components"][kind][name]
    return part


def _hold(described: dict[str, Any], schema: dict[str, Any], content: object, what: str) -> None:
    # The components stand beside the schema, so that its references resolve within one document.
    validator = OAS30Validator({"allOf": [schema], "components": described["components"]})
    wrong = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(content)]
    if wrong:
        message = f"{what}: {'; '.join(wrong)}"
        raise NotOfClerksForm(message)
