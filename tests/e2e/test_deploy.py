"""The manifests of deploy/, on a real API server, in a namespace that enforces the `restricted` standard."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.conftest import ROOT
from tests.support.controlplane import KubectlError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.controlplane import ControlPlane, Kubectl

BASE = ROOT / "deploy" / "kustomize" / "base"
SAMPLE = ROOT / "deploy" / "sample" / "usersync.yaml"
CONTROLLER, WEBHOOK = "usersync-controller", "usersync-webhook"
STRICT = ("--server-side", "--validate=strict", "--warnings-as-errors")

Rights = set[tuple[str, str, str, str]]
"""Verb, group, resource, and the one name it is restricted to, if any."""

READ_USERSYNCS: Rights = {(verb, "usersync.dev", "usersyncs", "") for verb in ("get", "list", "watch")}
EXACT_RIGHTS = {
    CONTROLLER: READ_USERSYNCS
    | {(verb, "usersync.dev", "usersyncs/status", "") for verb in ("get", "patch", "update")}
    | {("get", "", "secrets", "")}
    | {(verb, "events.k8s.io", "events", "") for verb in ("create", "patch")},
    WEBHOOK: READ_USERSYNCS | {("get", "", "secrets", "clerk"), ("get", "", "secrets", "supabase")},
}

MAY = [
    (CONTROLLER, "list usersyncs.usersync.dev"),
    (CONTROLLER, "patch usersyncs.usersync.dev/production --subresource=status"),
    (CONTROLLER, "get secrets/anything"),
    (CONTROLLER, "create events.events.k8s.io"),
    (WEBHOOK, "watch usersyncs.usersync.dev"),
    (WEBHOOK, "get secrets/clerk"),
    (WEBHOOK, "get secrets/supabase"),
]
MAY_NOT = [
    (CONTROLLER, "list secrets"),
    (CONTROLLER, "watch secrets"),
    (CONTROLLER, "update secrets/clerk"),
    (CONTROLLER, "get secrets/clerk -n kube-system"),
    (CONTROLLER, "patch usersyncs.usersync.dev/production"),
    (CONTROLLER, "update usersyncs.usersync.dev/production"),
    (CONTROLLER, "create usersyncs.usersync.dev"),
    (CONTROLLER, "delete usersyncs.usersync.dev/production"),
    (CONTROLLER, "list usersyncs.usersync.dev -n kube-system"),
    (CONTROLLER, "list usersyncs.usersync.dev -A"),
    (CONTROLLER, "list customresourcedefinitions.apiextensions.k8s.io"),
    (CONTROLLER, "create pods"),
    (CONTROLLER, "create serviceaccounts/usersync-controller --subresource=token"),
    (WEBHOOK, "get secrets/another"),
    (WEBHOOK, "list secrets"),
    (WEBHOOK, "watch secrets"),
    (WEBHOOK, "get secrets/clerk -n kube-system"),
    (WEBHOOK, "patch usersyncs.usersync.dev/production"),
    (WEBHOOK, "patch usersyncs.usersync.dev/production --subresource=status"),
    (WEBHOOK, "create events.events.k8s.io"),
]


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane) -> Kubectl:
    """The base as it is, applied without flags for the place; kubectl in its namespace."""
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "usersync", "labels": levels}}
    answer = control_plane.request("POST", "/api/v1/namespaces", namespace)
    assert answer.status == 201, answer.message
    control_plane.kubectl("apply", *STRICT, "-k", str(BASE))
    return control_plane.kubectl.in_namespace("usersync")


def read_deployments(installed: Kubectl) -> list[dict[str, Any]]:
    """The Deployments as the API server has stored them."""
    deployments: list[dict[str, Any]] = json.loads(installed("get", "deployments", "-o", "json"))["items"]
    return deployments


def as_pod(deployment: dict[str, Any]) -> dict[str, Any]:
    """The pod that a Deployment would start: PodSecurity judges pods, and only warns on Deployments."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": deployment["metadata"]["name"]},
        "spec": deployment["spec"]["template"]["spec"],
    }


def test_everything_of_the_base_is_installed(installed: Kubectl) -> None:
    kinds = "serviceaccounts,roles,rolebindings,deployments,services,poddisruptionbudgets,ingresses"
    found = installed("get", kinds, "-o", "name").split()
    assert sorted(found) == [
        "deployment.apps/usersync-controller",
        "deployment.apps/usersync-webhook",
        "ingress.networking.k8s.io/usersync-webhook",
        "poddisruptionbudget.policy/usersync-webhook",
        "role.rbac.authorization.k8s.io/usersync-controller",
        "role.rbac.authorization.k8s.io/usersync-webhook",
        "rolebinding.rbac.authorization.k8s.io/usersync-controller",
        "rolebinding.rbac.authorization.k8s.io/usersync-webhook",
        "service/usersync-webhook",
        "serviceaccount/usersync-controller",
        "serviceaccount/usersync-webhook",
    ]


def test_the_base_can_be_applied_again(installed: Kubectl) -> None:
    installed("apply", *STRICT, "-k", str(BASE))


def test_plain_kubectl_apply_takes_the_base_too(installed: Kubectl) -> None:
    installed("apply", "--dry-run=server", "--warnings-as-errors", "-k", str(BASE))


def test_an_overlay_moves_everything_to_another_namespace(
    installed: Kubectl, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    overlay = {"resources": [os.path.relpath(BASE, tmp_path)], "namespace": namespace}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    kubectl("apply", *STRICT, "-k", str(tmp_path))
    account = f"system:serviceaccount:{namespace}:{CONTROLLER}"
    assert can_i(kubectl, account, "get secrets/clerk")
    assert not can_i(installed, account, "get secrets/clerk")


def test_pods_of_both_programs_satisfy_the_restricted_standard(installed: Kubectl) -> None:
    deployments = read_deployments(installed)
    assert len(deployments) == 2
    for deployment in deployments:
        pod = json.dumps(as_pod(deployment))
        installed("create", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-", stdin=pod)


@pytest.mark.parametrize("setting", ["allowPrivilegeEscalation", "capabilities"])
def test_a_pod_that_lacks_a_setting_would_be_refused(installed: Kubectl, setting: str) -> None:
    pod = as_pod(read_deployments(installed)[0])
    del pod["spec"]["containers"][0]["securityContext"][setting]
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted:latest"'):
        installed("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_no_container_can_write_to_its_image(installed: Kubectl) -> None:
    contexts = [
        as_pod(deployment)["spec"]["containers"][0]["securityContext"] for deployment in read_deployments(installed)
    ]
    assert [context["readOnlyRootFilesystem"] for context in contexts] == [True, True]


def test_requests_in_flight_have_time_to_end(installed: Kubectl) -> None:
    for deployment in read_deployments(installed):
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60
    webhook = next(found for found in read_deployments(installed) if found["metadata"]["name"] == WEBHOOK)
    assert as_pod(webhook)["spec"]["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_two_controllers_never_overlap_in_a_rollout(installed: Kubectl) -> None:
    strategy = installed("get", "deployment", CONTROLLER, "-o", "jsonpath={.spec.replicas} {.spec.strategy.type}")
    assert strategy == "1 Recreate"


def test_the_service_selects_the_webhook_pods_and_no_others(installed: Kubectl) -> None:
    selector = json.loads(installed("get", "service", WEBHOOK, "-o", "json"))["spec"]["selector"]
    selected = [
        found["metadata"]["name"]
        for found in read_deployments(installed)
        if selector.items() <= found["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert selected == [WEBHOOK]


def test_only_the_paths_of_the_webhook_service_are_open_to_the_outside(installed: Kubectl) -> None:
    rules = json.loads(installed("get", "ingress", WEBHOOK, "-o", "json"))["spec"]["rules"]
    paths = [(entry["path"], entry["backend"]["service"]) for rule in rules for entry in rule["http"]["paths"]]
    service = {"name": WEBHOOK, "port": {"name": "http"}}
    assert paths == [("/api/webhooks/clerk", service), ("/api/user/delete", service)]


@pytest.mark.parametrize("name", [CONTROLLER, WEBHOOK])
def test_a_program_has_exactly_the_rights_it_needs(control_plane: ControlPlane, installed: Kubectl, name: str) -> None:
    account = f"system:serviceaccount:{installed.namespace}:{name}"
    rules = rules_of(control_plane, account, "usersync")
    everybody = rules_of(control_plane, f"system:serviceaccount:{installed.namespace}:nobody", "usersync")
    assert rules - everybody == EXACT_RIGHTS[name]


@pytest.mark.parametrize("name", [CONTROLLER, WEBHOOK])
def test_a_program_has_no_rights_outside_its_namespace(
    control_plane: ControlPlane, installed: Kubectl, name: str
) -> None:
    account = f"system:serviceaccount:{installed.namespace}:{name}"
    everybody = rules_of(control_plane, f"system:serviceaccount:{installed.namespace}:nobody", "default")
    assert rules_of(control_plane, account, "default") == everybody


def rules_of(plane: ControlPlane, account: str, namespace: str) -> Rights:
    """Everything that an account may do in a namespace, as the API server sums it up."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = plane.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        review,
        headers={"Impersonate-User": account, "Impersonate-Group": "system:serviceaccounts"},
    )
    assert answer.status == 201, answer.message
    assert not answer.body["status"]["incomplete"]
    return {
        (verb, group, resource, name)
        for rule in answer.body["status"]["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
    }


def can_i(kubectl: Kubectl, account: str, what: str) -> bool:
    """The answer of `kubectl auth can-i` for that account."""
    answer = kubectl.run("auth", "can-i", *what.split(), "--as", account)
    assert answer.stdout.strip() in {"yes", "no"}, answer.stderr
    return answer.stdout.strip() == "yes"


@pytest.mark.parametrize(("name", "what"), MAY)
def test_an_account_may(installed: Kubectl, name: str, what: str) -> None:
    assert can_i(installed, f"system:serviceaccount:usersync:{name}", what)


@pytest.mark.parametrize(("name", "what"), MAY_NOT)
def test_an_account_may_not(installed: Kubectl, name: str, what: str) -> None:
    assert not can_i(installed, f"system:serviceaccount:usersync:{name}", what)


def test_the_sample_is_accepted_as_it_is(kubectl: Kubectl) -> None:
    applied = kubectl("apply", *STRICT, "-f", str(SAMPLE), "-o", "name").split()
    assert applied == ["secret/clerk", "secret/supabase", "usersync.usersync.dev/production"]


def test_the_webhook_service_may_read_the_secrets_of_the_sample(
    control_plane: ControlPlane, installed: Kubectl
) -> None:
    assert installed.namespace
    *secrets, resource = yaml.safe_load_all(SAMPLE.read_text())
    clerk, database = resource["spec"]["clerk"], resource["spec"]["database"]
    references = [clerk["secretKeyRef"], *clerk["webhookSecretRefs"], database["urlSecretRef"]]
    there = {(secret["metadata"]["name"], key) for secret in secrets for key in secret["stringData"]}
    assert {(reference["name"], reference["key"]) for reference in references} == there
    rights = rules_of(control_plane, f"system:serviceaccount:usersync:{WEBHOOK}", "usersync")
    assert {("get", "", "secrets", reference["name"]) for reference in references} <= rights
