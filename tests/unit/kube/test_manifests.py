from __future__ import annotations

import pytest

from controller.errors import InvalidSpec, SecretNotFound
from controller.kube.manifests import read_manifest

USER_SYNC = """
apiVersion: usersync.dev/v1alpha1
kind: UserSync
metadata: {name: production, namespace: app}
spec:
  clerk:
    secretKeyRef: {name: clerk, key: CLERK_SECRET_KEY}
    webhookSecretRefs: [{name: clerk, key: CLERK_WEBHOOK_SECRET}]
  database: {urlSecretRef: {name: supabase, key: DATABASE_URL}}
"""
SECRET = """
---
apiVersion: v1
kind: Secret
metadata: {name: clerk, namespace: app}
data: {CLERK_SECRET_KEY: c2tfdGVzdF8xCg==}
stringData: {CLERK_WEBHOOK_SECRET: whsec_1}
"""
ENVIRON = {"DATABASE_URL": "postgres://env", "CLERK_SECRET_KEY": "sk_test_env"}


def test_a_reference_resolves_to_a_secret_of_the_same_file() -> None:
    (declared,) = read_manifest(USER_SYNC + SECRET, ENVIRON)
    credentials = declared.credentials(webhooks=True)
    assert credentials.clerk_secret_key == "sk_test_1"
    assert credentials.webhook_secrets == ("whsec_1",)


def test_else_to_the_environment_variable_of_the_keys_name() -> None:
    (declared,) = read_manifest(USER_SYNC, ENVIRON)
    assert declared.credentials().clerk_secret_key == "sk_test_env"
    assert declared.credentials().database_url == "postgres://env"


def test_a_secret_of_another_namespace_is_not_used() -> None:
    (declared,) = read_manifest(USER_SYNC + SECRET.replace("namespace: app", "namespace: other"), ENVIRON)
    assert declared.credentials().clerk_secret_key == "sk_test_env"


def test_what_is_missing_in_both_places_is_said_with_both() -> None:
    (declared,) = read_manifest(USER_SYNC, {"CLERK_SECRET_KEY": "sk_test_1"})
    with pytest.raises(SecretNotFound, match=r"Secret app/supabase .* variable DATABASE_URL is not set"):
        declared.credentials()


def test_all_missing_secrets_are_named() -> None:
    (declared,) = read_manifest(USER_SYNC, {})
    with pytest.raises(SecretNotFound) as caught:
        declared.credentials()
    assert "CLERK_SECRET_KEY" in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)


def test_webhook_secrets_are_not_needed_for_runs() -> None:
    (declared,) = read_manifest(USER_SYNC, ENVIRON)
    assert declared.credentials().webhook_secrets == ()
    with pytest.raises(SecretNotFound, match="CLERK_WEBHOOK_SECRET"):
        declared.credentials(webhooks=True)


def test_the_databases_url_alone_needs_no_key_of_clerk() -> None:
    (declared,) = read_manifest(USER_SYNC, {"DATABASE_URL": "postgres://env"})
    assert declared.database().url == "postgres://env"


PLAIN = "  database: {urlSecretRef: {name: supabase, key: DATABASE_URL}}\n"
REFS = ", adminUrlSecretRef: {name: admin, key: ADMIN_URL}, caSecretRef: {name: supabase, key: CA}}\n"
WITH_ADMIN = USER_SYNC.replace(PLAIN, PLAIN.replace("}}\n", "}" + REFS))
MORE = {"ADMIN_URL": "postgres://admin", "CA": "a certificate", "CLERK_WEBHOOK_SECRET": "whsec_1"}


def test_the_admins_url_and_the_ca_come_from_where_they_are_named() -> None:
    (declared,) = read_manifest(WITH_ADMIN, ENVIRON | MORE)
    credentials = declared.credentials()
    assert (credentials.admin_url, credentials.database_ca) == ("postgres://admin", "a certificate")
    assert declared.database() == credentials.database


def test_the_webhook_service_needs_the_ca_and_is_never_given_the_admins_url() -> None:
    (declared,) = read_manifest(WITH_ADMIN, ENVIRON | MORE)
    credentials = declared.credentials(webhooks=True)
    assert (credentials.admin_url, credentials.database_ca) == (None, "a certificate")
    assert credentials.webhook_secrets == ("whsec_1",)


@pytest.mark.parametrize("name", ["ADMIN_URL", "CA"])
def test_an_admins_url_or_ca_that_is_named_and_missing_is_said(name: str) -> None:
    (declared,) = read_manifest(WITH_ADMIN, {key: text for key, text in (ENVIRON | MORE).items() if key != name})
    for look in (declared.credentials, declared.database):
        with pytest.raises(SecretNotFound, match=name):
            look()


def test_a_file_may_hold_several_resources() -> None:
    text = USER_SYNC + "---" + USER_SYNC.replace("production", "staging")
    assert [declared.user_sync.name for declared in read_manifest(text, {})] == ["production", "staging"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", r"usersync.yaml, line 1"),
        (USER_SYNC + "  interval: 1h\n  interval: 2h\n", r"line 11, column 3: the key 'interval' stands twice"),
        (USER_SYNC + SECRET.replace("kind: Secret", "kind: ConfigMap"), r"document 2: is of kind ConfigMap"),
        (USER_SYNC + "---\n- 1\n", r"document 2: is not a resource but list"),
        (USER_SYNC + "---" + USER_SYNC, r"UserSync app/production twice"),
        (SECRET, r"has no UserSync"),
        ("", r"has no UserSync"),
        (USER_SYNC + SECRET.replace("c2tfdGVzdF8xCg==", "sk_test_1"), r"Secret clerk: data.CLERK_SECRET_KEY"),
        (USER_SYNC + SECRET.replace("stringData", "strings"), r"Secret clerk: unknown field strings"),
        (USER_SYNC + SECRET.replace("whsec_1", "1"), r"put the values in quotes"),
        (USER_SYNC + "  bogus: 1\n", r"document 1: UserSync app/production .* spec.bogus"),
        (USER_SYNC + "\t", r"line 10"),
        ("a: \x00", r"is not YAML"),
    ],
)
def test_a_file_that_cannot_be_served_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        read_manifest(text, {}, origin="usersync.yaml")


def test_the_faults_of_all_documents_are_named() -> None:
    with pytest.raises(InvalidSpec) as caught:
        read_manifest(USER_SYNC + "  bogus: 1\n---\nkind: Job\n", {})
    assert "spec.bogus" in str(caught.value)
    assert "kind Job" in str(caught.value)


def test_no_secret_shows_in_a_repr() -> None:
    (declared,) = read_manifest(USER_SYNC + SECRET, ENVIRON)
    assert "whsec" not in repr(declared)
    assert "sk_test" not in repr(declared)
