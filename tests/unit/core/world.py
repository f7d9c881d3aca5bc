"""A sweep on fakes: one instance, one database, one clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from controller.core.sweeping import Sweeper
from controller.core.targets import Action, Approval, Deletion, Limits, Spec
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.directory import INSTANCE, FakeDirectory, user
from tests.support.fakes.store import FakeStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from controller.core.outcomes import Outcome
    from controller.core.plans import Plan
    from controller.core.ports import Phase
    from controller.core.users import UserId

NO_LIMITS = Limits(users=1_000_000, percent=100)
AT_ONCE = Deletion(grace_period=timedelta())
"""Nobody waits: for tests of everything else that must stop a deletion."""


@dataclass
class FakeWatcher:
    """Permits unless told otherwise; notes what it sees. `on_permit` happens between planning and applying."""

    permits: bool = True
    shows: bool = False
    on_permit: Callable[[], None] = lambda: None
    asked: list[Plan] = field(default_factory=list)
    shown: dict[str, list[UserId]] = field(default_factory=dict)
    progress: list[tuple[Phase, int]] = field(default_factory=list)

    def advance(self, phase: Phase, done: int) -> None:
        self.progress.append((phase, done))

    def show(self, kind: str, user_ids: Sequence[UserId]) -> None:
        self.shown.setdefault(kind, []).extend(user_ids)

    async def permit(self, plan: Plan) -> bool:
        self.asked.append(plan)
        self.on_permit()
        return self.permits


@dataclass
class World:
    """Users 0 to `synced` live and have a row in every table."""

    synced: int = 100
    clock: FakeClock = field(default_factory=FakeClock)
    directory: FakeDirectory = field(default_factory=FakeDirectory)
    watcher: FakeWatcher = field(default_factory=FakeWatcher)
    store: FakeStore = field(init=False)

    def __post_init__(self) -> None:
        """Sign the users up."""
        self.store = FakeStore(self.clock, pinned=INSTANCE.id)
        ids = [user(number) for number in range(self.synced)]
        self.directory.sign_up(*ids)
        self.store.add_users(*ids)

    def gone(self, count: int) -> list[UserId]:
        """Delete the first users in Clerk; their rows stay. Return them."""
        ids = [user(number) for number in range(count)]
        self.directory.delete(*ids)
        return ids

    async def sweep(
        self,
        *actions: Action,
        limits: Limits | None = None,
        deletion: Deletion = AT_ONCE,
        approval: Approval | None = None,
        dry_run: bool = False,
    ) -> Outcome:
        """Do one run; FullSync, and nobody waits, unless told otherwise."""
        sweeper = Sweeper(self.directory, self.store, self.clock, self.watcher)
        deletion = replace(deletion, limits=limits) if limits else deletion
        spec = Spec(
            "team/app", actions=actions or (Action.FULL_SYNC,), deletion=deletion, approval=approval, dry_run=dry_run
        )
        return await sweeper.sweep(spec, holder="test")
