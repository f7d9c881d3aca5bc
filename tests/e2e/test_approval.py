"""The admission policy of deploy/: who may edit a UserSync may not, by that alone, let it delete more."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.conftest import ROOT
from tests.support.controlplane import Kubectl, KubectlError
from tests.support.usersyncs import usersync

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.controlplane import ControlPlane
    from tests.support.usersyncs import UserSync

DEPLOY = ROOT / "deploy" / "kustomize"
NAMESPACE = "approval"
ANNOTATION = "usersync.dev/approve-deletion"
REFUSED = "ValidatingAdmissionPolicy 'usersync-approval'"
VERB = "demands the verb approve on usersyncs.usersync.dev"
BOUND_SECONDS = 30.0

# Field, a value, and a looser one; the first of each is the default.
LOOSER: list[tuple[str, Any, Any]] = [
    ("limits.users", 500, 501),
    ("limits.users", 0, 1),
    ("limits.percent", 10, 11),
    ("limits.percent", 0, 100),
    ("limits.window", "24h", "23h59m59s"),
    ("limits.window", "2d", "47h"),
    ("gracePeriod", "24h", "0s"),
    ("gracePeriod", "1h", "59m"),
    ("gracePeriod", "90m", "1h"),
    ("retention", "30d", "29d"),
    ("retention", "30d", "719h"),
    ("retention", "100h", "4d"),
    ("policy", "Archive", "Erase"),
    ("policy", "Retain", "Archive"),
    ("policy", "Retain", "Erase"),
]
BEYOND_DEFAULT = [
    ("limits.users", 501),
    ("limits.percent", 11),
    ("limits.window", "23h"),
    ("gracePeriod", "23h"),
    ("retention", "29d"),
    ("policy", "Erase"),
]
WITHIN_DEFAULT: list[tuple[str, Any]] = [
    ("limits.users", 0),
    ("limits.percent", 9),
    ("limits.window", "1d"),
    ("limits.window", "2d"),
    ("gracePeriod", "1440m"),
    ("retention", "720h"),
    ("policy", "Retain"),
]


@dataclass(frozen=True, slots=True)
class People:
    """kubectl of three people in one namespace: all may edit UserSyncs, `approver` alone may approve."""

    administrator: Kubectl
    editor: Kubectl
    approver: Kubectl


@pytest.fixture(scope="module")
def people(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """The base with the component, as an overlay of one's own would have it; back to none afterwards."""
    overlay = tmp_path_factory.mktemp("overlay")
    administrator = control_plane.kubectl.in_namespace(NAMESPACE)
    administrator("create", "namespace", NAMESPACE)
    write_overlay(overlay)
    administrator("apply", "--server-side", "--validate=strict", "--warnings-as-errors", "-k", str(overlay))
    administrator(
        "create", "role", "editor", "--verb=get,list,create,update,patch", "--resource=usersyncs.usersync.dev"
    )
    for name in ("editor", "approver"):
        account = f"--serviceaccount={NAMESPACE}:{name}"
        administrator("create", "serviceaccount", name)
        administrator("create", "rolebinding", f"{name}-edits", "--role=editor", account)
    administrator("create", "rolebinding", "approves", "--clusterrole=usersync-approver", account)
    found = People(
        administrator,
        Kubectl(administrator.program, control_plane.service_account_kubeconfig(NAMESPACE, "editor"), NAMESPACE),
        Kubectl(administrator.program, control_plane.service_account_kubeconfig(NAMESPACE, "approver"), NAMESPACE),
    )
    until_in_force(found)
    yield found
    # It holds in all namespaces, and tests of other modules have accounts of their own.
    administrator("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "usersync-approval")


def write_overlay(folder: Path) -> None:
    """A kustomization with base and component, by relative paths as kustomize wants them."""
    base, component = (os.path.relpath(DEPLOY / part, folder) for part in ("base", "components/approval"))
    body = {"namespace": NAMESPACE, "resources": [base], "components": [component]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(body))


def until_in_force(people: People) -> None:
    """Returns once policy, binding and roles have reached the API server's own caches, some moments after apply."""
    deadline = time.monotonic() + BOUND_SECONDS
    resource = json.dumps(loose({"limits.users": 501}, "never-stored"))
    attempt = ("create", "--dry-run=server", "-f", "-")
    while True:
        refused, permitted = (each.run(*attempt, stdin=resource) for each in (people.editor, people.approver))
        if REFUSED in refused.stderr and permitted.returncode == 0:
            return
        assert time.monotonic() < deadline, (refused, permitted)


def loose(fields: Mapping[str, Any], name: str = "production") -> UserSync:
    """A UserSync with these fields of `spec.deletion`, by their dotted names."""
    limits = {key.removeprefix("limits."): value for key, value in fields.items() if key.startswith("limits.")}
    others = {key: value for key, value in fields.items() if not key.startswith("limits.")}
    return usersync(name, deletion=others | ({"limits": limits} if limits else {}))


def store(people: People, resource: UserSync) -> None:
    """Puts a resource there as it is, whatever was there before."""
    people.administrator("delete", "usersync", resource["metadata"]["name"], "--ignore-not-found")
    people.administrator("create", "-f", "-", stdin=json.dumps(resource))


def change(kubectl: Kubectl, resource: UserSync) -> None:
    """Changes a resource, without storing the change."""
    patch = json.dumps({"metadata": resource["metadata"], "spec": resource["spec"]})
    name = resource["metadata"]["name"]
    kubectl("patch", "usersync", name, "--type=merge", "--dry-run=server", "-p", patch)


@pytest.mark.parametrize(("field", "tight", "looser"), LOOSER)
def test_loosening_is_refused_without_the_verb(people: People, field: str, tight: Any, looser: Any) -> None:
    store(people, loose({field: tight}))
    with pytest.raises(KubectlError) as refusal:
        change(people.editor, loose({field: looser}))
    assert REFUSED in refusal.value.stderr
    assert f"to loosen spec.deletion ({field} from {tight} to {looser}) {VERB}" in refusal.value.stderr
    assert "have it done by somebody to whom the ClusterRole usersync-approver is bound" in refusal.value.stderr
    assert f"in the namespace {NAMESPACE}" in refusal.value.stderr


@pytest.mark.parametrize(("field", "tight", "looser"), LOOSER)
def test_loosening_is_permitted_with_the_verb(people: People, field: str, tight: Any, looser: Any) -> None:
    store(people, loose({field: tight}))
    change(people.approver, loose({field: looser}))


@pytest.mark.parametrize(("field", "tight", "looser"), LOOSER)
def test_tightening_is_free(people: People, field: str, tight: Any, looser: Any) -> None:
    store(people, loose({field: looser}))
    change(people.editor, loose({field: tight}))


def test_another_edit_of_a_resource_that_is_loose_already_is_free(people: People) -> None:
    store(people, loose(dict(BEYOND_DEFAULT)))
    change(people.editor, usersync(interval="2h"))


def test_the_same_time_written_otherwise_is_free(people: People) -> None:
    store(people, loose({"gracePeriod": "24h", "retention": "30d", "limits.window": "24h"}))
    change(people.editor, loose({"gracePeriod": "1d", "retention": "720h", "limits.window": "23h59m60s"}))


def test_every_field_that_is_loosened_is_named(people: People) -> None:
    store(people, loose({}))
    with pytest.raises(KubectlError, match=r"limits\.users from 500 to 900, gracePeriod from 24h to 1h, policy from A"):
        change(people.editor, loose({"gracePeriod": "1h", "policy": "Erase", "limits.users": 900}))


def test_taking_a_tight_field_out_is_loosening_it_to_the_default(people: People) -> None:
    store(people, loose({"limits.users": 5}))
    with pytest.raises(KubectlError, match=r"limits\.users from 5 to 500"):
        people.editor("patch", "usersync", "production", "--type=merge", "-p", '{"spec": {"deletion": null}}')


@pytest.mark.parametrize(("field", "value"), BEYOND_DEFAULT)
def test_creating_one_looser_than_the_defaults_demands_the_verb(people: People, field: str, value: Any) -> None:
    resource = json.dumps(loose({field: value}, "new"))
    with pytest.raises(KubectlError, match=VERB):
        people.editor("create", "--dry-run=server", "-f", "-", stdin=resource)
    people.approver("create", "--dry-run=server", "-f", "-", stdin=resource)


@pytest.mark.parametrize(("field", "value"), WITHIN_DEFAULT)
def test_creating_one_within_the_defaults_is_free(people: People, field: str, value: Any) -> None:
    people.editor("create", "--dry-run=server", "-f", "-", stdin=json.dumps(loose({field: value}, "new")))


def test_creating_one_without_spec_deletion_is_free(people: People) -> None:
    people.editor("create", "--dry-run=server", "-f", "-", stdin=json.dumps(usersync("new")))


def test_server_side_apply_is_no_way_around(people: People) -> None:
    resource = json.dumps(loose({"limits.percent": 100}, "new"))
    with pytest.raises(KubectlError, match=r"limits\.percent from 10 to 100"):
        people.editor("apply", "--server-side", "-f", "-", stdin=resource)


def test_a_generated_name_is_no_way_around(people: People) -> None:
    resource = loose({"limits.percent": 100})
    resource["metadata"] = {"generateName": "production-"}
    with pytest.raises(KubectlError, match=r"limits\.percent from 10 to 100"):
        people.editor("create", "-f", "-", stdin=json.dumps(resource))


def test_approving_is_refused_without_the_verb(people: People) -> None:
    store(people, usersync())
    with pytest.raises(KubectlError) as refusal:
        people.editor("annotate", "usersync", "production", f"{ANNOTATION}=abc")
    assert f"to set or change the annotation {ANNOTATION} {VERB}" in refusal.value.stderr


def test_approving_is_permitted_with_the_verb(people: People) -> None:
    store(people, usersync())
    people.approver("annotate", "usersync", "production", f"{ANNOTATION}=abc")
    stored = json.loads(people.editor("get", "usersync", "production", "-o", "json"))
    assert stored["metadata"]["annotations"][ANNOTATION] == "abc"


def test_changing_an_approval_is_refused_without_the_verb(people: People) -> None:
    store(people, approved("abc"))
    with pytest.raises(KubectlError, match="to set or change the annotation"):
        people.editor("annotate", "--overwrite", "usersync", "production", f"{ANNOTATION}=abd")


def test_taking_an_approval_back_is_free(people: People) -> None:
    store(people, approved("abc"))
    people.editor("annotate", "usersync", "production", f"{ANNOTATION}-")


def test_another_annotation_beside_an_approval_is_free(people: People) -> None:
    store(people, approved("abc"))
    people.editor("annotate", "usersync", "production", "usersync.dev/reconcile-at=now")


def test_creating_one_that_is_approved_already_demands_the_verb(people: People) -> None:
    resource = json.dumps(approved("abc", "new"))
    with pytest.raises(KubectlError, match="to set or change the annotation"):
        people.editor("create", "--dry-run=server", "-f", "-", stdin=resource)
    people.approver("create", "--dry-run=server", "-f", "-", stdin=resource)


def approved(digest: str, name: str = "production") -> UserSync:
    """A UserSync that carries an approval."""
    resource = usersync(name)
    resource["metadata"]["annotations"] = {ANNOTATION: digest}
    return resource


def test_the_controller_reports_on_a_loose_and_approved_resource(control_plane: ControlPlane, people: People) -> None:
    resource = loose(dict(BEYOND_DEFAULT))
    resource["metadata"]["annotations"] = {ANNOTATION: "abc"}
    store(people, resource)
    kubeconfig = control_plane.service_account_kubeconfig(NAMESPACE, "usersync-controller")
    controller = Kubectl(people.administrator.program, kubeconfig, NAMESPACE)
    patch = '{"status": {"observedGeneration": 1}}'
    controller("patch", "usersync", "production", "--subresource=status", "--type=merge", "-p", patch)


def test_the_verb_can_be_given_for_one_resource_alone(people: People) -> None:
    store(people, usersync("staging"))
    rule = {"apiGroups": ["usersync.dev"], "resources": ["usersyncs"], "verbs": ["approve"]}
    role = {
        "kind": "Role",
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "approves-staging"},
        "rules": [rule | {"resourceNames": ["staging"]}],
    }
    people.administrator("apply", "-f", "-", stdin=json.dumps(role))
    people.administrator("create", "serviceaccount", "intern")
    for binding, name in (("intern-edits", "editor"), ("intern-approves", "approves-staging")):
        subject = f"--serviceaccount={NAMESPACE}:intern"
        people.administrator("create", "rolebinding", binding, f"--role={name}", subject)
    intern = ("--dry-run=server", "--as", f"system:serviceaccount:{NAMESPACE}:intern")
    deadline = time.monotonic() + BOUND_SECONDS
    while (
        tried := people.administrator.run("annotate", "usersync", "staging", f"{ANNOTATION}=abc", *intern)
    ).returncode:
        assert time.monotonic() < deadline, tried
    store(people, usersync())
    with pytest.raises(KubectlError, match="to set or change the annotation"):
        people.administrator("annotate", "usersync", "production", f"{ANNOTATION}=abc", *intern)


def test_nobody_who_is_admin_of_a_namespace_has_the_verb_by_that(people: People) -> None:
    role = json.loads(people.administrator("get", "clusterrole", "usersync-approver", "-o", "json"))
    assert [label for label in role["metadata"]["labels"] if label.startswith("rbac.authorization.k8s.io/")] == []
    assert role["rules"] == [{"apiGroups": ["usersync.dev"], "resources": ["usersyncs"], "verbs": ["approve"]}]
