"""Every error that usersync raises on purpose, as one tree.

::

    UserSyncError
    ├── TransientError                 trying again may help; may carry `retry_after`
    │   ├── ClerkUnavailable           no usable answer: timeout, reset, 429, 5xx
    │   ├── ListingIncomplete          the listing contradicts itself: page, order, duplicate id
    │   ├── DatabaseUnavailable        no connection, restart, read-only standby, out of space
    │   ├── KubernetesUnavailable      the API server does not answer
    │   └── TargetBusy                 another run works on the same database and schema
    │       └── LockLost               this run was taken over, and may write no more
    └── PermanentError                 a person must act
        ├── KubernetesRefused          the API server says no: a right is missing, a field is not known
        │   └── CRDMissing             the API server does not know the kind UserSync
        ├── InvalidSpec                a UserSync that cannot be served
        ├── SecretNotFound             a referenced Secret or key is not there, or empty
        ├── InsecureClerkURL           the key would travel unencrypted
        ├── ClerkURLNotAllowed         the key would travel to a host nobody allowed
        ├── ClerkRefused               401 or 403: the key is wrong, revoked, or of no use here
        ├── ClerkAnswerOdd             Clerk answered with something its API does not promise
        ├── WrongInstance              the key belongs to another instance than the pinned one
        ├── UnknownPopulation          first contact, and the rows are of other users
        ├── DatabaseRefused            wrong password, missing right, no such database
        ├── RoleSeesNotAll             row-level security hides rows from our role
        ├── SchemaMissing              our schema is missing or older than this program
        ├── TableUnsupported           a column is missing or of a type that cannot hold Clerk's ids
        │   └── TablesMissing          none of the listed tables is there
        └── RequestRefused             what a person asked for one user cannot be done: restore, erase

`reason` is the CamelCase word that stands in conditions, Events, metrics and logs. A message says what
happened, to what, and what to do; it never holds a secret or the id of a user.
Adapters raise these ``from`` the foreign error; entry points turn them into conditions, HTTP answers
or exit codes. Nothing here inherits from a framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from datetime import timedelta


class UserSyncError(Exception):
    """Base of the tree; catch it at entry points only."""

    reason: ClassVar[str] = "Error"


class TransientError(UserSyncError):
    """Trying again may help, without anybody doing anything."""

    reason: ClassVar[str] = "TransientError"

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        """`retry_after`: how long the other side asked us to wait, if it did."""
        super().__init__(message)
        self.retry_after = retry_after


class ClerkUnavailable(TransientError):
    """Clerk gave no usable answer: timeout, reset, 429 or 5xx, after bounded retries."""

    reason = "ClerkUnavailable"


class ListingIncomplete(TransientError):
    """The listing contradicts itself or Clerk's promises; it may create, never delete."""

    reason = "ListingIncomplete"


class DatabaseUnavailable(TransientError):
    """PostgreSQL cannot be reached or cannot write at the moment."""

    reason = "DatabaseUnavailable"


class KubernetesUnavailable(TransientError):
    """The API server does not answer."""

    reason = "KubernetesUnavailable"


class TargetBusy(TransientError):
    """Another run holds the lock of this database and schema."""

    reason = "TargetBusy"


class LockLost(TargetBusy):
    """This run was taken over by another; it may write no more."""

    reason = "LockLost"


class PermanentError(UserSyncError):
    """Trying again does not help until a person has changed something."""

    reason: ClassVar[str] = "PermanentError"


class KubernetesRefused(PermanentError):
    """The API server refuses a request: a missing right, or an object that its schema does not take."""

    reason = "KubernetesRefused"


class CRDMissing(KubernetesRefused):
    """The API server does not know the kind UserSync: the CRD is not installed there."""

    reason = "CRDMissing"


class InvalidSpec(PermanentError):
    """A UserSync, manifest or environment that cannot be served; the message names the field."""

    reason = "InvalidSpec"


class SecretNotFound(PermanentError):
    """A referenced Secret, or its key, is missing or empty."""

    reason = "SecretNotFound"


class InsecureClerkURL(PermanentError):
    """`apiUrl` is not https, so Clerk's key would travel in the clear."""

    reason = "InsecureClerkURL"


class ClerkURLNotAllowed(PermanentError):
    """`apiUrl` is not among the URLs that this process may send Clerk's key to."""

    reason = "ClerkURLNotAllowed"


class ClerkRefused(PermanentError):
    """Clerk answered 401 or 403."""

    reason = "ClerkRefused"


class ClerkAnswerOdd(PermanentError):
    """Clerk answered with something that its API description does not promise."""

    reason = "ClerkAnswerOdd"


class WrongInstance(PermanentError):
    """The key belongs to another Clerk instance than the one this database is pinned to."""

    reason = "WrongInstance"


class UnknownPopulation(PermanentError):
    """First contact, and fewer than half of the sampled ids exist in the instance."""

    reason = "UnknownPopulation"


class DatabaseRefused(PermanentError):
    """PostgreSQL refuses the connection or the statement: password, right, database name."""

    reason = "DatabaseRefused"


class RoleSeesNotAll(PermanentError):
    """Row-level security would hide rows from our role."""

    reason = "RoleSeesNotAll"


class SchemaMissing(PermanentError):
    """The schema `usersync` is missing or older than this program, and we may not migrate it."""

    reason = "SchemaMissing"


class TableUnsupported(PermanentError):
    """A listed table cannot be served: a column is missing, or of a type such as uuid."""

    reason = "TableUnsupported"


class TablesMissing(TableUnsupported):
    """None of the listed tables exists: an empty database, or another schema, which must not look in sync."""

    reason = "TablesMissing"


class RequestRefused(PermanentError):
    """A person's request about one user cannot be met as it stands; nothing was changed."""

    reason = "RequestRefused"
