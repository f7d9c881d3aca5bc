"""The fields of a `UserSync`: their names, types, defaults and bounds, and what to write instead of a wrong value.

Decides what one field may hold, as the CRD does (a test holds the two together); rules that reach beyond one field
are `rules`'. Used by `specs` and `rules`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from controller.core import mapping

GROUP = "usersync.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "UserSync"
PLURAL = "usersyncs"
RECONCILE_AT = f"{GROUP}/reconcile-at"
"""Annotation: any new value asks for a run now."""
APPROVE_DELETION = f"{GROUP}/approve-deletion"
"""Annotation: the digest of the held-back set that may go."""

VALUES_MAX = 32
ISSUER = r"^https://[^\s?#]*[^\s?#/]$"
ORIGIN_REMEDY = "write each as the browser does: https://app.example.com, in lower case, without a path or slash"

Flag = Annotated[bool, msgspec.Meta(description="write true or false")]
Duration = Annotated[str, msgspec.Meta(description="write a duration such as 45s, 1h30m or 2d")]
Identifier = Annotated[str, msgspec.Meta(min_length=1, description="write the plain name, 1 to 63 bytes, unquoted")]


class Struct(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A part of the resource: camelCase outside."""


class SecretKeyRef(Struct, frozen=True):
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


class Clerk(Struct, frozen=True):
    """`spec.clerk`."""

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


class Database(Struct, frozen=True):
    """`spec.database`."""

    url_secret_ref: SecretKeyRef
    admin_url_secret_ref: SecretKeyRef | None = None
    ca_secret_ref: SecretKeyRef | None = None
    schema: Identifier = "public"


class Value(Struct, frozen=True):
    """What one column of the profile table is mapped to: `spec.tables[].values`."""

    from_: Annotated[
        str | None, msgspec.Meta(description=f"write one of {', '.join(mapping.FIELDS)}, or publicMetadata.NAME")
    ] = msgspec.field(name="from", default=None)
    value: Annotated[str | int | None, msgspec.Meta(description="write a text or a whole number")] = None


class Table(Struct, frozen=True):
    """One of `spec.tables`."""

    name: Identifier
    role: Annotated[str, msgspec.Meta(pattern="^(Profile|Data)$", description="write Profile or Data")] = "Data"
    user_id_column: Identifier = "user_id"
    created_at_column: Identifier = "created_at"
    values: Annotated[
        dict[str, Value],
        msgspec.Meta(max_length=VALUES_MAX, description=f"map at most {VALUES_MAX} columns, each as {{from: FIELD}}"),
    ] = {}


class Limits(Struct, frozen=True):
    """`spec.deletion.limits`."""

    users: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000, description="write a whole number, 0 to 1000000000")] = (
        500
    )
    percent: Annotated[int, msgspec.Meta(ge=0, le=100, description="write a whole number of percent, 0 to 100")] = 10
    window: Duration = "24h"


class Deletion(Struct, frozen=True):
    """`spec.deletion`."""

    policy: Annotated[
        str, msgspec.Meta(pattern="^(Archive|Erase|Retain)$", description="write Archive, Erase or Retain")
    ] = "Archive"
    grace_period: Duration = "24h"
    limits: Limits = Limits()
    retention: Duration = "30d"


class Webhook(Struct, frozen=True):
    """`spec.webhook`."""

    on_user_created: Annotated[
        str, msgspec.Meta(pattern="^(CreateProfile|Ignore)$", description="write CreateProfile or Ignore")
    ] = "CreateProfile"
    on_user_deleted: Annotated[
        str,
        msgspec.Meta(pattern="^(Immediate|Holdback|Ignore)$", description="write Immediate, Holdback or Ignore"),
    ] = "Immediate"
    holdback: Duration = ""


class AccountDeletion(Struct, frozen=True):
    """`spec.accountDeletion`."""

    enabled: Flag = False
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
    reverify_within: Duration = "10m"


class Spec(Struct, frozen=True):
    """`spec`."""

    clerk: Clerk
    database: Database
    actions: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            min_length=1,
            max_length=5,
            description="give 1 to 5 of Analyze, FixProgress, Cleanup, FixDuplicates, FullSync as a list",
        ),
    ] = ("Analyze",)
    interval: Duration = "1h"
    suspend: Flag = False
    dry_run: Flag = False
    tables: Annotated[
        tuple[Table, ...], msgspec.Meta(min_length=1, max_length=64, description="give 1 to 64 tables as a list")
    ] = (Table("user_progress", "Profile"), Table("tasks"), Table("daily_checkins"), Table("moods"))
    deletion: Deletion = Deletion()
    webhook: Webhook = Webhook()
    account_deletion: AccountDeletion = AccountDeletion()
    row_level_security: Annotated[
        str, msgspec.Meta(pattern="^(Ignore|Check|Enforce)$", description="write Ignore, Check or Enforce")
    ] = "Check"


class Resource(Struct, frozen=True):
    """The whole document; of `metadata` and `status` others decide."""

    api_version: str
    kind: str
    metadata: dict[str, Any]
    spec: Spec
    status: dict[str, Any] = {}
