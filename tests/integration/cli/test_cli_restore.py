"""restore, erase and receipts as processes: what they do, what they say, and how they end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from controller.emulator import Fault, FaultName
from tests.integration.cli.conftest import AT_ONCE
from tests.integration.cli.test_cli_terminal import on_terminal
from tests.support.databases import TABLES, execute, fetch_value, rows_of, seed, seed_users, users_with_rows
from tests.support.usersyncs import clerk as clerk_section
from tests.support.usersyncs import usersync as user_sync

if TYPE_CHECKING:
    from pathlib import Path

    from controller.emulator import ClerkEmulator
    from tests.integration.cli.conftest import Command

WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
NOTHING = dict.fromkeys(TABLES, 0)


@pytest.fixture
async def gone(usersync: Command, clerk: ClerkEmulator, database_url: str) -> str:
    """A user whom Clerk has deleted, and whose rows a cleanup has archived; twenty others live."""
    users = clerk.add_users(21)
    await seed_users(database_url, users)
    clerk.delete(users[0], webhook=False)
    ended = await usersync("cleanup", "--yes", "--grace-period", "0s")
    assert ended.code == 0, ended.err
    assert await rows_of(database_url, users[0]) == NOTHING
    return users[0]


async def test_a_user_who_lives_again_is_put_back(
    usersync: Command, clerk: ClerkEmulator, database_url: str, gone: str
) -> None:
    clerk.sign_up(gone, webhook=False)
    ended = await usersync("restore", gone)
    assert (ended.code, ended.err) == (0, "")
    assert "Put back 7 rows (" in ended.out
    assert "The tombstone is lifted." in ended.out
    assert await rows_of(database_url, gone) == WHOLE
    assert (await usersync("analyze")).code == 0


async def test_a_user_whom_clerk_does_not_know_is_refused_with_1_and_not_named(
    usersync: Command, database_url: str, gone: str
) -> None:
    ended = await usersync("restore", gone)
    assert ended.code == 1
    assert "--force" in ended.err
    assert gone not in ended.err + ended.out
    assert await rows_of(database_url, gone) == NOTHING


async def test_a_forced_user_is_put_back_with_a_warning_and_the_next_run_leaves_him_the_grace_period(
    usersync: Command, database_url: str, gone: str
) -> None:
    ended = await usersync("restore", gone, "--force", "-o", "json")
    assert ended.code == 0
    assert ended.document["restored"] == WHOLE
    assert "orphaned again" in ended.err
    cleanup = await usersync("cleanup", "--yes")
    assert cleanup.code == 3
    assert await rows_of(database_url, gone) == WHOLE


async def test_whoever_was_put_back_and_is_due_again_needs_another_approval(
    usersync: Command, clerk: ClerkEmulator, database_url: str
) -> None:
    users = clerk.add_users(20)
    await seed_users(database_url, users)
    gone = clerk.delete_many(users[:6], webhook=False)
    held = await usersync("cleanup", *AT_ONCE, "-o", "json")
    digest = held.document["pendingDeletion"]["digest"]
    assert (await usersync("cleanup", *AT_ONCE, "--approve", digest)).code == 0
    assert await users_with_rows(database_url) == set(users[6:])
    for user in gone:
        assert (await usersync("restore", user, "--force")).code == 0
    held = await usersync("cleanup", *AT_ONCE, "--approve", digest, "-o", "json")
    assert (held.code, await users_with_rows(database_url)) == (4, set(users))
    assert "has been used" in held.document["lastRun"]["message"]
    assert (await usersync("cleanup", *AT_ONCE, "--approve", held.document["pendingDeletion"]["digest"])).code == 0
    assert await users_with_rows(database_url) == set(users[6:])


async def test_where_clerk_is_away_only_force_puts_a_user_back(
    usersync: Command, clerk: ClerkEmulator, database_url: str, gone: str
) -> None:
    clerk.switch_on(Fault(FaultName.FORBIDDEN))
    refused = await usersync("restore", gone)
    assert refused.code == 1
    assert "could not be asked" in refused.err
    assert await rows_of(database_url, gone) == NOTHING
    assert (await usersync("restore", gone, "--force")).code == 0
    assert await rows_of(database_url, gone) == WHOLE


async def test_a_dry_run_ends_with_3_and_changes_nothing(
    usersync: Command, clerk: ClerkEmulator, database_url: str, gone: str
) -> None:
    clerk.sign_up(gone, webhook=False)
    ended = await usersync("restore", gone, "--dry-run")
    assert ended.code == 3
    assert "Would put back 7 rows" in ended.out
    assert await rows_of(database_url, gone) == NOTHING


async def test_what_is_skipped_is_counted_and_ends_with_3(
    usersync: Command, clerk: ClerkEmulator, database_url: str, gone: str
) -> None:
    clerk.sign_up(gone, webhook=False)
    await seed(database_url, "user_progress", [gone])
    refused = await usersync("restore", gone)
    assert refused.code == 1
    assert "public.user_progress" in refused.err
    ended = await usersync("restore", gone, "--on-conflict", "skip")
    assert ended.code == 3
    assert "Left in the archive, as rows of today stand in their way: 1 rows (user_progress 1)." in ended.out


async def test_what_referred_to_the_users_rows_is_counted_where_it_refers_again_and_where_not(
    usersync: Command, clerk: ClerkEmulator, database_url: str
) -> None:
    users = clerk.add_users(21)
    await seed_users(database_url, users)
    await execute(
        database_url,
        "CREATE TABLE likes (id serial PRIMARY KEY, active boolean, task uuid REFERENCES tasks ON DELETE SET NULL)",
        *[f"INSERT INTO likes (task) SELECT id FROM tasks WHERE user_id = '{users[0]}'"] * 2,
    )
    clerk.delete(users[0], webhook=False)
    assert (await usersync("cleanup", "--yes", "--grace-period", "0s")).code == 0
    clerk.sign_up(users[0], webhook=False)
    await execute(
        database_url,
        "DELETE FROM likes WHERE id = 1",
        "ALTER TABLE likes ADD CHECK (active IS NULL OR task IS NULL)",
        "UPDATE likes SET active = true WHERE id = 2",
    )
    refused = await usersync("restore", users[0])
    assert refused.code == 1
    assert "public.likes cannot refer again" in refused.err
    tried = await usersync("restore", users[0], "--on-conflict", "skip", "--dry-run", "-o", "json")
    assert tried.document["links"] == {"restored": {"likes": 2}, "left": {"likes": 1}, "skipped": {"likes": 1}}
    assert await fetch_value(database_url, "SELECT count(task) FROM likes") == 0
    ended = await usersync("restore", users[0], "--on-conflict", "skip")
    assert ended.code == 3
    assert "Linked to them again, as they were before: 2 rows (likes 2)." in ended.out
    assert "Not linked again, as they are gone or linked otherwise by now: 1 rows (likes 1)." in ended.out
    assert "Not linked again, as a constraint or a missing right stands in the way: 1 rows (likes 1)." in ended.out
    assert await fetch_value(database_url, "SELECT count(task) FROM likes") == 2


async def test_a_renamed_table_and_a_dropped_column_by_a_manifest_of_several(
    usersync: Command, clerk: ClerkEmulator, database_url: str, gone: str, tmp_path: Path
) -> None:
    clerk.sign_up(gone, webhook=False)
    await execute(database_url, "ALTER TABLE moods RENAME TO feelings", "ALTER TABLE tasks DROP note")
    tables = [{"name": "user_progress", "role": "Profile"}, *({"name": name} for name in ("tasks", "feelings"))]
    path = tmp_path / "usersync.yaml"
    path.write_text(
        yaml.safe_dump_all(
            user_sync(name, clerk=clerk_section(apiUrl=clerk.url), tables=tables) for name in ("one", "two")
        )
    )
    chosen = ["-f", str(path), "--name", "two"]
    tables_wanted = ["--table", "tasks", "--table", "feelings"]
    assert (await usersync("restore", gone, "-f", str(path))).code == 2
    refused = await usersync("restore", gone, *chosen, "--table", "moods")
    assert (refused.code, "--map moods=NEW" in refused.err) == (1, True)
    ended = await usersync("restore", gone, *chosen, "--map", "moods=feelings", *tables_wanted, "-o", "yaml")
    assert ended.code == 0, ended.err
    document = yaml.safe_load(ended.out)
    assert document["resource"] == "default/two"
    assert document["restored"] == {"tasks": 2, "feelings": 2}
    assert document["leftInArchive"] == {"tasks": ["note"]}
    assert "tasks has no place any more for what note held" in ended.err


async def test_erase_leaves_nothing_but_a_receipt(usersync: Command, database_url: str, gone: str) -> None:
    ended = await usersync("erase", gone, "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert (ended.document["erased"], ended.document["erasedFromArchive"]) == ({}, 7)
    assert await fetch_value(database_url, "SELECT count(*) FROM usersync.archive") == 0
    assert (await usersync("restore", gone, "--force")).code == 1


async def test_a_living_user_is_not_erased(usersync: Command, clerk: ClerkEmulator, database_url: str) -> None:
    (user,) = clerk.add_users(1)
    await seed_users(database_url, [user])
    assert (await usersync("analyze")).code == 0
    ended = await usersync("erase", user, "--yes")
    assert ended.code == 1
    assert "Delete him there first" in ended.err
    assert await rows_of(database_url, user) == WHOLE


@pytest.mark.parametrize(("answer", "code", "archived"), [("y\n", 0, 0), ("n\n", 3, 7), ("\n", 3, 7)])
async def test_erase_asks_on_a_terminal(
    usersync: Command, database_url: str, gone: str, *, answer: str, code: int, archived: int
) -> None:
    async with on_terminal(usersync, "erase", gone) as terminal:
        await terminal.until("It cannot be undone. [y/N]")
        terminal.type(answer)
        assert (await terminal.end())[0] == code
    assert await fetch_value(database_url, "SELECT count(*) FROM usersync.archive") == archived


async def test_receipts_are_listed_without_a_key_of_clerk_and_name_nobody(usersync: Command, gone: str) -> None:
    await usersync("restore", gone, "--force")
    ended = await usersync.without("CLERK_SECRET_KEY")("receipts", "-o", "json")
    assert ended.code == 0, ended.err
    first, second = ended.document["items"]
    assert (first["act"], first["position"], first["rows"]) == ("archived", 1, WHOLE)
    assert (second["act"], second["position"]) == ("restored", 2)
    assert "command line: " in second["requestedBy"]
    assert gone not in ended.out
    table = await usersync("receipts", "--limit", "1")
    assert [line.split()[2] for line in table.out.splitlines()[1:] if line.split()[0] == "2"] == ["restored"]


async def test_receipts_of_one_user_alone(usersync: Command, clerk: ClerkEmulator, gone: str) -> None:
    (other,) = clerk.add_users(1)
    assert len((await usersync("receipts", "--user", gone, "-o", "json")).document["items"]) == 1
    assert (await usersync("receipts", "--user", other, "-o", "json")).document["items"] == []


async def test_verify_ends_with_0_and_with_1_once_a_receipt_was_changed(
    usersync: Command, database_url: str, gone: str
) -> None:
    assert gone
    ended = await usersync("receipts", "--verify", "-o", "json")
    assert (ended.code, ended.document["verified"], ended.document["receipts"]) == (0, True, 1)
    head = ended.document["head"]
    assert (await usersync("receipts", "--verify", "--head", head)).code == 0
    other = await usersync("receipts", "--verify", "--head", "0" * 64)
    assert (other.code, "is no link of this chain" in other.err) == (1, True)
    await execute(
        database_url,
        "ALTER TABLE usersync.receipts DISABLE TRIGGER append_only",
        "UPDATE usersync.receipts SET rows = '{}'",
    )
    changed = await usersync("receipts", "--verify", "-o", "json")
    assert (changed.code, json.loads(changed.out)["position"]) == (1, 1)
    assert "position 1" in changed.err


async def test_receipts_of_a_database_that_was_never_worked_on_say_what_to_do(usersync: Command) -> None:
    ended = await usersync("receipts")
    assert ended.code == 1
    assert "usersync migrate" in ended.err
