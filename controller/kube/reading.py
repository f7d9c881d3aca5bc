"""From untyped documents to msgspec structs, naming every field that is wrong, not the first alone.

msgspec stops at the first fault; a person who mends a manifest wants all of them at once. The rules are the
structs' own (`fields`); this module knows no field. Used by `specs` and `manifests`.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

SHOWN = 40
"""Text up to this length is quoted in a message: long enough for names and durations, short for a key."""


def read_struct(kind: type[T], document: object, path: str, problems: list[str]) -> T | None:
    """Convert a document; returns None when one of its fields is wrong, with one sentence each in `problems`.

    A field that is null counts as absent, as the API server's pruning has it.
    """
    if not isinstance(document, Mapping):
        problems.append(f"{path}: write a mapping of fields, not {_shape(document)}")
        return None
    before = len(problems)
    given = {key: value for key, value in document.items() if value is not None}
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    problems += [
        f"{path}.{key}: is not a field of this version; remove it, or correct its name (known: {', '.join(fields)})"
        for key in given
        if key not in fields
    ]
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in given:
            values[field.name] = _read_value(field.type, given[name], f"{path}.{name}", problems)
        elif field.required:
            problems.append(f"{path}.{name}: is required; add it")
    return kind(**values) if len(problems) == before else None


def _read_value(hint: Any, value: object, path: str, problems: list[str]) -> Any:
    base, meta = _unwrap(hint)
    struct = _struct_of(base)
    if struct is not None:
        return read_struct(struct, value, path, problems)
    item = _item_struct(base)
    if item is not None and isinstance(value, list):
        items = [read_struct(item, entry, f"{path}[{index}]", problems) for index, entry in enumerate(value)]
        _check_number(len(items), meta, path, problems)
        return tuple(items)
    entry_kind = _entry_struct(base)
    if entry_kind is not None and isinstance(value, dict):
        _check_number(len(value), meta, path, problems)
        return {str(key): read_struct(entry_kind, each, f"{path}[{key}]", problems) for key, each in value.items()}
    try:
        return msgspec.convert(value, hint, strict=True)
    except msgspec.ValidationError as error:
        problems.append(f"{path}: {_remedy(meta, str(error))}; it is {_shape(value)}")
        return None


def _unwrap(hint: Any) -> tuple[Any, tuple[msgspec.Meta, ...]]:
    if typing.get_origin(hint) is typing.Annotated:
        base, *metas = typing.get_args(hint)
        return base, tuple(meta for meta in metas if isinstance(meta, msgspec.Meta))
    return hint, ()


def _struct_of(base: Any) -> type[msgspec.Struct] | None:
    if isinstance(base, types.UnionType):
        # One that may be left out; null counts as that.
        return next((found for part in typing.get_args(base) if (found := _struct_of(part))), None)
    return base if isinstance(base, type) and issubclass(base, msgspec.Struct) else None


def _item_struct(base: Any) -> type[msgspec.Struct] | None:
    arguments = typing.get_args(base)
    return _struct_of(arguments[0]) if typing.get_origin(base) is tuple and arguments else None


def _entry_struct(base: Any) -> type[msgspec.Struct] | None:
    arguments = typing.get_args(base)
    return _struct_of(arguments[1]) if typing.get_origin(base) is dict and arguments else None


def _check_number(number: int, meta: tuple[msgspec.Meta, ...], path: str, problems: list[str]) -> None:
    try:
        msgspec.convert([None] * number, _bare_list(meta), strict=True)
    except msgspec.ValidationError:
        problems.append(f"{path}: {_remedy(meta, f'{number} entries are too few or too many')}")


def _bare_list(metas: tuple[msgspec.Meta, ...]) -> Any:
    bare: Any = list[None]
    for meta in metas:
        bare = typing.Annotated[bare, meta]
    return bare


def _remedy(metas: tuple[msgspec.Meta, ...], otherwise: str) -> str:
    return next((meta.description for meta in metas if meta.description), otherwise)


def _shape(value: object) -> str:
    """Describe a value without quoting text of any length: it may be a secret in the wrong place."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else f"text of {len(value)} characters"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "a mapping" if isinstance(value, Mapping) else f"a {type(value).__name__}"
