"""Which commands there are, and what they say before anything is opened."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from controller.cli.main import COMMANDS, usersync
from controller.cli.session import Session
from controller.errors import InvalidSpec
from tests.support.usersyncs import usersync as user_sync

HEAVY = ("kopf", "kubernetes", "svix", "asyncpg", "aiohttp", "rich", "yaml")
ENVIRON = {"CLERK_SECRET_KEY": "sk_test_a", "DATABASE_URL": "postgresql://app@127.0.0.1:1/app"}
DELETING = ["cleanup", "fix-duplicates", "full-sync"]


def call(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
    empty = dict.fromkeys((*ENVIRON, "CLERK_API_URL", "USERSYNC_ALLOW_INSECURE_CLERK_URL"), "")
    return CliRunner().invoke(usersync, arguments, obj=Session(), env=empty | ENVIRON | environ, input=stdin)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_of_the_list_can_be_called(name: str) -> None:
    command = usersync.get_command(click.Context(usersync), name)
    assert command is not None
    assert command.name == name


def test_the_list_of_commands_shows_each_with_a_line() -> None:
    lines = call("--help").output.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in COMMANDS] == list(
        COMMANDS
    )


@pytest.mark.parametrize("arguments", [["version"], ["--help"]])
def test_what_needs_nothing_loads_nothing(arguments: list[str]) -> None:
    code = (
        "import sys; from controller.cli.main import run; "
        f"code = run({arguments!r}); loaded = [name for name in {HEAVY!r} if name in sys.modules]; "
        "print(loaded, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_analyze_loads_nothing_of_the_cluster() -> None:
    code = (
        "import sys, controller.cli.sweeps; "
        "print([name for name in ('kopf', 'kubernetes', 'svix') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_version_says_the_version() -> None:
    assert call("version").output.startswith("usersync ")


def test_an_unknown_command_ends_with_2() -> None:
    assert call("resurrect").exit_code == 2


def test_analyze_has_no_option_that_it_would_ignore() -> None:
    for option in ("--yes", "--dry-run"):
        assert call("analyze", option).exit_code == 2


@pytest.mark.parametrize("name", DELETING)
def test_a_command_that_can_delete_refuses_where_nobody_can_be_asked(name: str) -> None:
    result = call(name)
    assert result.exit_code == 2
    assert "Give --yes" in result.output


def test_fix_progress_deletes_nothing_and_asks_nothing() -> None:
    assert "Give --yes" not in call("fix-progress").output


def test_erase_refuses_where_nobody_can_be_asked() -> None:
    result = call("erase", "user_1")
    assert result.exit_code == 2
    assert "Give --yes to erase" in result.output


@pytest.mark.parametrize("name", ["restore", "erase"])
def test_what_is_no_id_of_clerk_is_a_matter_of_usage(name: str) -> None:
    result = call(name, "system")
    assert result.exit_code == 2
    assert "'system' is no id of a Clerk user" in result.output


def test_a_map_that_names_no_two_tables_is_a_matter_of_usage() -> None:
    result = call("restore", "user_1", "--map", "moods")
    assert result.exit_code == 2
    assert "'moods' is not of the form OLD=NEW" in result.output


@pytest.mark.parametrize(
    ("arguments", "says"), [(["--head", "a" * 64], "--head goes with --verify"), (["--verify", "--head", "x"], "64")]
)
def test_a_head_without_a_verification_or_that_is_none_is_a_matter_of_usage(arguments: list[str], says: str) -> None:
    result = call("receipts", *arguments)
    assert result.exit_code == 2
    assert says in result.output


@pytest.mark.parametrize("field", ["suspend", "dryRun"])
def test_erase_writes_nothing_for_a_resource_that_says_so(field: str) -> None:
    manifest = yaml.safe_dump(user_sync("quiet", **{field: True}))
    result = call("erase", "user_1", "--yes", "-f", "-", stdin=manifest)
    assert result.exit_code == 2
    assert f"spec.{field}: true" in result.output


@pytest.mark.parametrize("command", [["restore", "user_1"], ["erase", "user_1", "--yes"], ["receipts"]])
@pytest.mark.parametrize("named", [[], ["--name", "third"]])
def test_of_several_resources_one_must_be_named(command: list[str], named: list[str]) -> None:
    manifest = yaml.safe_dump_all([user_sync("first"), user_sync("second")])
    result = call(*command, "-f", "-", *named, stdin=manifest)
    assert isinstance(result.exception, InvalidSpec)
    assert "first, default/second; say with --name" in str(result.exception)


@pytest.mark.parametrize("name", DELETING)
def test_a_manifest_from_standard_input_leaves_nobody_to_ask(name: str) -> None:
    result = call(name, "-f", "-", stdin=yaml.safe_dump(user_sync("piped")))
    assert result.exit_code == 2
    assert "Give --yes" in result.output
