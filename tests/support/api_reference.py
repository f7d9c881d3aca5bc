"""Writes docs/api.md from the CRD: ``python -m tests.support.api_reference > docs/api.md`` (`make docs`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

CRD = Path(__file__).parents[2] / "crds/usersync.yaml"
TABLE = "| field | type | default | meaning |\n|---|---|---|---|\n"
HEAD = """\
# The UserSync resource

<!-- Generated from crds/usersync.yaml by `make docs`; do not edit. -->

`usersync.dev/v1alpha1`, namespaced, short name `usync`. {description}

"""
ANNOTATIONS = """\
## Annotations

| annotation | meaning |
|---|---|
| `usersync.dev/reconcile-at` | Any new value asks for a run now; its echo stands in \
`status.lastHandledReconcileAt`, also when it was ignored because the resource is suspended. |
"""


def render(crd: dict[str, Any]) -> str:
    """Render the page, one table for the spec and one for the status."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = [HEAD.format(description=_text(schema))]
    for part in ("spec", "status"):
        parts.append(f"## {part}\n\n{_text(schema['properties'][part])}\n\n{TABLE}")
        parts += _rows(schema["properties"][part], "")
        parts.append("\n")
    return "".join(parts) + ANNOTATIONS


def _rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        own = f"{path}{name}"
        default = f"`{_flow(field['default'])}`" if "default" in field else ("required" if name in required else "")
        yield f"| `{own}` | {_type(field)} | {default} | {_meaning(field)} |\n"
        yield from _rows(field, f"{own}.")
        yield from _rows(field.get("items", {}), f"{own}[].")
        yield from _rows(field.get("additionalProperties", {}), f"{own}.NAME.")


def _meaning(field: dict[str, Any]) -> str:
    rules = [rule["message"] for rule in field.get("x-kubernetes-validations", ()) if "message" in rule]
    return " ".join(part for part in (_text(field), *(f"*{_escape(rule)}.*" for rule in rules)) if part)


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "string or integer"
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    bounds = [f"{sign} {field[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in field]
    return " ".join((field.get("format", field["type"]), *bounds))


def _text(field: dict[str, Any]) -> str:
    return _escape(" ".join(field.get("description", "").split()))


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).strip().removesuffix("\n...")


if __name__ == "__main__":
    sys.stdout.write(render(yaml.safe_load(CRD.read_text())))
