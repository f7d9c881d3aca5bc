"""`usersync doctor` as a process: what it prints, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from tests.support.databases import execute, seed_users
from tests.support.usersyncs import clerk as clerk_section
from tests.support.usersyncs import usersync as user_sync

if TYPE_CHECKING:
    from pathlib import Path

    from controller.emulator import ClerkEmulator
    from tests.integration.cli.conftest import Command

TABLES = ("tasks", "daily_checkins", "moods")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def heal(url: str) -> None:
    await execute(url, "CREATE UNIQUE INDEX ON user_progress (user_id)")
    await execute(url, *(f"CREATE INDEX ON {table} (user_id)" for table in TABLES))


async def test_notes_alone_end_with_0(usersync: Command, database_url: str, clerk: ClerkEmulator) -> None:
    await heal(database_url)
    await seed_users(database_url, clerk.add_users(3))
    ended = await usersync("doctor")
    assert (ended.code, ended.err) == (0, "")
    assert "note    NoWebhooks" in ended.out
    assert "If it stays:" in ended.out
    assert "To mend it:" in ended.out


async def test_findings_end_with_3_and_what_mends_them_can_be_copied(usersync: Command) -> None:
    ended = await usersync("doctor")
    assert ended.code == 3
    assert "CREATE INDEX CONCURRENTLY ON public.tasks (user_id);\n" in ended.out


async def test_a_check_that_cannot_be_made_ends_with_1_and_the_others_are_made(usersync: Command) -> None:
    ended = await usersync.having(DATABASE_URL="postgres://me@127.0.0.1:1/app")("doctor", "-o", "json")
    assert ended.code == 1
    assert {each["check"] for each in ended.document["unchecked"]} == {
        "database",
        "pinned instance",
        "the database's clock",
    }
    assert {each["name"] for each in ended.document["findings"]} >= {"DatabaseUnavailable", "NoWebhooks"}


async def test_an_empty_environment_is_answered_with_findings(usersync: Command) -> None:
    bare = usersync.without("CLERK_SECRET_KEY").without("DATABASE_URL")
    ended = await bare.having(NEXT_PUBLIC_SUPABASE_URL="https://x.supabase.co")("doctor", "-o", "yaml")
    assert ended.code == 1
    findings = {each["name"]: each for each in yaml.safe_load(ended.out)["findings"]}
    assert set(findings) == {"FrontEndOnly", "SecretMissing", "NoWebhooks"}
    assert "Project -> Connect" in findings["FrontEndOnly"]["remedy"]


async def test_every_resource_of_a_manifest_is_looked_at(
    usersync: Command, clerk: ClerkEmulator, tmp_path: Path
) -> None:
    refs = [{"name": "clerk", "key": "CLERK_WEBHOOK_SECRET"}]
    section = clerk_section(apiUrl=clerk.url, webhookSecretRefs=refs)
    manifest = tmp_path / "usersync.yaml"
    manifest.write_text(yaml.safe_dump_all([user_sync("one", clerk=section), user_sync("two", clerk=section)]))
    ended = await usersync.having(CLERK_WEBHOOK_SECRET=SECRET)("doctor", "-f", str(manifest), "-o", "json")
    assert ended.code == 3
    assert [each["resource"] for each in ended.document["items"]] == ["default/one", "default/two"]
    names = {each["name"] for each in ended.document["items"][0]["findings"]}
    assert "UniqueIndexMissing" in names
    assert "NoWebhooks" not in names


async def test_no_secret_is_printed(usersync: Command) -> None:
    url = "postgres://me:hunter2@127.0.0.1:1/app"
    ended = await usersync.having(DATABASE_URL=url, CLERK_WEBHOOK_SECRET="whsec_hunter3")("doctor", "--debug")
    assert ended.code == 1
    assert "hunter" not in ended.out + ended.err
