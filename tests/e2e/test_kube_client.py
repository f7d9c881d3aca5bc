"""The traps of the Kubernetes client, each against a real API server."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from controller.errors import CRDMissing, KubernetesRefused, KubernetesUnavailable, SecretNotFound
from controller.kube.client import ApiServer, Calls
from controller.kube.events import Events, Notice, Severity
from controller.kube.specs import read_user_sync
from controller.kube.watching import Change, ChangeKind, watch_user_syncs
from tests.support.controlplane import ControlPlane
from tests.support.usersyncs import database, usersync

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
    from pathlib import Path

    from tests.support.controlplane import Kubectl, Programs

MANIFEST = """
apiVersion: usersync.dev/v1alpha1
kind: UserSync
metadata: {name: NAME}
spec:
  clerk: {secretKeyRef: {name: clerk, key: CLERK_SECRET_KEY}}
  database: {urlSecretRef: {name: supabase, key: DATABASE_URL}}
"""
AT = "2026-11-23T10:00:00Z"
READY = {"type": "Ready", "status": "True", "reason": "RunSucceeded", "message": "", "lastTransitionTime": AT}


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[ApiServer]:
    async with ApiServer.open(kubeconfig=str(control_plane.kubeconfig)) as server:
        yield server


def apply(kubectl: Kubectl, name: str = "production") -> None:
    kubectl("apply", "-f", "-", stdin=MANIFEST.replace("NAME", name))


async def observe(api: ApiServer, namespace: str) -> dict[str, Any]:
    resource = await api.get_user_sync(namespace, "production")
    assert resource is not None
    return resource


def always(status: dict[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda _: status


async def test_a_resource_that_is_not_there_is_none(api: ApiServer, namespace: str) -> None:
    assert await api.get_user_sync(namespace, "nobody") is None


async def test_a_kind_that_is_not_served_does_not_look_as_if_the_resource_were_gone(
    programs: Programs, tmp_path: Path
) -> None:
    with ControlPlane(programs, tmp_path) as plane:
        async with ApiServer.open(kubeconfig=str(plane.kubeconfig)) as api:
            with pytest.raises(KubernetesUnavailable, match="does not serve usersyncs"):
                await api.get_user_sync("default", "production")
            with pytest.raises(CRDMissing, match=r"apply crds/usersync\.yaml"):
                await api.list_user_syncs("default")


async def test_a_status_is_written_whole(api: ApiServer, namespace: str, kubectl: Kubectl) -> None:
    apply(kubectl)
    resource = await observe(api, namespace)
    await api.write_status(resource, always({"observedGeneration": 1, "conditions": [READY], "actions": "Analyze"}))
    await api.write_status(resource, always({"observedGeneration": 1, "conditions": [READY]}))
    assert (await observe(api, namespace))["status"] == {"observedGeneration": 1, "conditions": [READY]}


async def test_an_identical_status_is_not_written(api: ApiServer, namespace: str, kubectl: Kubectl) -> None:
    apply(kubectl)
    status = {"observedGeneration": 1, "conditions": [READY]}
    await api.write_status(await observe(api, namespace), always(status))
    before = await observe(api, namespace)
    await api.write_status(before, always(dict(status)))
    assert (await observe(api, namespace))["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_a_recreated_object_never_gets_its_predecessors_status(
    api: ApiServer, namespace: str, kubectl: Kubectl
) -> None:
    apply(kubectl)
    old = await observe(api, namespace)
    kubectl("delete", "usersync", "production", "--wait=false")
    apply(kubectl)
    assert await api.write_status(old, always({"observedGeneration": 7})) is None
    assert (await observe(api, namespace))["status"] == {"observedGeneration": -1}


async def test_one_recreated_between_the_last_look_and_the_write_does_not_get_it_either(
    api: ApiServer, namespace: str, kubectl: Kubectl
) -> None:
    apply(kubectl)
    old = await observe(api, namespace)
    built = 0

    def recreate(_: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal built
        built += 1
        kubectl("delete", "usersync", "production", "--wait=false")
        apply(kubectl)
        return {"observedGeneration": 7}

    assert await api.write_status(old, recreate) is None
    assert built == 1
    assert (await observe(api, namespace))["status"] == {"observedGeneration": -1}


async def test_somebody_elses_newer_word_is_built_upon(api: ApiServer, namespace: str, kubectl: Kubectl) -> None:
    apply(kubectl)
    resource = await observe(api, namespace)
    seen: list[object] = []

    def build(before: Mapping[str, Any]) -> dict[str, Any]:
        seen.append(before.get("actions"))
        if len(seen) == 1:
            patch = '{"status":{"actions":"Cleanup"}}'
            kubectl("patch", "usersync", "production", "--subresource=status", "--type=merge", "-p", patch)
        return {**before, "observedGeneration": 1}

    await api.write_status(resource, build)
    assert seen == [None, "Cleanup"]
    assert (await observe(api, namespace))["status"] == {"observedGeneration": 1, "actions": "Cleanup"}


@pytest.mark.parametrize(
    "status",
    [
        {"bogus": 1},
        {"conditions": [READY, READY]},
        {"conditions": [{**READY, "reason": ""}]},
        {"actions": None},
        {"conditions": [{**READY, "message": "x" * 40_000}]},
    ],
    ids=["unknown field", "a condition twice", "empty reason", "null", "too long"],
)
async def test_a_status_that_the_schema_does_not_take_is_not_tried_again(
    api: ApiServer, namespace: str, kubectl: Kubectl, status: dict[str, Any]
) -> None:
    apply(kubectl)
    with pytest.raises(KubernetesRefused, match="write the status"):
        await api.write_status(await observe(api, namespace), always(status))


async def test_secrets_are_read_by_name(api: ApiServer, namespace: str, kubectl: Kubectl) -> None:
    kubectl("create", "secret", "generic", "clerk", "--from-literal=CLERK_SECRET_KEY=sk_test_1\n")
    kubectl("create", "secret", "generic", "supabase", "--from-literal=DATABASE_URL=postgres://x")
    apply(kubectl)
    credentials = await api.credentials(read_user_sync(await observe(api, namespace)))
    assert (credentials.clerk_secret_key, credentials.database_url) == ("sk_test_1", "postgres://x")


async def test_the_admins_url_is_read_for_runs_and_never_for_the_webhook_service(
    api: ApiServer, namespace: str, kubectl: Kubectl
) -> None:
    kubectl("create", "secret", "generic", "clerk", "--from-literal=CLERK_SECRET_KEY=sk_test_1")
    kubectl(
        "create", "secret", "generic", "supabase", "--from-literal=DATABASE_URL=postgres://x", "--from-literal=ca=CA"
    )
    admin = {"name": "admin", "key": "DATABASE_URL"}
    section = database(adminUrlSecretRef=admin, caSecretRef={"name": "supabase", "key": "ca"})
    kubectl("apply", "-f", "-", stdin=json.dumps(usersync(database=section)))
    user_sync = read_user_sync(await observe(api, namespace))
    served = await api.credentials(user_sync, webhooks=True)
    assert (served.database_ca, served.admin_url) == ("CA", None)
    with pytest.raises(SecretNotFound, match=f"Secret {namespace}/admin does not exist"):
        await api.credentials(user_sync)
    kubectl("create", "secret", "generic", "admin", "--from-literal=DATABASE_URL=postgres://admin")
    assert (await api.credentials(user_sync)).admin_url == "postgres://admin"


async def test_every_missing_secret_is_named_with_what_to_do(api: ApiServer, namespace: str, kubectl: Kubectl) -> None:
    kubectl("create", "secret", "generic", "clerk", "--from-literal=OTHER=1")
    apply(kubectl)
    with pytest.raises(SecretNotFound) as caught:
        await api.credentials(read_user_sync(await observe(api, namespace)))
    assert f"Secret {namespace}/clerk has no key CLERK_SECRET_KEY (its keys: OTHER)" in str(caught.value)
    assert f"Secret {namespace}/supabase does not exist" in str(caught.value)


async def test_an_empty_secret_counts_as_missing(api: ApiServer, namespace: str, kubectl: Kubectl) -> None:
    kubectl("create", "secret", "generic", "clerk", "--from-literal=CLERK_SECRET_KEY=")
    kubectl("create", "secret", "generic", "supabase", "--from-literal=DATABASE_URL=postgres://x")
    apply(kubectl)
    with pytest.raises(SecretNotFound, match="empty or not text"):
        await api.credentials(read_user_sync(await observe(api, namespace)))


async def test_an_event_is_seen_by_kubectl_and_a_repeat_is_counted(
    api: ApiServer, namespace: str, kubectl: Kubectl
) -> None:
    apply(kubectl)
    resource, events = await observe(api, namespace), Events(api, "pod-1")
    for _ in range(3):
        await events.post(resource, Notice(Severity.WARNING, "SecretNotFound", "Secret app/clerk does not exist"))
    await events.post(resource, Notice(Severity.NORMAL, "RunSucceeded", "x" * 5000))
    described = kubectl("describe", "usersync", "production")
    assert "x3 over" in described
    assert described.count("SecretNotFound") == 1
    assert "RunSucceeded" in described


async def test_an_event_that_cannot_be_written_stops_nothing(api: ApiServer, namespace: str, kubectl: Kubectl) -> None:
    apply(kubectl)
    resource = await observe(api, namespace)
    resource["metadata"]["namespace"] = "nowhere"
    await Events(api, "pod-1").post(resource, Notice(Severity.NORMAL, "RunSucceeded", "in sync"))


async def test_an_api_server_that_refuses_connections_is_unavailable(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nowhere = tmp_path / "kubeconfig"
    nowhere.write_text(control_plane.kubeconfig.read_text().replace(control_plane.url, f"https://127.0.0.1:{port}"))
    async with ApiServer.open(kubeconfig=str(nowhere)) as api:
        with pytest.raises(KubernetesUnavailable, match="does not answer"):
            await api.list_user_syncs(None)


async def test_an_api_server_that_hangs_is_unavailable(control_plane: ControlPlane, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hung = tmp_path / "kubeconfig"
        hung.write_text(
            control_plane.kubeconfig.read_text().replace(
                control_plane.url, f"https://127.0.0.1:{silent.getsockname()[1]}"
            )
        )
        async with ApiServer.open(kubeconfig=str(hung), calls=Calls(timeout=0.2)) as api:
            with pytest.raises(KubernetesUnavailable, match="does not answer"):
                await api.get_user_sync("app", "production")


async def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KubernetesRefused, match=r"nowhere.*--kubeconfig"):
        async with ApiServer.open(kubeconfig=str(tmp_path / "nowhere")):
            pass


async def test_an_unknown_context_is_refused(control_plane: ControlPlane) -> None:
    with pytest.raises(KubernetesRefused, match="moon"):
        async with ApiServer.open(kubeconfig=str(control_plane.kubeconfig), context="moon"):
            pass


async def test_a_missing_right_is_permanent(control_plane: ControlPlane, namespace: str, kubectl: Kubectl) -> None:
    kubectl("create", "serviceaccount", "nobody")
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "nobody")
    async with ApiServer.open(kubeconfig=str(kubeconfig)) as api:
        with pytest.raises(KubernetesRefused, match="cannot list resource"):
            await api.list_user_syncs(namespace)


async def test_a_long_list_is_read_to_its_end(control_plane: ControlPlane, namespace: str, kubectl: Kubectl) -> None:
    for number in range(5):
        apply(kubectl, f"sync-{number}")
    async with ApiServer.open(kubeconfig=str(control_plane.kubeconfig), calls=Calls(page=2)) as api:
        resources, _ = await api.list_user_syncs(namespace)
    assert len(resources) == 5


async def next_of(changes: AsyncGenerator[Change, None]) -> tuple[ChangeKind, str]:
    async with asyncio.timeout(30):
        change = await anext(changes)
    return change.kind, change.resource.get("metadata", {}).get("name", "")


async def test_a_watch_tells_what_is_there_and_then_what_changes(
    api: ApiServer, namespace: str, kubectl: Kubectl
) -> None:
    apply(kubectl)
    async with aclosing(watch_user_syncs(api, namespace)) as changes:
        assert await next_of(changes) == (ChangeKind.APPLIED, "production")
        assert await next_of(changes) == (ChangeKind.SYNCED, "")
        apply(kubectl, "staging")
        assert await next_of(changes) == (ChangeKind.APPLIED, "staging")
        kubectl("delete", "usersync", "production", "--wait=false")
        assert await next_of(changes) == (ChangeKind.DELETED, "production")


async def test_a_watch_survives_the_api_server_and_tells_what_was_deleted_meanwhile(
    api: ApiServer, control_plane: ControlPlane, namespace: str, kubectl: Kubectl
) -> None:
    apply(kubectl)
    async with aclosing(watch_user_syncs(api, namespace)) as changes:
        assert await next_of(changes) == (ChangeKind.APPLIED, "production")
        assert await next_of(changes) == (ChangeKind.SYNCED, "")
        control_plane.stop_api_server()
        waiting = asyncio.create_task(anext(changes))
        try:
            await asyncio.sleep(0)
            control_plane.start_api_server()
            kubectl("delete", "usersync", "production", "--wait=false")
            async with asyncio.timeout(60):
                change = await waiting
                while change.kind is not ChangeKind.DELETED:
                    change = await anext(changes)
        finally:
            waiting.cancel()
        assert change.resource["metadata"]["name"] == "production"
