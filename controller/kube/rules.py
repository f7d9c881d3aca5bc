"""What a `UserSync` may not say though each field by itself is right, and what the CRD says in CEL.

Decides the rules that reach beyond one field's type, for files that no API server has seen; each fault names the field
and the remedy. Used by `specs`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from controller.core import mapping, targets
from controller.kube.durations import parse_duration
from controller.kube.fields import API_VERSION, KIND, ORIGIN_REMEDY, Identifier, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

IDENTIFIER_BYTES = 63
"""PostgreSQL cuts longer identifiers silently, and would find another table or none."""
INTERVAL_MIN_SECONDS = 30
TEXT_BYTES_MAX = 256
DURATIONS = (
    ("spec", "deletion", "gracePeriod"),
    ("spec", "deletion", "retention"),
    ("spec", "deletion", "limits", "window"),
    ("spec", "accountDeletion", "reverifyWithin"),
)
"""Fields that hold a duration of any length."""
HOLDBACK_MIN = timedelta(minutes=1)
HOLDBACK_MAX = timedelta(days=90)
"""As long as Clerk's events can be sent again; who wants longer ignores the event and sets the runs' grace period."""

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]{0,31}://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?", re.ASCII)
"""Of a page, as its browser writes it in the header Origin and Clerk in the claim azp."""
ORIGIN_BYTES_MAX = 253


def faults_of(document: Mapping[str, Any]) -> list[str]:
    """Apply the rules that reach beyond one field's type, to each part that is well-formed by itself."""
    faults: list[str] = []
    if (document.get("apiVersion"), document.get("kind")) != (API_VERSION, KIND):
        faults.append(f"apiVersion, kind: write apiVersion: {API_VERSION} and kind: {KIND}")
    if (actions := _part(document, tuple[str, ...], "spec", "actions")) is not None:
        faults += _faults_of_actions(actions)
    if (interval := _part(document, str, "spec", "interval")) is not None:
        faults += _faults_of_interval(interval)
    for path in DURATIONS:
        if (duration := _part(document, str, *path)) is not None and parse_duration(duration) is None:
            faults.append(f"{'.'.join(path)}: write a duration such as 45s, 1h30m or 2d; it is {duration!r}")
    if (webhook := _part(document, dict[str, Any], "spec", "webhook")) is not None:
        faults += _faults_of_holdback(webhook)
    if (tables := _part(document, tuple[Table, ...], "spec", "tables")) is not None:
        faults += _faults_of_tables(tables)
    faults += _faults_of_account_deletion(document)
    schema = _part(document, Identifier, "spec", "database", "schema")
    if schema is not None and not _is_identifier(schema):
        faults.append("spec.database.schema: write the plain name, 1 to 63 bytes, unquoted")
    api_url = _part(document, str, "spec", "clerk", "apiUrl")
    if api_url is not None and not _is_http(api_url):
        faults.append("spec.clerk.apiUrl: write a URL such as https://api.clerk.com, without user, query or fragment")
    return faults


def _part(document: object, kind: Any, *path: str) -> Any:
    """Return one part of the document, or None where it is absent or malformed (which is reported elsewhere)."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    try:
        return msgspec.convert(document, kind, strict=True)
    except msgspec.ValidationError:
        return None


def _faults_of_actions(actions: tuple[str, ...]) -> list[str]:
    known = [action.value for action in targets.Action]
    faults = [
        f"spec.actions[{index}]: {action!r} is none of {', '.join(known)}"
        for index, action in enumerate(actions)
        if action not in known
    ]
    if len(set(actions)) < len(actions):
        faults.append("spec.actions: names an action twice; remove one")
    return faults


def _faults_of_interval(text: str) -> list[str]:
    interval = parse_duration(text)
    if interval is None:
        return [f"spec.interval: write a duration such as 45s, 1h30m or 2d; it is {text!r}"]
    if interval.total_seconds() < INTERVAL_MIN_SECONDS:
        return [f"spec.interval: write at least {INTERVAL_MIN_SECONDS}s; it is {text!r}"]
    return []


def _faults_of_holdback(webhook: Mapping[str, Any]) -> list[str]:
    text = webhook.get("holdback")
    if not isinstance(text, str):
        return []
    if webhook.get("onUserDeleted") != "Holdback":
        return ["spec.webhook: holdback is of no effect here; write onUserDeleted: Holdback beside it, or leave it out"]
    holdback = parse_duration(text)
    if holdback is None or not HOLDBACK_MIN <= holdback <= HOLDBACK_MAX:
        return [f"spec.webhook.holdback: write a duration of 1m to 90d, such as 24h, 1h30m or 7d; it is {text!r}"]
    return []


def _faults_of_tables(tables: tuple[Table, ...]) -> list[str]:
    faults: list[str] = []
    profiles = [table.name for table in tables if table.role == "Profile"]
    if tables and len(profiles) != 1:
        found = ", ".join(profiles) or "none"
        faults.append(f"spec.tables: give exactly one table the role Profile; it is given to: {found}")
    names = [table.name for table in tables]
    faults += [
        f"spec.tables: names the table {name!r} more than once; remove all but one"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    for index, table in enumerate(tables):
        if table.user_id_column == table.created_at_column:
            faults.append(f"spec.tables[{index}]: userIdColumn and createdAtColumn name the same column; correct one")
        for field, value in (
            ("name", table.name),
            ("userIdColumn", table.user_id_column),
            ("createdAtColumn", table.created_at_column),
        ):
            if not _is_identifier(value):
                faults.append(f"spec.tables[{index}].{field}: write the plain name, 1 to 63 bytes, unquoted")
        faults += _faults_of_values(f"spec.tables[{index}]", table)
    return faults


def _faults_of_values(where: str, table: Table) -> list[str]:
    faults: list[str] = []
    if table.values and table.role != "Profile":
        faults.append(f"{where}.values: only the Profile table can have values; take them out, or correct the role")
    for column, value in table.values.items():
        at = f"{where}.values[{column}]"
        if not _is_identifier(column):
            faults.append(f"{where}.values: {column!r} is no column; write the plain name, 1 to 63 bytes, unquoted")
        if column in {table.user_id_column, table.created_at_column}:
            faults.append(f"{where}.values: {column!r} is written by usersync itself; take it out")
        if (value.from_ is None) == (value.value is None):
            faults.append(f"{at}: write exactly one of from and value")
        if value.from_ is not None and (len(value.from_) > TEXT_BYTES_MAX or mapping.parse_field(value.from_) is None):
            known = f"{', '.join(mapping.FIELDS)}, or publicMetadata. and a path into it"
            faults.append(f"{at}.from: {value.from_!r} is no field that can be mapped; write {known}")
        if isinstance(value.value, str) and ("\0" in value.value or len(value.value) > TEXT_BYTES_MAX):
            faults.append(f"{at}.value: write at most {TEXT_BYTES_MAX} letters, none of them NUL")
    return faults


def _faults_of_account_deletion(document: Mapping[str, Any]) -> list[str]:
    field = "spec.accountDeletion.authorizedParties"
    parties = _part(document, tuple[str, ...], "spec", "accountDeletion", "authorizedParties") or ()
    faults = [
        f"{field}[{index}]: {ORIGIN_REMEDY}; it is {party!r}"
        for index, party in enumerate(parties)
        if len(party) > ORIGIN_BYTES_MAX or not ORIGIN.fullmatch(party)
    ]
    if _part(document, bool, "spec", "accountDeletion", "enabled"):
        if not parties:
            faults.append(f"{field}: name the pages whose users may delete their accounts; {ORIGIN_REMEDY}")
        if not _part(document, tuple[Any, ...], "spec", "clerk", "webhookSecretRefs"):
            faults.append(
                "spec.accountDeletion: add spec.clerk.webhookSecretRefs, without which the webhook service, which "
                "deletes accounts, does not serve the resource"
            )
    return faults


def _is_identifier(value: str) -> bool:
    return "\0" not in value and 0 < len(value.encode()) <= IDENTIFIER_BYTES


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and not set(url) & set("@?#")
    except ValueError:
        return False
