"""On a terminal: the question before a deletion, and the progress bar."""

from __future__ import annotations

import asyncio
import os
import pty
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.cli.conftest import AT_ONCE, BOUND
from tests.support.databases import rows_of, seed_users, user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controller.emulator import ClerkEmulator
    from tests.integration.cli.conftest import Command

GONE = user_id(7)
QUESTION = "[y/N]"


class Terminal:
    """A command with a terminal as its stdin and stderr, and a pipe as its stdout."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self.text = ""
        self._master = master
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            self.text += os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # Linux says EIO once the other side is closed
            asyncio.get_running_loop().remove_reader(self._master)
        self._changed.set()

    async def until(self, text: str) -> None:
        """Wait until the text has appeared."""
        async with asyncio.timeout(BOUND):
            while text not in self.text:
                self._changed.clear()
                await self._changed.wait()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def end(self) -> tuple[int, str]:
        """Wait for the end; return exit code and stdout."""
        assert self.process.stdout is not None
        async with asyncio.timeout(BOUND):
            out = await self.process.stdout.read()
            return await self.process.wait(), out.decode()


@asynccontextmanager
async def on_terminal(usersync: Command, *arguments: str) -> AsyncIterator[Terminal]:
    master, slave = pty.openpty()
    try:
        process = await usersync.having(TERM="xterm", COLUMNS="120").start(*arguments, stdin=slave, stderr=slave)
    finally:
        os.close(slave)
    terminal = Terminal(process, master)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)


@pytest.fixture
async def living(clerk: ClerkEmulator, database_url: str) -> list[str]:
    """Three living users with rows, and one whom Clerk has forgotten."""
    users = clerk.add_users(3)
    await seed_users(database_url, [*users, GONE])
    return users


@pytest.mark.usefixtures("living")
async def test_yes_on_the_terminal_lets_the_deletion_happen(usersync: Command, database_url: str) -> None:
    async with on_terminal(usersync, "cleanup") as terminal:
        await terminal.until(QUESTION)
        terminal.type("y\n")
        code, _ = await terminal.end()
    assert code == 0, terminal.text
    assert not any((await rows_of(database_url, GONE)).values())


@pytest.mark.parametrize("answer", ["n\n", "\n", "nope\n", "\x04"])
@pytest.mark.usefixtures("living")
async def test_any_other_answer_deletes_nothing(usersync: Command, database_url: str, answer: str) -> None:
    before = await rows_of(database_url, GONE)
    async with on_terminal(usersync, "cleanup") as terminal:
        await terminal.until(QUESTION)
        terminal.type(answer)
        code, out = await terminal.end()
    assert code == 3, terminal.text
    assert "declined" in out
    assert await rows_of(database_url, GONE) == before


@pytest.mark.usefixtures("living")
async def test_the_question_names_counts_and_no_ids(usersync: Command) -> None:
    async with on_terminal(usersync, "full-sync") as terminal:
        await terminal.until(QUESTION)
        assert "Delete all rows of 1 user whom Clerk no longer knows?" in terminal.text
        assert GONE not in terminal.text
        terminal.type("n\n")
        await terminal.end()


async def test_a_plan_that_deletes_nothing_asks_nothing(
    usersync: Command, clerk: ClerkEmulator, database_url: str
) -> None:
    users = clerk.add_users(3)
    async with on_terminal(usersync, "full-sync") as terminal:
        code, out = await terminal.end()
    assert code == 0, terminal.text
    assert "3 profiles created" in out
    assert QUESTION not in terminal.text
    assert (await rows_of(database_url, users[0]))["user_progress"] == 1


@pytest.mark.usefixtures("living")
async def test_ctrl_c_at_the_question_ends_at_once_and_deletes_nothing(usersync: Command, database_url: str) -> None:
    before = await rows_of(database_url, GONE)
    async with on_terminal(usersync, "cleanup") as terminal:
        await terminal.until(QUESTION)
        terminal.process.send_signal(2)
        code, _ = await terminal.end()
    assert code == 130, terminal.text
    assert await rows_of(database_url, GONE) == before


@pytest.mark.usefixtures("living")
async def test_progress_is_shown_on_the_terminal_and_the_result_alone_on_stdout(usersync: Command) -> None:
    async with on_terminal(usersync, "cleanup", *AT_ONCE) as terminal:
        code, out = await terminal.end()
    assert code == 0, terminal.text
    assert "listing Clerk's users" in terminal.text
    assert "\x1b" not in out
    assert "listing" not in out


@pytest.mark.usefixtures("living")
async def test_json_output_on_a_terminal_still_asks_on_stderr(usersync: Command) -> None:
    async with on_terminal(usersync, "cleanup", "-o", "json") as terminal:
        await terminal.until(QUESTION)
        terminal.type("yes\n")
        code, out = await terminal.end()
    assert code == 0, terminal.text
    assert out.startswith("{")
