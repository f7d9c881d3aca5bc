"""What a command works on."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
import yaml

from controller.cli.inputs import from_environment, read_databases, read_resources
from controller.core.targets import DEFAULT_TABLES, Deletion
from controller.errors import InvalidSpec, SecretNotFound
from controller.settings import Access
from tests.support.usersyncs import usersync

if TYPE_CHECKING:
    from pathlib import Path

ENVIRON = {"CLERK_SECRET_KEY": "sk_test_a", "DATABASE_URL": "postgresql://app@db/app"}


def test_the_environment_alone_gives_the_default_spec() -> None:
    resource = from_environment(ENVIRON)
    assert resource.spec.target.tables == DEFAULT_TABLES
    assert resource.spec.deletion == Deletion()
    assert resource.spec.clerk.api_url == "https://api.clerk.com"
    assert resource.credentials.database_url == "postgresql://app@db/app"


def test_clerk_api_url_of_the_environment_is_used() -> None:
    assert (
        from_environment(ENVIRON | {"CLERK_API_URL": "http://127.0.0.1:1"}).spec.clerk.api_url == "http://127.0.0.1:1"
    )


@pytest.mark.parametrize("name", ["CLERK_SECRET_KEY", "DATABASE_URL"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_or_empty_variable_is_named(name: str, value: str | None) -> None:
    environ = {key: text for key, text in (ENVIRON | {name: value}).items() if text is not None}
    with pytest.raises(SecretNotFound, match=f"^{name} is not set"):
        from_environment(environ)


def test_all_variables_that_are_missing_are_named_at_once() -> None:
    with pytest.raises(SecretNotFound, match=r"CLERK_SECRET_KEY .* CLERK_WEBHOOK_SECRET .* DATABASE_URL .* -f\.$"):
        from_environment({}, webhooks=True)


@pytest.mark.parametrize("name", ["NEXT_PUBLIC_SUPABASE_URL", "SUPABASE_URL", "NEXT_PUBLIC_SUPABASE_ANON_KEY"])
def test_supabases_front_end_variables_alone_are_answered_with_where_the_right_one_stands(name: str) -> None:
    environ = {"CLERK_SECRET_KEY": "sk_test_a", name: "https://x.supabase.co"}
    with pytest.raises(SecretNotFound, match=rf"{name} cannot take its place.*Project -> Connect") as caught:
        from_environment(environ)
    assert "set DATABASE_URL to the connection string" in str(caught.value)


def test_a_message_never_repeats_the_value_of_a_variable() -> None:
    environ = {"CLERK_SECRET_KEY": "sk_test_a", "SUPABASE_SERVICE_ROLE_KEY": "eyJhbGciOi"}
    with pytest.raises(SecretNotFound) as caught:
        from_environment(environ)
    assert "eyJhbGciOi" not in str(caught.value)


def test_the_address_of_supabases_http_interface_is_no_database_url() -> None:
    with pytest.raises(InvalidSpec, match="Project -> Connect"):
        from_environment(ENVIRON | {"DATABASE_URL": "https://x.supabase.co"})


def test_a_publishable_key_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="does not begin with sk_"):
        from_environment(ENVIRON | {"CLERK_SECRET_KEY": "pk_test_a"})


def test_the_webhook_secret_is_asked_for_only_where_webhooks_are_served() -> None:
    assert from_environment(ENVIRON).credentials.webhook_secrets == ()
    with pytest.raises(SecretNotFound, match="CLERK_WEBHOOK_SECRET is not set"):
        from_environment(ENVIRON, webhooks=True)
    served = from_environment(ENVIRON | {"CLERK_WEBHOOK_SECRET": "whsec_a"}, webhooks=True)
    assert served.credentials.webhook_secrets == ("whsec_a",)


def test_a_manifest_takes_its_secrets_from_the_environment_where_it_has_none(tmp_path: Path) -> None:
    manifest = tmp_path / "usersync.yaml"
    manifest.write_text(yaml.safe_dump(usersync("production", interval="5m")))
    (resource,) = read_resources(str(manifest), ENVIRON)
    assert resource.spec.name == "default/production"
    assert resource.credentials.clerk_secret_key == "sk_test_a"


def test_every_resource_of_a_file_is_worked_on(tmp_path: Path) -> None:
    manifest = tmp_path / "usersync.yaml"
    manifest.write_text(yaml.safe_dump_all([usersync("one"), usersync("two")]))
    assert [each.spec.name for each in read_resources(str(manifest), ENVIRON)] == ["default/one", "default/two"]


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    manifest = tmp_path / "usersync.yaml"
    manifest.write_text(yaml.safe_dump(usersync("production", gracePeriod="24h")))
    with pytest.raises(InvalidSpec, match=r"spec\.gracePeriod"):
        read_resources(str(manifest), ENVIRON)


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(yaml.safe_dump(usersync("piped"))))
    assert read_resources("-", ENVIRON)[0].spec.name == "default/piped"


def test_a_file_that_is_no_text_is_an_invalid_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "usersync.yaml"
    manifest.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSpec, match=r"usersync\.yaml cannot be read"):
        read_resources(str(manifest), ENVIRON)


def test_migrating_needs_no_key_of_clerk_and_each_database_once(tmp_path: Path) -> None:
    manifest = tmp_path / "usersync.yaml"
    manifest.write_text(yaml.safe_dump_all([usersync("one"), usersync("two")]))
    environ = {"DATABASE_URL": "postgresql://app@db/app"}
    assert read_databases(str(manifest), environ) == [Access("postgresql://app@db/app")]
    assert read_databases(None, environ) == [Access("postgresql://app@db/app")]


CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"


def test_the_ca_of_the_environment_is_the_text_or_the_file_that_it_is_in(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(CA)
    assert from_environment(ENVIRON | {"DATABASE_CA": CA}).credentials.database_ca == CA
    assert from_environment(ENVIRON | {"DATABASE_CA": str(file)}).credentials.database_ca == CA
    assert from_environment(ENVIRON).credentials.database_ca is None


def test_a_ca_that_is_neither_a_certificate_nor_a_file_is_refused_unsaid() -> None:
    with pytest.raises(InvalidSpec, match="DATABASE_CA is neither") as caught:
        from_environment(ENVIRON | {"DATABASE_CA": "/nowhere/to/be/found"})
    assert "nowhere" not in str(caught.value)


def test_the_admin_url_is_for_commands_and_not_for_the_webhook_service() -> None:
    environ = ENVIRON | {"DATABASE_ADMIN_URL": "postgresql://admin@db/app", "CLERK_WEBHOOK_SECRET": "whsec_a"}
    assert from_environment(environ).credentials.admin_url == "postgresql://admin@db/app"
    assert from_environment(environ, webhooks=True).credentials.admin_url is None
