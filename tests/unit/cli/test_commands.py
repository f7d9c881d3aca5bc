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
    assert call("restore").exit_code == 2


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


@pytest.mark.parametrize("name", DELETING)
def test_a_manifest_from_standard_input_leaves_nobody_to_ask(name: str) -> None:
    result = call(name, "-f", "-", stdin=yaml.safe_dump(user_sync("piped")))
    assert result.exit_code == 2
    assert "Give --yes" in result.output
