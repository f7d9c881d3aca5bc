"""What one `UserSync` asks for, freed from Kubernetes and from manifests.

Made by `kube.specs` (from a resource or a manifest) or from the environment; read by all. Holds no
secret: those travel apart, in `settings.Credentials`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.core.mapping import MappedColumn


class Action(Enum):
    """What a run may do; the values are those of `spec.actions`."""

    ANALYZE = "Analyze"
    FIX_PROGRESS = "FixProgress"
    CLEANUP = "Cleanup"
    FIX_DUPLICATES = "FixDuplicates"
    FULL_SYNC = "FullSync"


FULL_SYNC = (Action.FIX_PROGRESS, Action.CLEANUP, Action.FIX_DUPLICATES)
"""What `FullSync` stands for, in this order."""


def expand(actions: tuple[Action, ...]) -> frozenset[Action]:
    """Replace `FullSync` by what it stands for; every run analyses."""
    repairs = set(actions)
    if Action.FULL_SYNC in repairs:
        repairs |= set(FULL_SYNC)
    return frozenset(repairs - {Action.FULL_SYNC, Action.ANALYZE})


class Role(Enum):
    """What a table is to a user: the one `Profile`, or `Data`."""

    PROFILE = "Profile"
    DATA = "Data"


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the target; names are plain identifiers, quoted by the adapter.

    `values`: the columns that hold what Clerk knows of the user; of the profile table alone.
    """

    name: str
    role: Role = Role.DATA
    user_id_column: str = "user_id"
    created_at_column: str = "created_at"
    values: tuple[MappedColumn, ...] = ()


DEFAULT_TABLES = (
    Table("user_progress", Role.PROFILE),
    Table("tasks"),
    Table("daily_checkins"),
    Table("moods"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """The tables of one database and schema. Exactly one of them is the `Profile`."""

    schema: str = "public"
    tables: tuple[Table, ...] = DEFAULT_TABLES

    @property
    def profile(self) -> Table:
        """The table with one row per user."""
        return next(table for table in self.tables if table.role is Role.PROFILE)

    @property
    def mapping(self) -> tuple[MappedColumn, ...]:
        """The mapped columns of the profile table."""
        return self.profile.values


class DeletionPolicy(Enum):
    """What becomes of the rows of a user who is gone; the values are those of `spec.deletion.policy`."""

    ARCHIVE = "Archive"
    """Removed, and kept in the archive for the retention."""
    ERASE = "Erase"
    """Removed for good, what the archive has of the user included."""
    RETAIN = "Retain"
    """Left where they are; only tombstone and receipt are written."""


class RowLevelSecurity(Enum):
    """What a run does about the policies of the listed tables; the values are those of `spec.rowLevelSecurity`."""

    IGNORE = "Ignore"
    CHECK = "Check"
    """Reported, nothing is changed."""
    ENFORCE = "Enforce"
    """Mended where that takes nothing away from the application (`policies`)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many users may go unapproved within `window`, by runs and events together.

    Reaching a limit is allowed, passing it is not. `percent` is of the users who have rows or were removed
    within the window.
    """

    users: int = 500
    percent: int = 10
    window: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Deletion:
    """How rows may be removed: how long a user must have been absent, how many users, and what is kept."""

    policy: DeletionPolicy = DeletionPolicy.ARCHIVE
    grace_period: timedelta = timedelta(hours=24)
    limits: Limits = field(default_factory=Limits)
    retention: timedelta = timedelta(days=30)


class OnUserCreated(Enum):
    """What `user.created` asks for; the values are those of `spec.webhook.onUserCreated`."""

    CREATE_PROFILE = "CreateProfile"
    IGNORE = "Ignore"


class OnUserDeleted(Enum):
    """What `user.deleted` asks for; the values are those of `spec.webhook.onUserDeleted`."""

    IMMEDIATE = "Immediate"
    """The user is looked up, and removed on the proof."""
    HOLDBACK = "Holdback"
    """The same, once the holdback is over."""
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True)
class Webhook:
    """What Clerk's events do. `holdback`: how long a deletion that was announced waits for its proof."""

    on_user_created: OnUserCreated = OnUserCreated.CREATE_PROFILE
    on_user_deleted: OnUserDeleted = OnUserDeleted.IMMEDIATE
    holdback: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class AccountDeletion:
    """How a user may end his own account through the webhook service.

    `issuer`: whose session tokens are taken; None: of any address of the instance. `authorized_parties`: the origins
    that tokens may be made for. `reverify_within`: how long ago the user may have proved who he is; zero: any time.
    """

    enabled: bool = False
    issuer: str | None = None
    authorized_parties: tuple[str, ...] = ()
    reverify_within: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class ClerkSource:
    """Where the desired users are. `rate_limit_share` is in percent of the instance's limit."""

    api_url: str = "https://api.clerk.com"
    instance_id: str | None = None
    rate_limit_share: int = 50


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's word that one stored set of users may go, whatever the limits.

    `digest` names the set; `given_by` says as much of the person as can be known.
    """

    digest: str
    given_by: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run may change."""

    actions: frozenset[Action] = frozenset()
    deletion: Deletion = field(default_factory=Deletion)
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """One `UserSync`, as the core reads it. `name` is `namespace/name`, for people and the audit."""

    name: str
    clerk: ClerkSource = field(default_factory=ClerkSource)
    target: Target = field(default_factory=Target)
    actions: tuple[Action, ...] = (Action.ANALYZE,)
    interval: timedelta = timedelta(hours=1)
    suspend: bool = False
    dry_run: bool = False
    deletion: Deletion = field(default_factory=Deletion)
    approval: Approval | None = None
    webhook: Webhook = field(default_factory=Webhook)
    account_deletion: AccountDeletion = field(default_factory=AccountDeletion)
    row_level_security: RowLevelSecurity = RowLevelSecurity.CHECK

    def policy(self) -> Policy:
        """What a run of this resource may change."""
        return Policy(expand(self.actions), self.deletion, self.dry_run)

    @property
    def longest_gap(self) -> timedelta:
        """How far two complete listings may lie apart for a user's absence to go on from one to the next."""
        return max(3 * self.interval, self.deletion.grace_period)
