"""Cuts the parts that the contract tests need out of Clerk's OpenAPI descriptions.

``python -m tests.support.clerk_openapi.extract BACKEND_API.yml WEBHOOKS.yml`` writes `backend_api.json` and
`webhooks.json` beside itself: the operations in use, and every schema that they reach, without prose.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
OPERATIONS = {
    "/users": ("get",),
    "/users/count": ("get",),
    "/users/{user_id}": ("get", "delete"),
    "/instance": ("get",),
    "/jwks": ("get",),
}
EVENTS = ("user.created", "user.updated", "user.deleted")
ALWAYS = "#/components/schemas/ClerkErrors"
"""Reached in any case: errors that an operation does not list have this form too."""

_PROSE = {"description", "summary", "example", "examples", "tags", "operationId", "deprecated", "externalDocs"}


def main(backend_api: Path, webhooks: Path) -> None:
    """Write both extracts."""
    described = _read(backend_api)
    paths = {
        path: {method: described["paths"][path][method] for method in methods} for path, methods in OPERATIONS.items()
    }
    _write(HERE / "backend_api.json", described, {"paths": _without_prose(paths)}, ALWAYS)
    described = _read(webhooks)
    events = {event: described["x-webhooks"][event] for event in EVENTS}
    _write(HERE / "webhooks.json", described, {"x-webhooks": _without_prose(events)})


def _read(path: Path) -> dict[str, Any]:
    described: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return described


def _write(path: Path, described: dict[str, Any], kept: dict[str, Any], *roots: str) -> None:
    info = {key: described["info"][key] for key in ("title", "version")}
    extract: dict[str, Any] = {"openapi": described["openapi"], "info": info, **kept, "components": {}}
    waiting = [*roots, *_references(kept)]
    while waiting:
        _, _, kind, name = waiting.pop().split("/", 3)
        section = extract["components"].setdefault(kind, {})
        if name not in section:
            section[name] = _without_prose(described["components"][kind][name])
            waiting.extend(_references(section[name]))
    text = json.dumps(extract, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # A line for each schema, so that a change of Clerk's can be read as a difference.
    path.write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")


def _references(part: object) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for value in part.values() for found in _references(value)]
    if isinstance(part, list):
        return [found for value in part for found in _references(value)]
    return []


def _without_prose(part: object, *, names: bool = False) -> Any:
    """Drop what is for readers; `names`: the keys are names of properties, not keywords."""
    if isinstance(part, dict):
        return {
            key: _without_prose(value, names=key == "properties" and not names)
            for key, value in part.items()
            if names or not (key in _PROSE or (key.startswith("x-") and key != "x-webhooks"))
        }
    return [_without_prose(value) for value in part] if isinstance(part, list) else part


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
