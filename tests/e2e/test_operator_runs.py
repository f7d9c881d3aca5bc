"""The operator as a process, from `kubectl apply` to mended tables and status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings, Endpoint, Fault, FaultName
from tests.support.databases import (
    fetch,
    fetch_value,
    rows_of,
    seed,
    seed_users,
    user_ids,
    user_ids_in,
    users_with_rows,
)
from tests.support.stage import ACCOUNT, Stage, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.controlplane import ControlPlane

GONE = user_ids(3)


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    """Forty users, no rate limit."""
    settings = EmulatorSettings(environment=Environment.PRODUCTION)
    async with ClerkEmulator(settings, users=40) as emulator:
        yield emulator


@pytest.fixture
async def stage(
    control_plane: ControlPlane, namespace: str, clerk: ClerkEmulator, database_url: str, tmp_path: Path
) -> AsyncIterator[Stage]:
    """Rows for thirty of the forty, for three users who are gone, and a foreign one."""
    await seed_users(database_url, list(clerk.users)[:30])
    await seed_users(database_url, [*GONE, "system"])
    stage = Stage(control_plane, namespace, clerk, database_url, tmp_path)
    stage.prepare()
    yield stage
    stage.close()


async def test_from_apply_to_mended_tables(stage: Stage) -> None:
    stage.start()
    await seed(stage.database_url, "user_progress", list(stage.clerk.users)[:1])
    stage.apply()
    status = await stage.until_run()
    assert status["changes"] == {
        "profilesCreated": 10,
        "profilesUpdated": 0,
        "usersRemoved": 3,
        "rowsRemoved": 21,
        "duplicatesRemoved": 1,
        "usersLeft": 0,
    }
    assert await users_with_rows(stage.database_url) == {*stage.clerk.users, "system"}
    assert len(await user_ids_in(stage.database_url)) == 41


async def test_the_status_says_what_was_found_and_when_the_next_run_is(stage: Stage) -> None:
    stage.start()
    stage.apply()
    status = await stage.until_run()
    drift = {name: value for name, value in status["drift"].items() if name != "tables"}
    assert drift == {
        "total": 0,
        "clerkUsers": 40,
        "synced": 40,
        "missingProgress": 0,
        "orphaned": 0,
        "duplicates": 0,
        "outdated": 0,
        "clerkOnly": 0,
        "foreign": 1,
        "retained": 0,
    }
    states = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert states == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "InSync": "True",
        "DeletionBlocked": "False",
        "RowLevelSecurity": "Unknown",
    }
    assert status["observedGeneration"] == 1
    assert status["nextRunTime"] > status["lastSuccessTime"]
    shown = stage.plane.kubectl("get", "usersync", "production", "-n", stage.namespace)
    assert "FullSync" in shown
    assert "Succeeded" in shown


async def test_users_deleted_at_clerk_are_removed_after_an_interval_and_nobody_else(stage: Stage) -> None:
    stage.start()
    stage.apply(interval="30s", deletion={"limits": {"window": "1s"}})
    first = await stage.until_run()
    gone = stage.clerk.delete_many(list(stage.clerk.users)[10:15], webhook=False)
    status = await stage.until_run(after=first["lastRun"]["startTime"])
    assert status["changes"]["usersRemoved"] == 5
    for user_id in gone:
        assert set((await rows_of(stage.database_url, user_id)).values()) == {0}
    assert await users_with_rows(stage.database_url) == {*stage.clerk.users, "system"}


async def test_a_mass_deletion_waits_for_a_person_who_approves_the_very_set(stage: Stage) -> None:
    stage.start()
    stage.apply()
    await stage.until_run()
    gone = stage.clerk.delete_many(list(stage.clerk.users)[10:30], webhook=False)
    stage.request_run("look")
    held = await stage.until_handled("look")
    assert (held["pendingDeletion"]["users"], held["changes"]["usersRemoved"]) == (20, 0)
    assert stage.condition("DeletionBlocked")["reason"] == "ThresholdExceeded"
    await stage.until_event("Warning", "ThresholdExceeded")
    newcomers = stage.clerk.delete_many(list(stage.clerk.users)[:6], webhook=False)
    digest = held["pendingDeletion"]["digest"]
    stage.plane.kubectl(
        "annotate", "usersync", "production", "-n", stage.namespace, f"usersync.dev/approve-deletion={digest}"
    )
    await stage.until_approved(digest)
    after = stage.status()
    assert after["changes"]["usersRemoved"] == 20
    assert after["pendingDeletion"]["users"] == 6
    assert after["pendingDeletion"]["digest"] != digest
    left = await users_with_rows(stage.database_url)
    assert not left & set(gone)
    assert left >= set(newcomers)
    (by,) = await fetch(stage.database_url, "SELECT approved_by FROM usersync.approvals WHERE used_at IS NOT NULL")
    assert "kubectl-annotate" in by["approved_by"]


async def test_a_user_is_not_removed_before_the_grace_period(stage: Stage) -> None:
    stage.start()
    stage.apply(deletion={"gracePeriod": "1h"})
    first = await stage.until_run()
    stage.clerk.delete_many(list(stage.clerk.users)[10:12], webhook=False)
    stage.request_run("look")
    status = await stage.until_handled("look")
    assert first["drift"]["orphaned"] < status["drift"]["orphaned"]
    assert status["changes"]["usersRemoved"] == 0
    assert "for the grace period" in stage.condition("Ready")["message"]


async def test_a_request_runs_at_once_and_is_answered(stage: Stage) -> None:
    stage.start()
    stage.apply()
    await stage.until_run()
    stage.clerk.sign_up()
    stage.request_run("now please")
    status = await stage.until_handled("now please")
    assert status["changes"]["profilesCreated"] == 1


async def test_suspended_nothing_runs_and_resumed_it_runs_at_once(stage: Stage) -> None:
    stage.start()
    stage.apply(suspend=True)
    stage.request_run("while suspended")
    status = await stage.until_handled("while suspended")
    assert "lastRun" not in status
    assert status["observedGeneration"] == 1
    assert "nextRunTime" not in status
    assert GONE[0] in await users_with_rows(stage.database_url)
    stage.apply(suspend=False)
    await stage.until_run()
    assert GONE[0] not in await users_with_rows(stage.database_url)


async def test_a_dry_run_says_what_it_would_do_and_changes_nothing(stage: Stage) -> None:
    before = await user_ids_in(stage.database_url)
    stage.start()
    stage.apply(dryRun=True)
    status = await stage.until_run()
    assert (status["changes"]["usersRemoved"], status["changes"]["profilesCreated"]) == (3, 10)
    assert (status["drift"]["total"], status["lastRun"]["dryRun"]) == (13, True)
    assert stage.condition("InSync")["status"] == "False"
    assert await user_ids_in(stage.database_url) == before


async def test_a_changed_spec_is_run_at_once(stage: Stage) -> None:
    stage.start()
    stage.apply(actions=["Analyze"])
    status = await stage.until_run()
    assert (status["actions"], status["drift"]["total"]) == ("Analyze", 13)
    stage.apply(actions=["FixProgress", "Cleanup"])
    await until(
        lambda: stage.status().get("observedGeneration") == 2, seconds=60, what="generation 2", details=stage.describe
    )
    status = stage.status()
    assert (status["actions"], status["drift"]["total"]) == ("FixProgress, Cleanup", 0)


async def test_there_is_one_event_for_each_transition(stage: Stage) -> None:
    stage.start()
    stage.apply()
    await stage.until_run()
    for number in range(2):
        stage.request_run(f"again {number}")
        await stage.until_handled(f"again {number}")
    stage.clerk.switch_on(Fault(FaultName.FORBIDDEN))
    for number in range(2):
        stage.request_run(f"refused {number}")
        await stage.until_handled(f"refused {number}")
    stage.clerk.faults.clear()
    stage.request_run("good again")
    await stage.until_handled("good again")
    await stage.until_event("Normal", "Succeeded", count=2)
    assert stage.events() == [("Normal", "Succeeded"), ("Warning", "ClerkRefused"), ("Normal", "Succeeded")]


async def test_deleting_the_resource_never_hangs_and_touches_no_data(stage: Stage) -> None:
    operator = stage.start()
    stage.apply()
    await stage.until_run()
    before = await users_with_rows(stage.database_url)
    stage.plane.kubectl("delete", "usersync", "production", "-n", stage.namespace, "--timeout=10s")
    await operator.until_logged("resource_gone")
    assert stage.resource() is None
    assert await users_with_rows(stage.database_url) == before
    operator.stop()
    stage.apply()
    stage.plane.kubectl("delete", "usersync", "production", "-n", stage.namespace, "--timeout=10s")
    assert stage.resource() is None


async def test_the_resource_is_left_without_finalizers_and_annotations_of_ours(stage: Stage) -> None:
    stage.start()
    stage.apply()
    await stage.until_run()
    resource = stage.resource()
    assert resource is not None
    assert "finalizers" not in resource["metadata"]
    assert set(resource["metadata"]["annotations"]) == {"kubectl.kubernetes.io/last-applied-configuration"}


async def test_no_right_is_used_that_the_role_does_not_give(stage: Stage) -> None:
    operator = stage.start()
    stage.apply()
    await stage.until_run()
    operator.stop()
    used = stage.plane.rights_used(stage.namespace, ACCOUNT)
    assert used
    assert [right for right in used if not right.allowed] == []


async def test_all_namespaces_are_served_with_the_rights_of_the_role_given_for_the_cluster(stage: Stage) -> None:
    name = f"usersync-{stage.namespace}"
    role = json.loads(stage.plane.kubectl("get", "role", ACCOUNT, "-n", stage.namespace, "-o", "json"))
    stage.plane.kubectl("delete", "rolebinding", ACCOUNT, "-n", stage.namespace)
    cluster_role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": role["rules"],
    }
    stage.plane.kubectl("create", "-f", "-", stdin=json.dumps(cluster_role))
    account = f"--serviceaccount={stage.namespace}:{ACCOUNT}"
    stage.plane.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", account)
    operator = stage.start(everywhere=True)
    await operator.until_logged("resources_listed")
    stage.apply()
    await stage.until_run()
    stage.plane.kubectl("delete", "clusterrolebinding", name)


async def test_sigterm_lets_the_run_under_way_end(stage: Stage) -> None:
    operator = stage.start()
    stage.clerk.switch_on(Fault(FaultName.SLOW, endpoint=Endpoint.LIST, times=1, seconds=3))
    stage.apply()
    await operator.until_logged("run_started")
    operator.process.terminate()
    await until(lambda: operator.process.poll() is not None, seconds=30, what="the end")
    assert operator.process.returncode == 0
    assert stage.last_run()["result"] == "Succeeded"


async def test_the_probes_and_metrics_answer(stage: Stage) -> None:
    operator = stage.start()
    stage.apply()
    await stage.until_run()
    assert (await operator.probe("/livez"))[0] == 200
    assert (await operator.probe("/readyz"))[0] == 200
    _, text = await operator.probe("/metrics")
    labels = f'name="production",namespace="{stage.namespace}"'
    assert f'usersync_runs_total{{{labels},reason="Succeeded",result="Succeeded"}} 1.0' in text


async def test_a_run_is_one_log_line_without_ids_or_secrets(stage: Stage) -> None:
    operator = stage.start()
    stage.apply()
    await stage.until_run()
    await operator.until_logged("run_succeeded")
    (line,) = operator.lines("run_succeeded")
    assert (line["users_removed"], line["drift_left"]) == (3, 0)
    text = operator.log.read_text()
    for secret in (stage.clerk.secret_key, stage.database_url, *GONE, next(iter(stage.clerk.users))):
        assert secret not in text


async def test_two_operators_never_run_at_once(stage: Stage) -> None:
    stage.start()
    stage.start()
    stage.clerk.switch_on(Fault(FaultName.SLOW, endpoint=Endpoint.LIST, times=3, seconds=1))
    stage.apply(interval="30s")
    first = await stage.until_run()
    await stage.until_run(after=first["lastRun"]["startTime"])
    overlaps = await fetch_value(
        stage.database_url,
        "SELECT count(*) FROM usersync.runs a JOIN usersync.runs b ON a.id < b.id "
        "AND a.started_at < coalesce(b.finished_at, now()) AND b.started_at < coalesce(a.finished_at, now())",
    )
    assert overlaps == 0
    assert stage.condition("Ready")["status"] == "True"
    assert await users_with_rows(stage.database_url) == {*stage.clerk.users, "system"}
    assert [reason for kind, reason in stage.events() if kind == "Warning"] == []


async def test_the_status_fits_the_schema_without_a_warning(stage: Stage) -> None:
    stage.start()
    stage.apply()
    await stage.until_run()
    resource = json.loads(
        stage.plane.kubectl(
            "get", "usersync", "production", "-n", stage.namespace, "-o", "json", "--show-managed-fields"
        )
    )
    managers = {entry["manager"] for entry in resource["metadata"]["managedFields"] if entry.get("subresource")}
    assert managers == {"usersync"}
