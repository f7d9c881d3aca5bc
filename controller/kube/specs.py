"""A `UserSync`, from the API server or from a manifest, becomes what the core reads.

Decides what a resource may say: the same fields, defaults and rules as the CRD (a test holds the two together),
for files that no API server has seen. Refuses with every field that is wrong and what to write instead; accepts
and ignores nothing. Used by `manifests`, `reconciler`, `web` and `cli`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec

from controller.core import mapping, targets
from controller.errors import InvalidSpec
from controller.kube.durations import parse_duration
from controller.kube.reading import read_struct

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP = "usersync.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "UserSync"
PLURAL = "usersyncs"
RECONCILE_AT = f"{GROUP}/reconcile-at"
"""Annotation: any new value asks for a run now."""
APPROVE_DELETION = f"{GROUP}/approve-deletion"
"""Annotation: the digest of the held-back set that may go."""

IDENTIFIER_BYTES = 63
"""PostgreSQL cuts longer identifiers silently, and would find another table or none."""
INTERVAL_MIN_SECONDS = 30
VALUES_MAX = 32
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

ISSUER = r"^https://[^\s?#]*[^\s?#/]$"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]{0,31}://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?", re.ASCII)
"""Of a page, as its browser writes it in the header Origin and Clerk in the claim azp."""
ORIGIN_BYTES_MAX = 253
ORIGIN_REMEDY = "write each as the browser does: https://app.example.com, in lower case, without a path or slash"

_Flag = Annotated[bool, msgspec.Meta(description="write true or false")]
_Duration = Annotated[str, msgspec.Meta(description="write a duration such as 45s, 1h30m or 2d")]
_Identifier = Annotated[str, msgspec.Meta(min_length=1, description="write the plain name, 1 to 63 bytes, unquoted")]


class _Struct(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A part of the resource: camelCase outside."""


class SecretKeyRef(_Struct, frozen=True):
    """One key of a Secret in the namespace of the resource."""

    name: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=253,
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
            description="write the name of a Secret: lower-case letters, digits, - and .",
        ),
    ]
    key: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=253,
            pattern=r"^[-._a-zA-Z0-9]+$",
            description="write a key of the Secret: letters, digits, -, _ and .",
        ),
    ]


class _Clerk(_Struct, frozen=True):
    secret_key_ref: SecretKeyRef
    webhook_secret_refs: Annotated[
        tuple[SecretKeyRef, ...], msgspec.Meta(max_length=10, description="give at most 10 references {name, key}")
    ] = ()
    instance_id: Annotated[
        str,
        msgspec.Meta(
            max_length=128,
            pattern=r"^ins_[A-Za-z0-9]+$",
            description="write Clerk's id of the instance, ins_ and letters or digits, or leave it out",
        ),
    ] = ""
    rate_limit_share: Annotated[
        int, msgspec.Meta(ge=1, le=100, description="write a whole number of percent, 1 to 100")
    ] = 50
    api_url: Annotated[str, msgspec.Meta(max_length=512, description="write a URL such as https://api.clerk.com")] = (
        "https://api.clerk.com"
    )


class _Database(_Struct, frozen=True):
    url_secret_ref: SecretKeyRef
    admin_url_secret_ref: SecretKeyRef | None = None
    ca_secret_ref: SecretKeyRef | None = None
    schema: _Identifier = "public"


class _Value(_Struct, frozen=True):
    from_: Annotated[
        str | None, msgspec.Meta(description=f"write one of {', '.join(mapping.FIELDS)}, or publicMetadata.NAME")
    ] = msgspec.field(name="from", default=None)
    value: Annotated[str | int | None, msgspec.Meta(description="write a text or a whole number")] = None


class _Table(_Struct, frozen=True):
    name: _Identifier
    role: Annotated[str, msgspec.Meta(pattern="^(Profile|Data)$", description="write Profile or Data")] = "Data"
    user_id_column: _Identifier = "user_id"
    created_at_column: _Identifier = "created_at"
    values: Annotated[
        dict[str, _Value],
        msgspec.Meta(max_length=VALUES_MAX, description=f"map at most {VALUES_MAX} columns, each as {{from: FIELD}}"),
    ] = {}


class _Limits(_Struct, frozen=True):
    users: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000, description="write a whole number, 0 to 1000000000")] = (
        500
    )
    percent: Annotated[int, msgspec.Meta(ge=0, le=100, description="write a whole number of percent, 0 to 100")] = 10
    window: _Duration = "24h"


class _Deletion(_Struct, frozen=True):
    policy: Annotated[
        str, msgspec.Meta(pattern="^(Archive|Erase|Retain)$", description="write Archive, Erase or Retain")
    ] = "Archive"
    grace_period: _Duration = "24h"
    limits: _Limits = _Limits()
    retention: _Duration = "30d"


class _Webhook(_Struct, frozen=True):
    on_user_created: Annotated[
        str, msgspec.Meta(pattern="^(CreateProfile|Ignore)$", description="write CreateProfile or Ignore")
    ] = "CreateProfile"
    on_user_deleted: Annotated[
        str,
        msgspec.Meta(pattern="^(Immediate|Holdback|Ignore)$", description="write Immediate, Holdback or Ignore"),
    ] = "Immediate"
    holdback: _Duration = ""


class _AccountDeletion(_Struct, frozen=True):
    enabled: _Flag = False
    issuer: Annotated[
        str,
        msgspec.Meta(
            max_length=512,
            pattern=ISSUER,
            description="write the issuer of the session tokens, such as https://clerk.example.com, without a slash "
            "at its end, or leave it out",
        ),
    ] = ""
    authorized_parties: Annotated[
        tuple[str, ...], msgspec.Meta(max_length=20, description=f"give at most 20 of them; {ORIGIN_REMEDY}")
    ] = ()
    reverify_within: _Duration = "10m"


class _Spec(_Struct, frozen=True):
    clerk: _Clerk
    database: _Database
    actions: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            min_length=1,
            max_length=5,
            description="give 1 to 5 of Analyze, FixProgress, Cleanup, FixDuplicates, FullSync as a list",
        ),
    ] = ("Analyze",)
    interval: _Duration = "1h"
    suspend: _Flag = False
    dry_run: _Flag = False
    tables: Annotated[
        tuple[_Table, ...], msgspec.Meta(min_length=1, max_length=64, description="give 1 to 64 tables as a list")
    ] = (_Table("user_progress", "Profile"), _Table("tasks"), _Table("daily_checkins"), _Table("moods"))
    deletion: _Deletion = _Deletion()
    webhook: _Webhook = _Webhook()
    account_deletion: _AccountDeletion = _AccountDeletion()
    row_level_security: Annotated[
        str, msgspec.Meta(pattern="^(Ignore|Check|Enforce)$", description="write Ignore, Check or Enforce")
    ] = "Check"


class _Resource(_Struct, frozen=True):
    api_version: str
    kind: str
    metadata: dict[str, Any]
    spec: _Spec
    status: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class SecretRefs:
    """Where the secrets of one resource stand; all in its own namespace."""

    clerk_key: SecretKeyRef
    database_url: SecretKeyRef
    webhook_secrets: tuple[SecretKeyRef, ...] = ()
    database_ca: SecretKeyRef | None = None
    admin_url: SecretKeyRef | None = None


@dataclass(frozen=True, slots=True)
class UserSync:
    """One resource, read and found valid."""

    namespace: str
    name: str
    spec: targets.Spec
    secrets: SecretRefs


def read_user_sync(document: Mapping[str, Any]) -> UserSync:
    """Read a resource or a manifest's document.

    Raises:
        InvalidSpec: one or more fields are wrong; the message names each and what to write.
    """
    problems: list[str] = []
    resource = read_struct(_Resource, document, KIND, problems)
    problems += _faults(document)
    namespace, name = _names(document.get("metadata"), problems)
    if resource is None or problems:
        where = f"{KIND} {namespace}/{name}" if name else KIND
        faults = "\n  ".join(problem.removeprefix(f"{KIND}.") for problem in problems)
        message = f"{where} is not valid:\n  {faults}" if len(problems) > 1 else f"{where} is not valid: {faults}"
        raise InvalidSpec(message)
    return UserSync(namespace, name, _spec(resource.spec, f"{namespace}/{name}"), _secret_refs(resource.spec))


def _names(metadata: object, problems: list[str]) -> tuple[str, str]:
    if not isinstance(metadata, dict):
        return "default", ""
    name, namespace = metadata.get("name"), metadata.get("namespace") or "default"
    if not isinstance(name, str) or not name:
        problems.append("metadata.name: is required; add it")
        name = ""
    if not isinstance(namespace, str):
        problems.append("metadata.namespace: write the name of a namespace")
        namespace = "default"
    return namespace, name


def _faults(document: Mapping[str, Any]) -> list[str]:
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
    if (tables := _part(document, tuple[_Table, ...], "spec", "tables")) is not None:
        faults += _faults_of_tables(tables)
    faults += _faults_of_account_deletion(document)
    schema = _part(document, _Identifier, "spec", "database", "schema")
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


def _faults_of_tables(tables: tuple[_Table, ...]) -> list[str]:
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


def _faults_of_values(where: str, table: _Table) -> list[str]:
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


def _spec(spec: _Spec, name: str) -> targets.Spec:
    return targets.Spec(
        name=name,
        clerk=targets.ClerkSource(spec.clerk.api_url, spec.clerk.instance_id or None, spec.clerk.rate_limit_share),
        target=targets.Target(
            spec.database.schema,
            tuple(_table(table) for table in spec.tables),
        ),
        actions=tuple(targets.Action(action) for action in spec.actions),
        interval=_duration(spec.interval),
        suspend=spec.suspend,
        dry_run=spec.dry_run,
        deletion=_deletion(spec.deletion),
        webhook=_webhook(spec.webhook),
        account_deletion=targets.AccountDeletion(
            spec.account_deletion.enabled,
            spec.account_deletion.issuer or None,
            spec.account_deletion.authorized_parties,
            _duration(spec.account_deletion.reverify_within),
        ),
        row_level_security=targets.RowLevelSecurity(spec.row_level_security),
    )


def _table(table: _Table) -> targets.Table:
    values = tuple(mapping.MappedColumn(column, _source(value)) for column, value in table.values.items())
    role = targets.Role(table.role)
    return targets.Table(table.name, role, table.user_id_column, table.created_at_column, values)


def _source(value: _Value) -> mapping.Field | mapping.Constant:
    field = mapping.parse_field(value.from_) if value.from_ is not None else None
    if field is not None:
        return field
    return mapping.Constant(value.value if value.value is not None else "")  # one of the two, by `_faults`


def _webhook(webhook: _Webhook) -> targets.Webhook:
    read = targets.Webhook(
        targets.OnUserCreated(webhook.on_user_created), targets.OnUserDeleted(webhook.on_user_deleted)
    )
    return replace(read, holdback=_duration(webhook.holdback)) if webhook.holdback else read


def _deletion(deletion: _Deletion) -> targets.Deletion:
    limits = deletion.limits
    return targets.Deletion(
        policy=targets.DeletionPolicy(deletion.policy),
        grace_period=_duration(deletion.grace_period),
        limits=targets.Limits(limits.users, limits.percent, _duration(limits.window)),
        retention=_duration(deletion.retention),
    )


def _duration(text: str) -> timedelta:
    duration = parse_duration(text)
    if duration is None:  # checked by `_faults`; said here for the type checker
        raise InvalidSpec(text)
    return duration


def _secret_refs(spec: _Spec) -> SecretRefs:
    clerk, database = spec.clerk, spec.database
    return SecretRefs(
        clerk.secret_key_ref,
        database.url_secret_ref,
        clerk.webhook_secret_refs,
        database.ca_secret_ref,
        database.admin_url_secret_ref,
    )
