from __future__ import annotations

import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.core.targets import (
    DEFAULT_TABLES,
    Action,
    Deletion,
    DeletionPolicy,
    Limits,
    OnUserCreated,
    OnUserDeleted,
    Role,
    Spec,
    Webhook,
)
from controller.errors import InvalidSpec
from controller.kube.fields import SecretKeyRef
from controller.kube.specs import SecretRefs, read_user_sync

MINIMAL: dict[str, Any] = {
    "apiVersion": "usersync.dev/v1alpha1",
    "kind": "UserSync",
    "metadata": {"name": "production", "namespace": "app"},
    "spec": {
        "clerk": {"secretKeyRef": {"name": "clerk", "key": "CLERK_SECRET_KEY"}},
        "database": {"urlSecretRef": {"name": "supabase", "key": "DATABASE_URL"}},
    },
}


def with_(path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(MINIMAL)
    *parents, last = path.split(".")
    part = document
    for parent in parents:
        part = part.setdefault(parent, {})
    part[last] = value
    return document


def refusal_of(document: dict[str, Any]) -> str:
    with pytest.raises(InvalidSpec) as caught:
        read_user_sync(document)
    return str(caught.value)


def test_a_minimal_resource_gets_the_defaults() -> None:
    assert read_user_sync(MINIMAL).spec == Spec(name="app/production")


def test_the_secret_references_travel_apart_from_the_spec() -> None:
    refs = read_user_sync(with_("spec.clerk.webhookSecretRefs", [{"name": "clerk", "key": "hook"}])).secrets
    assert refs == SecretRefs(
        SecretKeyRef("clerk", "CLERK_SECRET_KEY"),
        SecretKeyRef("supabase", "DATABASE_URL"),
        (SecretKeyRef("clerk", "hook"),),
    )


def test_every_field_reaches_the_core() -> None:
    document = with_("spec.actions", ["Cleanup", "FixProgress"])
    document["spec"] |= {"interval": "1h30m", "suspend": True, "dryRun": True}
    document["spec"]["clerk"] |= {"instanceId": "ins_1a", "rateLimitShare": 7, "apiUrl": "https://clerk.test/v1"}
    document["spec"]["database"]["schema"] = "Läden"
    document["spec"]["tables"] = [
        {"name": "people", "role": "Profile", "userIdColumn": "uid", "createdAtColumn": "made"},
        {"name": "notes"},
    ]
    document["spec"]["deletion"] = {
        "policy": "Erase",
        "gracePeriod": "2h",
        "limits": {"users": 3, "percent": 4, "window": "1h30m"},
        "retention": "7d",
    }
    document["spec"]["webhook"] = {"onUserCreated": "Ignore", "onUserDeleted": "Holdback", "holdback": "7d"}
    spec = read_user_sync(document).spec
    assert spec.webhook == Webhook(OnUserCreated.IGNORE, OnUserDeleted.HOLDBACK, timedelta(days=7))
    assert spec.actions == (Action.CLEANUP, Action.FIX_PROGRESS)
    assert (spec.interval, spec.suspend, spec.dry_run) == (timedelta(minutes=90), True, True)
    assert (spec.clerk.instance_id, spec.clerk.rate_limit_share) == ("ins_1a", 7)
    assert spec.clerk.api_url == "https://clerk.test/v1"
    assert spec.target.schema == "Läden"
    assert spec.target.profile.user_id_column == "uid"
    assert spec.target.profile.created_at_column == "made"
    assert spec.target.tables[1].role is Role.DATA
    limits = Limits(3, 4, timedelta(minutes=90))
    assert spec.deletion == Deletion(DeletionPolicy.ERASE, timedelta(hours=2), limits, timedelta(days=7))


def test_a_holdback_that_is_not_given_is_a_day() -> None:
    spec = read_user_sync(with_("spec.webhook", {"onUserDeleted": "Holdback"})).spec
    assert spec.webhook == Webhook(on_user_deleted=OnUserDeleted.HOLDBACK, holdback=timedelta(hours=24))


def test_null_counts_as_absent() -> None:
    assert read_user_sync(with_("spec.tables", None)).spec.target.tables == DEFAULT_TABLES


def test_what_the_api_server_adds_is_accepted() -> None:
    document = with_("status", {"observedGeneration": 1})
    document["metadata"] |= {"uid": "1", "generation": 1, "managedFields": []}
    assert read_user_sync(document).name == "production"


@pytest.mark.parametrize(
    ("path", "value", "field", "remedy"),
    [
        ("spec.interval", "10s", "spec.interval", "at least 30s"),
        ("spec.interval", "soon", "spec.interval", "1h30m"),
        ("spec.interval", 3600, "spec.interval", "1h30m"),
        ("spec.actions", [], "spec.actions", "1 to 5"),
        ("spec.actions", ["Cleanup", "Cleanup"], "spec.actions", "remove one"),
        ("spec.actions", ["Destroy"], "spec.actions[0]", "FullSync"),
        ("spec.actions", "Cleanup", "spec.actions", "list"),
        ("spec.suspend", "yes", "spec.suspend", "true or false"),
        ("spec.clerk.rateLimitShare", 0, "spec.clerk.rateLimitShare", "1 to 100"),
        ("spec.clerk.rateLimitShare", 50.5, "spec.clerk.rateLimitShare", "whole number"),
        ("spec.clerk.instanceId", "production", "spec.clerk.instanceId", "ins_"),
        ("spec.clerk.apiUrl", "api.clerk.com", "spec.clerk.apiUrl", "https://api.clerk.com"),
        ("spec.clerk.apiUrl", "https://u@api.clerk.com", "spec.clerk.apiUrl", "without user"),
        ("spec.clerk.secretKeyRef", {"name": "clerk"}, "spec.clerk.secretKeyRef.key", "add it"),
        ("spec.clerk.secretKeyRef", {"name": "Clerk!", "key": "k"}, "spec.clerk.secretKeyRef.name", "lower-case"),
        ("spec.clerk", None, "spec.clerk", "add it"),
        ("spec.clerk.webhookSecretRefs", [{"name": "c", "key": "k"}] * 11, "spec.clerk.webhookSecretRefs", "10"),
        ("spec.database.schema", "ä" * 32, "spec.database.schema", "63 bytes"),
        ("spec.database.schema", "", "spec.database.schema", "63 bytes"),
        ("spec.tables", [], "spec.tables", "1 to 64"),
        ("spec.tables", [{"name": "a"}], "spec.tables", "exactly one"),
        ("spec.tables", [{"name": n, "role": "Profile"} for n in "ab"], "spec.tables", "a, b"),
        ("spec.tables", [{"name": "a", "role": "Profile"}, {"name": "a"}], "spec.tables", "remove all but one"),
        ("spec.tables", [{"name": "a", "role": "Owner"}], "spec.tables[0].role", "Profile or Data"),
        ("spec.tables", [{"name": "a\0", "role": "Profile"}], "spec.tables[0].name", "63 bytes"),
        (
            "spec.tables",
            [{"name": "a", "role": "Profile", "userIdColumn": "created_at"}],
            "spec.tables[0]",
            "the same column",
        ),
        ("spec.deletion.limits", {"percent": 101}, "spec.deletion.limits.percent", "0 to 100"),
        ("spec.deletion.limits", {"users": -1}, "spec.deletion.limits.users", "0 to"),
        ("kind", "UserSyncs", "kind", "kind: UserSync"),
        ("apiVersion", "usersync.dev/v1", "apiVersion", "usersync.dev/v1alpha1"),
        ("metadata", {"namespace": "app"}, "metadata.name", "add it"),
    ],
)
def test_a_wrong_field_is_refused_with_its_name_and_the_remedy(
    path: str, value: object, field: str, remedy: str
) -> None:
    refusal = refusal_of(with_(path, value))
    assert field in refusal
    assert remedy in refusal


@pytest.mark.parametrize(
    "path",
    [
        "spec.gracePeriod",
        "spec.schedule",
        "spec.deletion.holdback",
        "spec.deletion.limits.rows",
        "spec.clerk.key",
        "spec.webhook.onUserUpdated",
        "extra",
    ],
)
def test_an_unknown_field_is_refused_by_name(path: str) -> None:
    assert f"{path}: is not a field of this version" in refusal_of(with_(path, {}))


def test_all_problems_are_named_at_once() -> None:
    document = with_("spec.interval", "10s")
    document["spec"]["tables"] = [{"name": "a"}, {"name": "a"}]
    document["spec"]["clerk"]["rateLimitShare"] = 101
    document["spec"]["schedule"] = {}
    refusal = refusal_of(document)
    for part in ("spec.interval", "exactly one", "more than once", "spec.clerk.rateLimitShare", "spec.schedule"):
        assert part in refusal
    assert "app/production" in refusal


def test_a_long_text_in_the_wrong_place_is_not_quoted() -> None:
    assert "hunter2" not in refusal_of(with_("spec.suspend", "hunter2" * 10))


def crd_properties() -> dict[str, Any]:
    text = (Path(__file__).parents[3] / "crds" / "usersync.yaml").read_text()
    schema = yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    properties: dict[str, Any] = schema["properties"]["spec"]["properties"]
    return properties


def defaults_of(properties: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the API server makes of a spec: defaults filled in, also inside of what was given."""
    filled = copy.deepcopy(given)
    for name, schema in properties.items():
        if name not in filled and "default" in schema:
            filled[name] = copy.deepcopy(schema["default"])
        if isinstance(filled.get(name), dict):
            filled[name] = defaults_of(schema.get("properties", {}), filled[name])
    return filled


def test_the_defaults_are_those_of_the_crd() -> None:
    document = copy.deepcopy(MINIMAL)
    document["spec"] = defaults_of(crd_properties(), MINIMAL["spec"])
    assert document["spec"] != MINIMAL["spec"]
    assert read_user_sync(document) == read_user_sync(MINIMAL)


def test_a_table_has_the_defaults_of_the_crd() -> None:
    properties = crd_properties()["tables"]["items"]["properties"]
    bare = {"name": "notes"}
    profile = {"name": "people", "role": "Profile"}
    filled = [defaults_of(properties, bare), defaults_of(properties, profile)]
    assert filled[0]["userIdColumn"]
    assert read_user_sync(with_("spec.tables", filled)) == read_user_sync(with_("spec.tables", [bare, profile]))


def field_names(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: field_names(schema.get("items", schema).get("properties", {})) for name, schema in properties.items()}


def test_the_fields_are_those_of_the_crd() -> None:
    reference: dict[str, Any] = {"name": {}, "key": {}}
    assert field_names(crd_properties()) == {
        "actions": {},
        "interval": {},
        "suspend": {},
        "dryRun": {},
        "clerk": {
            "secretKeyRef": reference,
            "webhookSecretRefs": reference,
            "instanceId": {},
            "rateLimitShare": {},
            "apiUrl": {},
        },
        "database": {
            "urlSecretRef": reference,
            "adminUrlSecretRef": reference,
            "caSecretRef": reference,
            "schema": {},
        },
        "tables": {"name": {}, "role": {}, "userIdColumn": {}, "createdAtColumn": {}, "values": {}},
        "deletion": {
            "policy": {},
            "gracePeriod": {},
            "limits": {"users": {}, "percent": {}, "window": {}},
            "retention": {},
        },
        "webhook": {"onUserCreated": {}, "onUserDeleted": {}, "holdback": {}},
        "accountDeletion": {"enabled": {}, "issuer": {}, "authorizedParties": {}, "reverifyWithin": {}},
        "rowLevelSecurity": {},
    }
