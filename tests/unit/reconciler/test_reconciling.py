from __future__ import annotations

import copy
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from controller.core.claims import ClaimKind
from controller.core.events import Delivery
from controller.core.ports import Unwatched
from controller.core.sweeping import Sweeper
from controller.errors import KubernetesRefused, KubernetesUnavailable, SecretNotFound, TargetBusy, UserSyncError
from controller.kube.client import Written
from controller.reconciler.metrics import Metrics
from controller.reconciler.queue import Key
from controller.reconciler.reconciling import Reconciler, Tools
from controller.settings import Credentials
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.directory import FakeDirectory, user
from tests.support.fakes.store import FakeStore
from tests.support.usersyncs import usersync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from controller.core.targets import Spec
    from controller.kube.client import Resource
    from controller.kube.events import Notice
    from controller.kube.specs import UserSync

KEY = Key("app", "production")


@dataclass
class FakeApi:
    """One resource in memory, with the parts of an API server that a look depends on."""

    resource: dict[str, Any] | None
    secrets: Credentials | SecretNotFound = field(default_factory=lambda: Credentials("sk_test_1", "postgres://x"))
    errors: dict[str, UserSyncError] = field(default_factory=dict)
    writes: int = 0

    async def get_user_sync(self, namespace: str, name: str) -> Resource | None:
        assert (namespace, name) == KEY
        self._answer("get")
        return copy.deepcopy(self.resource)

    async def credentials(self, user_sync: UserSync) -> Credentials:
        assert user_sync.name == "production"
        self._answer("credentials")
        if isinstance(self.secrets, SecretNotFound):
            raise self.secrets
        return self.secrets

    async def write_status(
        self, observed: Resource, build: Callable[[Mapping[str, Any]], dict[str, Any]]
    ) -> Written | None:
        self._answer("write")
        if self.resource is None or self.resource["metadata"]["uid"] != observed["metadata"]["uid"]:
            return None
        before = self.resource["status"]
        self.resource["status"] = after = build(copy.deepcopy(before))
        self.writes += before != after
        return Written(before, after)

    def _answer(self, call: str) -> None:
        if call in self.errors:
            raise self.errors[call]


@dataclass
class FakeEvents:
    told: list[str] = field(default_factory=list)

    async def post(self, resource: Resource, notice: Notice) -> None:
        assert resource["metadata"]["name"] == "production"
        self.told.append(notice.reason)


@dataclass
class World:
    """A reconciler, and everything around it."""

    api: FakeApi
    directory: FakeDirectory
    store: FakeStore
    clock: FakeClock = field(default_factory=FakeClock)
    events: FakeEvents = field(default_factory=FakeEvents)
    metrics: Metrics = field(default_factory=Metrics)
    runs: Counter[str] = field(default_factory=Counter)
    fails: Exception | None = None

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Lose what the process knew."""
        tools = Tools(self.api, self.events, self.open_sweeper, self.clock, self.metrics, "pod-1")
        self.reconciler = Reconciler(tools)

    @asynccontextmanager
    async def open_sweeper(self, spec: Spec, credentials: Credentials) -> AsyncIterator[Sweeper]:
        self.runs[credentials.clerk_secret_key] += 1
        if self.fails is not None:
            raise self.fails
        assert spec.name == str(KEY)
        yield Sweeper(self.directory, self.store, self.clock, Unwatched())

    @property
    def status(self) -> dict[str, Any]:
        assert self.api.resource is not None
        status: dict[str, Any] = self.api.resource["status"]
        return status

    def condition(self, kind: str) -> str:
        return next(str(c["status"]) for c in self.status["conditions"] if c["type"] == kind)

    def edit(self, **spec: Any) -> None:
        assert self.api.resource is not None
        self.api.resource["spec"] |= spec
        self.api.resource["metadata"]["generation"] += 1

    def request(self, value: str) -> None:
        assert self.api.resource is not None
        self.api.resource["metadata"]["annotations"] = {"usersync.dev/reconcile-at": value}

    def approve(self, digest: str) -> None:
        assert self.api.resource is not None
        self.api.resource["metadata"]["annotations"] = {"usersync.dev/approve-deletion": digest}

    async def look(self) -> float | None:
        return await self.reconciler.look(KEY)


def world(**spec: Any) -> World:
    resource = usersync(**{"actions": ["FullSync"], **spec})
    resource["metadata"] |= {"namespace": "app", "uid": "1", "generation": 1, "resourceVersion": "1"}
    resource["status"] = {"observedGeneration": -1}
    directory = FakeDirectory()
    directory.sign_up(*(user(number) for number in range(20)))
    clock = FakeClock()
    store = FakeStore(clock=clock)
    return World(FakeApi(resource), directory, store, clock)


async def test_a_new_resource_is_run_and_reported() -> None:
    w = world()
    assert await w.look() == 3600
    assert w.condition("Ready") == "True"
    assert w.status["changes"]["profilesCreated"] == 20
    assert w.status["observedGeneration"] == 1
    assert w.events.told == ["Succeeded"]


async def test_before_the_interval_is_over_nothing_happens() -> None:
    w = world()
    await w.look()
    w.clock.advance(timedelta(minutes=10))
    assert await w.look() == 3000
    assert w.runs.total() == 1


async def test_after_the_interval_it_runs_again_with_one_write_and_no_event() -> None:
    w = world()
    await w.look()
    w.clock.advance(timedelta(hours=1))
    writes = w.api.writes
    await w.look()
    assert w.runs.total() == 2
    assert w.api.writes == writes + 1
    assert w.events.told == ["Succeeded"]


async def test_a_restart_neither_skips_a_run_nor_repeats_one() -> None:
    w = world()
    await w.look()
    w.restart()
    await w.look()
    assert w.runs.total() == 1
    w.clock.advance(timedelta(hours=5))
    w.restart()
    wait = await w.look()
    assert w.runs.total() == 1
    assert wait is not None
    assert 0 < wait <= 30
    w.clock.advance(timedelta(seconds=wait))
    await w.look()
    assert w.runs.total() == 2


async def test_a_changed_spec_runs_at_once() -> None:
    w = world()
    await w.look()
    w.edit(interval="2h")
    assert await w.look() == 7200
    assert (w.runs.total(), w.status["observedGeneration"]) == (2, 2)


async def test_a_request_runs_at_once_and_only_once() -> None:
    w = world()
    await w.look()
    w.request("now")
    await w.look()
    await w.look()
    assert (w.runs.total(), w.status["lastHandledReconcileAt"]) == (2, "now")


async def test_a_held_back_set_goes_once_its_digest_is_approved_and_not_before() -> None:
    w = world(deletion={"gracePeriod": "0s"})
    await w.look()
    w.directory.delete(*(user(number) for number in range(6)))
    w.request("now")
    await w.look()
    assert w.condition("DeletionBlocked") == "True"
    digest = w.status["pendingDeletion"]["digest"]
    w.approve("0" * 64)
    await w.look()
    assert (w.status["drift"]["orphaned"], w.status["lastHandledApproval"]) == (6, "0" * 64)
    w.approve(digest)
    await w.look()
    assert (w.status["changes"]["usersRemoved"], w.status["receipts"]["count"]) == (6, 6)
    assert w.condition("DeletionBlocked") == "False"
    assert "pendingDeletion" not in w.status
    await w.look()
    assert w.runs.total() == 4


async def test_claims_that_wait_for_the_limits_are_said() -> None:
    w = world()
    await w.look()
    await w.store.record_claim(Delivery("msg_1", "user.deleted"), user(1), ClaimKind.DELETION)
    (claim,) = await w.store.take_claims(1, timedelta(minutes=1))
    await w.store.hold_claim(claim, timedelta(minutes=10))
    w.request("now")
    await w.look()
    blocked = next(each for each in w.status["conditions"] if each["type"] == "DeletionBlocked")
    assert (blocked["status"], blocked["reason"]) == ("True", "AwaitingApproval")
    assert "1 deletion that user.deleted announced" in blocked["message"]


async def test_suspended_nothing_runs_and_requests_are_answered() -> None:
    w = world()
    await w.look()
    w.edit(suspend=True)
    w.request("now")
    w.clock.advance(timedelta(days=1))
    await w.look()
    writes = w.api.writes
    await w.look()
    assert w.runs.total() == 1
    assert w.api.writes == writes
    assert (w.status["observedGeneration"], w.status["lastHandledReconcileAt"]) == (2, "now")
    assert w.condition("Ready") == "True"


async def test_resumed_it_runs_at_once() -> None:
    w = world(suspend=True)
    await w.look()
    w.edit(suspend=False)
    assert await w.look() == 3600
    assert w.runs.total() == 1


async def test_a_missing_secret_is_reported_and_the_next_good_run_clears_it() -> None:
    w = world()
    there = w.api.secrets
    w.api.secrets = SecretNotFound("Secret app/clerk does not exist.")
    assert await w.look() == 30
    assert (w.condition("Stalled"), w.condition("Ready")) == ("True", "False")
    w.clock.advance(timedelta(seconds=30))
    assert await w.look() == 60
    w.api.secrets = there
    w.clock.advance(timedelta(seconds=60))
    await w.look()
    assert (w.condition("Stalled"), w.condition("Ready")) == ("False", "True")
    assert w.events.told == ["SecretNotFound", "Succeeded"]


async def test_secrets_are_read_afresh_for_each_run() -> None:
    w = world()
    await w.look()
    w.api.secrets = Credentials("sk_test_2", "postgres://x")
    w.clock.advance(timedelta(hours=1))
    await w.look()
    assert w.runs == {"sk_test_1": 1, "sk_test_2": 1}


async def test_a_fault_of_our_own_becomes_a_condition_and_is_tried_again() -> None:
    w = world()
    w.fails = ValueError("boom")
    assert await w.look() == 10
    assert w.events.told == ["InternalError"]
    assert w.condition("Reconciling") == "True"


async def test_an_invalid_resource_is_reported_without_a_run() -> None:
    w = world(schedule={"cron": "0 3 * * 0"})
    await w.look()
    assert w.runs.total() == 0
    assert w.events.told == ["InvalidSpec"]
    assert "spec.schedule" in w.status["lastRun"]["message"]


async def test_another_run_on_the_target_is_waited_for_without_a_word() -> None:
    w = world()
    w.fails = TargetBusy("another run")
    assert await w.look() == 10
    assert await w.look() == 10
    assert w.runs.total() == 1
    assert w.condition("Ready") == "Unknown"
    assert w.events.told == []
    w.fails = None
    w.clock.advance(timedelta(seconds=10))
    await w.look()
    assert w.condition("Ready") == "True"


async def test_a_run_of_another_operator_is_not_repeated() -> None:
    w = world()
    await w.look()
    w.clock.advance(timedelta(hours=1))
    w.fails = TargetBusy("another run")
    await w.look()
    w.status["nextRunTime"] = "2999-01-01T00:00:00Z"
    w.clock.advance(timedelta(seconds=10))
    assert await w.look() == 3600
    assert w.runs.total() == 2


async def test_a_target_that_stays_busy_is_reported_in_the_end() -> None:
    w = world()
    w.fails = TargetBusy("another run")
    for _ in range(14):
        await w.look()
        w.clock.advance(timedelta(seconds=10))
    assert w.events.told == ["TargetBusy"]


async def test_a_resource_that_is_gone_is_forgotten() -> None:
    w = world()
    await w.look()
    w.api.resource = None
    assert await w.look() is None
    labels = {"namespace": "app", "name": "production"}
    assert w.metrics.registry.get_sample_value("usersync_last_success_timestamp_seconds", labels) is None


async def test_a_resource_that_is_being_deleted_is_left_alone() -> None:
    w = world()
    assert w.api.resource is not None
    w.api.resource["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert await w.look() is None
    assert w.runs.total() == w.api.writes == 0


async def test_one_that_was_replaced_during_the_run_is_looked_at_again() -> None:
    w = world()

    def replace(method: str) -> None:
        assert w.api.resource is not None
        if method == "list_users":
            w.api.resource["metadata"]["uid"] = "2"

    w.directory.before = replace
    assert await w.look() == 1
    assert w.status.get("lastRun") is None


async def test_an_api_server_that_is_away_is_asked_again_soon() -> None:
    w = world()
    w.api.errors["get"] = KubernetesUnavailable("away")
    assert await w.look() == 60


async def test_an_api_server_that_goes_away_before_the_secrets_are_read_is_no_failure_of_the_run() -> None:
    w = world()
    w.api.errors["credentials"] = KubernetesUnavailable("away")
    assert await w.look() == 1
    assert w.condition("Ready") == "Unknown"


async def test_a_report_that_cannot_be_written_is_kept_and_the_run_is_not_repeated() -> None:
    w = world(actions=["Analyze"])
    w.directory.before = lambda method: w.api.errors.update(write=KubernetesRefused(method))
    for _ in range(8):
        await w.look()
    assert w.runs.total() == 1
    w.api.errors.clear()
    w.directory.before = lambda _: None
    assert await w.look() == 1
    assert w.status["lastRun"]["result"] == "Succeeded"
    await w.look()
    assert w.runs.total() == 1
    assert w.events.told == ["Succeeded"]


async def test_an_api_server_that_stays_away_is_asked_less_and_less() -> None:
    w = world()
    await w.look()
    w.api.errors["get"] = KubernetesUnavailable("away")
    assert [await w.look() for _ in range(7)] == [1, 2, 5, 10, 30, 60, 60]
    del w.api.errors["get"]
    await w.look()
    w.api.errors["get"] = KubernetesUnavailable("away again")
    assert await w.look() == 1


async def test_a_request_during_a_run_is_handled_by_the_next_one() -> None:
    w = world()

    def ask(method: str) -> None:
        if method == "list_users":
            w.request("later")

    w.directory.before = ask
    await w.look()
    assert "lastHandledReconcileAt" not in w.status
    await w.look()
    assert (w.runs.total(), w.status["lastHandledReconcileAt"]) == (2, "later")
