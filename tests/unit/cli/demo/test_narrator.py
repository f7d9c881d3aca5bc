"""The story is held to what was seen."""

from __future__ import annotations

import io

import pytest

from controller.cli.demo.command import fail
from controller.cli.demo.narrator import Narrator
from controller.cli.demo.stage import PromiseBroken
from controller.cli.rendering import open_console


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def narrator(told: io.StringIO) -> Narrator:
    return Narrator(open_console(told), patience_seconds=0.05)


async def test_a_promise_that_is_kept_is_told_and_counted(narrator: Narrator, told: io.StringIO) -> None:
    narrator.expect("nobody else lost a row", 3, 3)
    assert told.getvalue().rstrip() == "   ✓ nobody else lost a row"
    assert narrator.seen == 1


async def test_a_promise_that_is_not_kept_ends_the_story_and_says_what_was_seen(narrator: Narrator) -> None:
    with pytest.raises(PromiseBroken, match="nobody else lost a row: 3 was promised, 2 was seen"):
        narrator.expect("nobody else lost a row", 2, 3)
    assert narrator.seen == 0


async def test_what_does_not_come_about_in_time_ends_the_story(narrator: Narrator) -> None:
    async def look() -> int:
        return 0

    with pytest.raises(PromiseBroken, match=r"her rows: 1 was promised within 0\.05 s, 0 was seen"):
        await narrator.wait_for("her rows", look, 1)


async def test_what_comes_about_later_is_waited_for() -> None:
    answers = iter([0, 0, 1])

    async def look() -> int:
        return next(answers)

    assert await Narrator(open_console(io.StringIO())).wait_for("her rows", look, 1) > 0
    assert next(answers, None) is None


def test_a_broken_promise_is_an_error_for_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(PromiseBroken("her rows: ...")) == 1
    assert capsys.readouterr().err == "Error: the story went wrong. her rows: ...\n"
