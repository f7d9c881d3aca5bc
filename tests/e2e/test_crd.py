"""What the API server makes of a UserSync: refusals that say what to do, defaults, and what apply merges."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.conftest import ROOT
from tests.support.controlplane import KubectlError
from tests.support.usersync_cases import BAD, DURATION, GOOD, NOT_YET
from tests.support.usersyncs import clerk, tables, usersync

if TYPE_CHECKING:
    from tests.support.controlplane import Answer, ControlPlane, Kubectl
    from tests.support.usersync_cases import Bad
    from tests.support.usersyncs import UserSync

DELETION = {
    "policy": "Archive",
    "gracePeriod": "24h",
    "limits": {"users": 500, "percent": 10, "window": "24h"},
    "retention": "30d",
}
"""The default, as the API server writes it out."""


def create(plane: ControlPlane, namespace: str, resource: UserSync, *, dry_run: bool = False) -> Answer:
    """Creates a resource with strict checking of fields, as kubectl does."""
    options = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    return plane.request("POST", path(namespace) + options, resource)


def path(namespace: str, rest: str = "") -> str:
    """Path of the UserSyncs of a namespace, or of what is below."""
    return f"/apis/usersync.dev/v1alpha1/namespaces/{namespace}/usersyncs{rest}"


def apply(kubectl: Kubectl, resource: UserSync) -> UserSync:
    """Applies as GitOps does, on the server, and returns what is stored."""
    applied = kubectl("apply", "--server-side", "-f", "-", "-o", "json", stdin=json.dumps(resource))
    result: UserSync = json.loads(applied)
    return result


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.what)
def test_a_bad_resource_is_refused_with_field_and_remedy(control_plane: ControlPlane, namespace: str, bad: Bad) -> None:
    answer = create(control_plane, namespace, bad.resource, dry_run=True)
    assert answer.status == 422, answer.body
    assert bad.field in answer.message
    assert bad.remedy in answer.message


@pytest.mark.parametrize("good", GOOD, ids=lambda good: json.dumps(good["spec"])[:60])
def test_a_good_resource_is_accepted(control_plane: ControlPlane, namespace: str, good: UserSync) -> None:
    answer = create(control_plane, namespace, good, dry_run=True)
    assert answer.status == 201, answer.message


def test_every_field_left_out_gets_its_default(control_plane: ControlPlane, namespace: str) -> None:
    spec = create(control_plane, namespace, usersync()).body["spec"]
    assert spec == {
        "actions": ["Analyze"],
        "interval": "1h",
        "suspend": False,
        "dryRun": False,
        "clerk": {
            "secretKeyRef": {"name": "clerk", "key": "CLERK_SECRET_KEY"},
            "webhookSecretRefs": [],
            "rateLimitShare": 50,
            "apiUrl": "https://api.clerk.com",
        },
        "database": {"urlSecretRef": {"name": "supabase", "key": "DATABASE_URL"}, "schema": "public"},
        "tables": [
            {"name": name, "role": role, "userIdColumn": "user_id", "createdAtColumn": "created_at"}
            for name, role in [
                ("user_progress", "Profile"),
                ("tasks", "Data"),
                ("daily_checkins", "Data"),
                ("moods", "Data"),
            ]
        ],
        "deletion": DELETION,
        "webhook": {"onUserCreated": "CreateProfile", "onUserDeleted": "Immediate"},
        "accountDeletion": {"enabled": False, "authorizedParties": [], "reverifyWithin": "10m"},
        "rowLevelSecurity": "Check",
    }


@pytest.mark.parametrize(
    "deletion", [{}, {"policy": "Archive"}, {"limits": {}}, {"limits": {"users": 500}}, {"limits": {"percent": 10}}]
)
def test_a_limit_left_out_is_not_unlimited(
    control_plane: ControlPlane, namespace: str, deletion: dict[str, Any]
) -> None:
    spec = create(control_plane, namespace, usersync(deletion=deletion)).body["spec"]
    assert spec["deletion"] == DELETION


def test_null_is_the_default_where_there_is_one_and_absent_elsewhere(
    control_plane: ControlPlane, namespace: str
) -> None:
    resource = usersync()
    resource["spec"] |= {"actions": None, "interval": None, "tables": None, "deletion": None}
    resource["spec"]["clerk"] |= {"instanceId": None, "webhookSecretRefs": None}
    spec = create(control_plane, namespace, resource).body["spec"]
    assert (spec["actions"], spec["interval"], len(spec["tables"])) == (["Analyze"], "1h", 4)
    assert spec["deletion"] == DELETION
    assert spec["clerk"]["webhookSecretRefs"] == []
    assert "instanceId" not in spec["clerk"]


@pytest.mark.parametrize("resource", NOT_YET, ids=lambda resource: json.dumps(resource["spec"])[-60:])
def test_a_field_of_no_effect_is_refused_by_kubectl(kubectl: Kubectl, resource: UserSync) -> None:
    with pytest.raises(KubectlError, match=r'strict decoding error: unknown field "spec\.'):
        kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(resource))


def test_kubectl_shows_the_refusal_to_the_person(kubectl: Kubectl) -> None:
    with pytest.raises(KubectlError) as refusal:
        kubectl("apply", "-f", "-", stdin=json.dumps(usersync(interval="10s")))
    assert 'The UserSync "production" is invalid: spec.interval:' in refusal.value.stderr
    assert DURATION in refusal.value.stderr


def test_tables_applied_after_the_default_ones_replace_them(kubectl: Kubectl) -> None:
    assert len(apply(kubectl, usersync())["spec"]["tables"]) == 4
    stored = apply(kubectl, usersync(tables=tables("user_progress", "notes")))
    assert [table["name"] for table in stored["spec"]["tables"]] == ["user_progress", "notes"]


def test_a_table_taken_out_of_an_applied_list_is_out(kubectl: Kubectl) -> None:
    apply(kubectl, usersync(tables=tables("user_progress", "notes", "moods")))
    stored = apply(kubectl, usersync(tables=tables("user_progress", "moods")))
    assert [table["name"] for table in stored["spec"]["tables"]] == ["user_progress", "moods"]


def test_tables_no_longer_applied_are_the_default_ones_again(kubectl: Kubectl) -> None:
    apply(kubectl, usersync(tables=tables("user_progress", "notes")))
    stored = apply(kubectl, usersync())
    assert [table["name"] for table in stored["spec"]["tables"]][1:] == ["tasks", "daily_checkins", "moods"]


def test_actions_applied_after_the_default_one_replace_it(kubectl: Kubectl) -> None:
    assert apply(kubectl, usersync())["spec"]["actions"] == ["Analyze"]
    assert apply(kubectl, usersync(actions=["Cleanup"]))["spec"]["actions"] == ["Cleanup"]


def test_webhook_secrets_applied_anew_replace_the_old_ones(kubectl: Kubectl) -> None:
    old, new = {"name": "clerk", "key": "old"}, {"name": "clerk", "key": "new"}
    apply(kubectl, usersync(clerk=clerk(webhookSecretRefs=[old, new])))
    stored = apply(kubectl, usersync(clerk=clerk(webhookSecretRefs=[new])))
    assert stored["spec"]["clerk"]["webhookSecretRefs"] == [new]


def test_a_resource_applied_by_the_client_too_can_be_applied_again(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps(usersync()))
    kubectl("apply", "-f", "-", stdin=json.dumps(usersync(tables=tables("user_progress"), actions=["Cleanup"])))
    spec = json.loads(kubectl("get", "usersync", "production", "-o", "json"))["spec"]
    assert (len(spec["tables"]), spec["actions"]) == (1, ["Cleanup"])


def test_the_status_of_a_new_resource_says_that_nothing_was_observed(
    control_plane: ControlPlane, namespace: str
) -> None:
    assert create(control_plane, namespace, usersync()).body["status"] == {"observedGeneration": -1}


def test_a_status_does_not_come_in_with_the_resource(control_plane: ControlPlane, namespace: str) -> None:
    answer = create(control_plane, namespace, usersync() | {"status": {"observedGeneration": 7, "actions": "Cleanup"}})
    assert answer.body["status"] == {"observedGeneration": -1}


FULL_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "actions": "FullSync",
    "conditions": [
        {
            "type": kind,
            "status": "True" if kind in {"Ready", "InSync"} else "False",
            "reason": "Synced",
            "message": "everything is in step" if kind == "Ready" else "",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "observedGeneration": 1,
        }
        for kind in ("Ready", "Reconciling", "Stalled", "InSync", "DeletionBlocked", "RowLevelSecurity")
    ],
    "drift": {
        "total": 12,
        "clerkUsers": 345,
        "synced": 340,
        "missingProgress": 5,
        "orphaned": 6,
        "duplicates": 1,
        "outdated": 1,
        "clerkOnly": 2,
        "foreign": 3,
        "tables": [{"name": "tasks", "rows": 9, "users": 4, "orphanedRows": 1}],
    },
    "changes": {
        "profilesCreated": 1,
        "profilesUpdated": 1,
        "usersRemoved": 2,
        "rowsRemoved": 3,
        "duplicatesRemoved": 4,
        "usersLeft": 5,
    },
    "pendingDeletion": {"users": 60, "percent": 17.4, "reason": "LimitPassed", "since": "2026-01-02T03:04:05Z"},
    "lastRun": {
        "id": "01",
        "startTime": "2026-01-02T03:04:05Z",
        "finishTime": "2026-01-02T03:04:06Z",
        "result": "Succeeded",
        "reason": "Synced",
        "message": "",
        "actions": ["FullSync"],
        "dryRun": False,
    },
    "lastSuccessTime": "2026-01-02T03:04:06Z",
    "nextRunTime": "2126-01-02T04:04:05Z",
    "lastHandledReconcileAt": "now",
    "consecutiveFailures": 0,
    "warnings": ["table moods does not exist"],
}


def apply_status(plane: ControlPlane, namespace: str, status: dict[str, Any]) -> Answer:
    """Writes a whole status as the controller does."""
    body = usersync() | {"metadata": {"name": "production", "namespace": namespace}, "status": status}
    del body["spec"]
    return plane.request(
        "PATCH",
        path(namespace, "/production/status?fieldManager=usersync&force=true&fieldValidation=Strict"),
        body,
        headers={"Content-Type": "application/apply-patch+yaml"},
    )


def test_the_whole_status_of_this_version_can_be_written(control_plane: ControlPlane, namespace: str) -> None:
    create(control_plane, namespace, usersync())
    answer = apply_status(control_plane, namespace, FULL_STATUS)
    assert answer.status == 200, answer.message
    assert answer.body["status"] == FULL_STATUS


def test_a_condition_left_out_of_the_next_status_is_gone(control_plane: ControlPlane, namespace: str) -> None:
    create(control_plane, namespace, usersync())
    apply_status(control_plane, namespace, FULL_STATUS)
    answer = apply_status(control_plane, namespace, FULL_STATUS | {"conditions": FULL_STATUS["conditions"][:2]})
    assert [condition["type"] for condition in answer.body["status"]["conditions"]] == ["Ready", "Reconciling"]


def test_kubectl_get_shows_what_a_person_looks_for(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    create(control_plane, namespace, usersync())
    apply_status(control_plane, namespace, FULL_STATUS)
    heading, row = kubectl("get", "usync").splitlines()
    assert heading.split("  ")[0] == "NAME"
    titles = ["NAME", "ACTIONS", "READY", "REASON", "USERS", "DRIFT", "LAST RUN", "NEXT RUN", "AGE"]
    cells = dict(zip(titles, cut(heading, row, titles), strict=True))
    assert cells | {"LAST RUN": "", "AGE": ""} == {
        "NAME": "production",
        "ACTIONS": "FullSync",
        "READY": "True",
        "REASON": "Synced",
        "USERS": "345",
        "DRIFT": "12",
        "LAST RUN": "",
        "NEXT RUN": "2126-01-02T04:04:05Z",
        "AGE": "",
    }
    assert "<invalid>" not in row


def test_kubectl_get_wide_shows_suspension_and_message(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    create(control_plane, namespace, usersync(suspend=True))
    apply_status(control_plane, namespace, FULL_STATUS)
    heading, row = kubectl("get", "usync", "-o", "wide").splitlines()
    titles = ["NEXT RUN", "SUSPENDED", "MESSAGE", " AGE"]  # not the end of MESSAGE
    assert cut(heading, row, titles)[1:3] == ["true", "everything is in step"]


def cut(heading: str, row: str, titles: list[str]) -> list[str]:
    """The cells of a row of kubectl's, by where their titles begin."""
    starts = [heading.index(title) for title in titles]
    return [row[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]


@pytest.mark.parametrize("field", ["spec.clerk", "spec.tables", "spec.deletion.limits", "status.conditions"])
def test_kubectl_explain_describes_the_fields(kubectl: Kubectl, field: str) -> None:
    explained = kubectl("explain", f"usersyncs.{field}")
    assert "<no description>" not in explained


def test_every_field_has_a_description() -> None:
    crd = yaml.safe_load((ROOT / "crds" / "usersync.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    bare = [where for where, field in fields_of(schema) if "description" not in field]
    assert bare == ["apiVersion", "kind", "metadata"]  # the API server's own


def test_every_string_of_the_spec_has_a_bound() -> None:
    crd = yaml.safe_load((ROOT / "crds" / "usersync.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    unbounded = [where for where, field in fields_of(spec) if field["type"] == "string" and "maxLength" not in field]
    assert unbounded == []


def fields_of(schema: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every named field below a schema, with its path."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, field in schema.get("properties", {}).items():
        found += [(prefix + name, field), *fields_of(field, f"{prefix}{name}.")]
    if "items" in schema:
        found += fields_of(schema["items"], f"{prefix}[].")
    return found
