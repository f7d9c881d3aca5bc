from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from controller.cli.subjects import read_subjects
from controller.core.facts import KeyForm
from controller.errors import InvalidSpec
from controller.settings import Access
from tests.support.usersyncs import clerk, database, usersync

if TYPE_CHECKING:
    from pathlib import Path

    from controller.runtime import Subject

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENVIRON = {
    "CLERK_SECRET_KEY": "sk_live_a",
    "DATABASE_URL": "postgresql://app@db/app",
    "CLERK_WEBHOOK_SECRET": SECRET,
}


def subject(environ: dict[str, str]) -> Subject:
    ((_, found),) = read_subjects(None, environ, None)
    return found


def test_an_environment_that_has_everything_lacks_nothing() -> None:
    given = subject(ENVIRON).given
    assert (given.key, given.missing, given.front_end) == (KeyForm.PRODUCTION, (), ())
    assert (given.webhook_secrets, given.webhook_problems) == (1, ())


def test_the_variables_of_the_front_end_alone_are_named() -> None:
    found = subject({"NEXT_PUBLIC_SUPABASE_URL": "https://x.supabase.co", "NEXT_PUBLIC_SUPABASE_ANON_KEY": "ey"})
    assert found.given.front_end == ("NEXT_PUBLIC_SUPABASE_URL", "NEXT_PUBLIC_SUPABASE_ANON_KEY")
    assert found.given.missing == ("CLERK_SECRET_KEY is not set.",)
    assert found.access is None


def test_the_address_of_the_http_interface_is_no_database() -> None:
    found = subject(ENVIRON | {"DATABASE_URL": "https://x.supabase.co"})
    assert (found.given.front_end, found.access) == (("DATABASE_URL",), None)


@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("sk_test_a", KeyForm.DEVELOPMENT),
        ("pk_live_a", KeyForm.PUBLISHABLE),
        ("whsec_a", KeyForm.OTHER),
        ("", KeyForm.MISSING),
    ],
)
def test_a_key_is_told_by_its_prefix(key: str, form: KeyForm) -> None:
    assert subject(ENVIRON | {"CLERK_SECRET_KEY": key}).given.key is form


@pytest.mark.parametrize("secret", ["whsec_", "whsec_c2hvcnQ=", "sk_live_a", "whsec_q!!q"])
def test_a_webhook_secret_that_would_be_refused_is_told_unsaid(secret: str) -> None:
    (problem,) = subject(ENVIRON | {"CLERK_WEBHOOK_SECRET": secret}).given.webhook_problems
    assert secret.removeprefix("whsec_") not in problem or secret == "whsec_"


def test_a_ca_that_cannot_be_read_keeps_from_connecting() -> None:
    found = subject(ENVIRON | {"DATABASE_CA": "/nowhere"})
    assert found.access is None
    assert "DATABASE_CA" in found.given.missing[0]


def write(path: Path, *resources: object) -> str:
    path.write_text(yaml.safe_dump_all(resources))
    return str(path)


def test_what_a_manifest_refers_to_and_is_not_there_is_said_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    refs = [{"name": "clerk", "key": "CLERK_WEBHOOK_SECRET"}, {"name": "clerk", "key": "OLD_WEBHOOK_SECRET"}]
    manifest = write(tmp_path / "usersync.yaml", usersync(clerk=clerk(webhookSecretRefs=refs)))
    ((spec, found),) = read_subjects(manifest, ENVIRON, None)
    assert spec.name == "default/production"
    assert found.access == Access("postgresql://app@db/app")
    assert found.given.webhook_secrets == 1
    assert "OLD_WEBHOOK_SECRET" in found.given.missing[0]


def test_a_database_whose_ca_is_missing_is_not_spoken_to(tmp_path: Path) -> None:
    section = database(caSecretRef={"name": "supabase", "key": "ca.crt"})
    ((_, found),) = read_subjects(write(tmp_path / "usersync.yaml", usersync(database=section)), ENVIRON, None)
    assert found.access is None
    assert "ca.crt" in found.given.missing[0]


def test_one_of_several_resources_is_picked_by_its_name(tmp_path: Path) -> None:
    manifest = write(tmp_path / "usersync.yaml", usersync("one"), usersync("two"))
    assert [spec.name for spec, _ in read_subjects(manifest, ENVIRON, None)] == ["default/one", "default/two"]
    assert [spec.name for spec, _ in read_subjects(manifest, ENVIRON, "two")] == ["default/two"]
    with pytest.raises(InvalidSpec, match="three"):
        read_subjects(manifest, ENVIRON, "three")
