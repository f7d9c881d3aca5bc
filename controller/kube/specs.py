"""A `UserSync`, from the API server or from a manifest, becomes what the core reads.

Decides what a resource may say: the same `fields` and `rules` as the CRD, for files that no API server has seen.
Refuses with every field that is wrong and what to write instead; accepts and ignores nothing. Used by `manifests`,
`reconciler`, `web` and `cli`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from controller.core import mapping, targets
from controller.errors import InvalidSpec
from controller.kube import fields
from controller.kube.durations import parse_duration
from controller.kube.fields import KIND, SecretKeyRef
from controller.kube.reading import read_struct
from controller.kube.rules import faults_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from typing import Any


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
    resource = read_struct(fields.Resource, document, KIND, problems)
    problems += faults_of(document)
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


def _spec(spec: fields.Spec, name: str) -> targets.Spec:
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


def _table(table: fields.Table) -> targets.Table:
    values = tuple(mapping.MappedColumn(column, _source(value)) for column, value in table.values.items())
    role = targets.Role(table.role)
    return targets.Table(table.name, role, table.user_id_column, table.created_at_column, values)


def _source(value: fields.Value) -> mapping.Field | mapping.Constant:
    field = mapping.parse_field(value.from_) if value.from_ is not None else None
    if field is not None:
        return field
    return mapping.Constant(value.value if value.value is not None else "")  # one of the two, by `rules`


def _webhook(webhook: fields.Webhook) -> targets.Webhook:
    read = targets.Webhook(
        targets.OnUserCreated(webhook.on_user_created), targets.OnUserDeleted(webhook.on_user_deleted)
    )
    return replace(read, holdback=_duration(webhook.holdback)) if webhook.holdback else read


def _deletion(deletion: fields.Deletion) -> targets.Deletion:
    limits = deletion.limits
    return targets.Deletion(
        policy=targets.DeletionPolicy(deletion.policy),
        grace_period=_duration(deletion.grace_period),
        limits=targets.Limits(limits.users, limits.percent, _duration(limits.window)),
        retention=_duration(deletion.retention),
    )


def _duration(text: str) -> timedelta:
    duration = parse_duration(text)
    if duration is None:  # checked by `rules`; said here for the type checker
        raise InvalidSpec(text)
    return duration


def _secret_refs(spec: fields.Spec) -> SecretRefs:
    clerk, database = spec.clerk, spec.database
    return SecretRefs(
        clerk.secret_key_ref,
        database.url_secret_ref,
        clerk.webhook_secret_refs,
        database.ca_secret_ref,
        database.admin_url_secret_ref,
    )
