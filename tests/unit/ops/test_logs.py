from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from controller.ops.logs import LogFormat, configure

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_our_events_are_one_json_object_a_line(out: io.StringIO) -> None:
    configure(LogFormat.JSON, stream=out)
    structlog.get_logger("controller.x").info("run_finished", users=3)
    line = json.loads(out.getvalue())
    assert (line["event"], line["users"], line["level"], line["logger"]) == ("run_finished", 3, "info", "controller.x")


def test_a_librarys_records_take_the_same_form(out: io.StringIO) -> None:
    configure(LogFormat.JSON, stream=out)
    logging.getLogger("kopf").warning("watch %s", "ended")
    assert json.loads(out.getvalue())["event"] == "watch ended"


def test_where_there_is_no_terminal_auto_means_json(out: io.StringIO) -> None:
    configure(LogFormat.AUTO, stream=out)
    structlog.get_logger("x").info("hello")
    assert json.loads(out.getvalue())["event"] == "hello"


def test_a_lost_tasks_exception_is_heard(out: io.StringIO) -> None:
    logging.getLogger("asyncio").disabled = True
    configure(LogFormat.JSON, stream=out)
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    assert "never retrieved" in out.getvalue()


@pytest.mark.parametrize(("name", "level"), [("kopf.objects", logging.INFO), ("kopf.x", logging.DEBUG)])
def test_kopf_is_quieter_than_the_level(out: io.StringIO, name: str, level: int) -> None:
    configure(LogFormat.JSON, "debug", stream=out)
    logging.getLogger(name).log(level, "Handler 'x' succeeded.")
    assert out.getvalue() == ""


async def test_a_connection_that_was_cut_is_not_told_twice(out: io.StringIO) -> None:
    configure(LogFormat.JSON, stream=out)
    for words in ("unexpected connection_lost() call", "another one"):
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ConnectionError(words))
        del future
    assert ["another one" in line for line in out.getvalue().splitlines()] == [True]


def test_below_the_level_nothing_is_written(out: io.StringIO) -> None:
    configure(LogFormat.JSON, "warning", stream=out)
    structlog.get_logger("x").info("hello")
    assert out.getvalue() == ""


def test_an_error_carries_its_traceback_as_data(out: io.StringIO) -> None:
    configure(LogFormat.JSON, stream=out)
    try:
        raise RuntimeError("boom")  # noqa: TRY301, EM101 - the error is the test's matter
    except RuntimeError:
        structlog.get_logger("x").exception("failed")
    assert json.loads(out.getvalue())["exception"][0]["exc_value"] == "boom"
