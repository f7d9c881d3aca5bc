"""Files that stand in for a cluster: `UserSync` and `Secret` documents in one YAML file.

A secret reference resolves to a Secret document of the same file, else to the environment variable of the key's
name. Decides nothing else; documents of another kind are refused, not skipped. Used by `cli` and `web`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from controller.errors import InvalidSpec, SecretNotFound
from controller.kube import secrets
from controller.kube.fields import KIND, SecretKeyRef
from controller.kube.specs import UserSync, read_user_sync

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from controller.settings import Access, Credentials

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Declared:
    """One `UserSync` of a file, with the place its secrets come from; they are looked up when asked for."""

    user_sync: UserSync
    _documents: Mapping[tuple[str, str], Mapping[str, str]] = field(repr=False)
    _environ: Mapping[str, str] = field(repr=False)

    def credentials(self, *, webhooks: bool = False) -> Credentials:
        """Resolve the references; `webhooks`: the webhook secrets too.

        Raises:
            SecretNotFound, InvalidSpec: see `secrets.resolve`.
        """
        return secrets.resolve(self.user_sync.secrets, self.look_up, webhooks=webhooks)

    def database(self) -> Access:
        """Resolve what the database needs alone, for what needs no key of Clerk.

        Raises:
            SecretNotFound: it is missing or empty.
        """
        return secrets.resolve_database(self.user_sync.secrets, self.look_up)

    def look_up(self, ref: SecretKeyRef) -> str:
        """Resolve one reference.

        Raises:
            SecretNotFound: it is missing or empty.
        """
        document = self._documents.get((self.user_sync.namespace, ref.name), {})
        value = document.get(ref.key, "").strip() or self._environ.get(ref.key, "").strip()
        if value:
            return value
        message = (
            f"The file has no Secret {self.user_sync.namespace}/{ref.name} with the key {ref.key}, and the environment "
            f"variable {ref.key} is not set; set the variable, or add the Secret to the file."
        )
        raise SecretNotFound(message)


def read_manifest(text: str, environ: Mapping[str, str], *, origin: str = "manifest") -> list[Declared]:
    """Read all documents of a file; `origin` is its name, for messages.

    Raises:
        InvalidSpec: not YAML (with the line), a document that is not served, or an invalid one; all are named.
    """
    user_syncs: list[UserSync] = []
    found: dict[tuple[str, str], Mapping[str, str]] = {}
    problems: list[str] = []
    for number, document in enumerate(_documents(text, origin), start=1):
        if document is None:
            continue
        try:
            _sort_in(document, user_syncs, found)
        except InvalidSpec as error:
            problems.append(f"{origin}, document {number}: {error}")
    names = [(user_sync.namespace, user_sync.name) for user_sync in user_syncs]
    problems += [f"{origin}: has the {KIND} {'/'.join(name)} twice" for name in set(names) if names.count(name) > 1]
    if not user_syncs and not problems:
        problems.append(f"{origin}: has no {KIND}; add one (apiVersion: usersync.dev/v1alpha1)")
    if problems:
        raise InvalidSpec("\n".join(problems))
    return [Declared(user_sync, found, environ) for user_sync in user_syncs]


def _sort_in(document: object, user_syncs: list[UserSync], found: dict[tuple[str, str], Mapping[str, str]]) -> None:
    if not isinstance(document, dict):
        message = f"is not a resource but {type(document).__name__}; write apiVersion, kind, metadata and spec"
        raise InvalidSpec(message)
    match document.get("kind"):
        case "UserSync":
            user_syncs.append(read_user_sync(document))
        case "Secret":
            name, content = _read_secret(document)
            found[name] = content
        case kind:
            message = f"is of kind {kind!s}; only {KIND} and Secret are read, remove it"
            raise InvalidSpec(message)


def _read_secret(document: Mapping[str, Any]) -> tuple[tuple[str, str], dict[str, str]]:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
        message = "the Secret has no metadata.name; add it"
        raise InvalidSpec(message)
    known = {"apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"}
    if unknown := sorted(str(key) for key in document if key not in known):
        message = f"Secret {name}: unknown field {', '.join(unknown)}; remove it"
        raise InvalidSpec(message)
    content = {key: _decode(name, key, value) for key, value in _texts(name, document, "data").items()}
    content |= _texts(name, document, "stringData")
    return (str(metadata.get("namespace") or "default"), name), content


def _texts(name: str, document: Mapping[str, Any], part: str) -> dict[str, str]:
    values = document.get(part) or {}
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        message = f"Secret {name}: {part} must map keys to text; put the values in quotes"
        raise InvalidSpec(message)
    return {str(key): value for key, value in values.items()}


def _decode(name: str, key: str, value: str) -> str:
    try:
        text = secrets.as_text(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        text = None
    if text is None:
        message = f"Secret {name}: data.{key} is not base64 of text; use stringData for plain text"
        raise InvalidSpec(message)
    return text


def _documents(text: str, origin: str) -> list[object]:
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        message = f"{origin}, {where}: {error.problem or 'is not YAML'}"
        raise InvalidSpec(message) from error
    except yaml.YAMLError as error:
        message = f"{origin}: is not YAML: {error}"
        raise InvalidSpec(message) from error


class _Loader(yaml.SafeLoader):
    """YAML without its silent trap: of a key given twice, plain YAML readers take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the signature of PyYAML
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    problem = f"the key {key.value!r} stands twice; remove one"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
