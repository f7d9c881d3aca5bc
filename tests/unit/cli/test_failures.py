"""Errors as a person meets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from controller.cli.failures import Terminated, explain, guard
from controller.cli.session import Session
from controller.errors import ClerkUnavailable, InvalidSpec

if TYPE_CHECKING:
    from collections.abc import Callable


def raising(error: BaseException) -> Callable[[], object]:
    def command() -> object:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ClerkUnavailable("Clerk answered 500."), 1, "Error: Clerk answered 500.\n"),
        (InvalidSpec("spec.foo: is not a field."), 2, "Error: spec.foo: is not a field.\n"),
        (OSError(98, "Address already in use"), 1, "Error: [Errno 98] Address already in use\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (click.Abort(), 130, "Interrupted.\n"),
        (Terminated(), 143, "Terminated.\n"),
    ],
)
def test_an_error_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard(raising(error), Session()) == code
    assert capsys.readouterr() == ("", line)


def test_a_fault_of_ours_says_how_to_see_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(raising(RuntimeError("boom")), Session()) == 1
    text = capsys.readouterr().err
    assert text == "Error: RuntimeError: boom. This is a fault of usersync; --debug shows where.\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    guard(raising(ClerkUnavailable("Clerk answered 500.")), Session(debug=True))
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.endswith("Error: Clerk answered 500.\n")


def test_of_several_resources_the_failed_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    explain(ClerkUnavailable("Clerk answered 500."), debug=False, resource="app/production")
    assert capsys.readouterr().err == "Error: app/production: Clerk answered 500.\n"


def test_a_command_that_returns_nothing_has_done_its_work() -> None:
    assert guard(lambda: None, Session()) == 0
