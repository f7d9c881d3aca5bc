"""Plays histories one after the other on one server, and checks each."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from controller.cli.demo.local_postgres import LocalPostgres
from tests.simulation.crashes import Killed
from tests.simulation.histories import program
from tests.simulation.invariants import check
from tests.simulation.loop import SimulatedLoop
from tests.simulation.stage import Stage
from tests.simulation.stories import count_evidence, read
from tests.simulation.world import World

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterator, MutableMapping

    from tests.simulation.histories import History


@dataclass
class Player:
    """One server and one loop for many histories; `counts` tells what they reached."""

    stage: Stage
    loop: SimulatedLoop
    counts: Counter[str] = field(default_factory=Counter)
    logged: list[BaseException] = field(default_factory=list)

    def play(self, history: History) -> World:
        """Play one history and check it.

        Raises:
            Broken: a promise was broken; the note is the program that plays the history again.
        """
        try:
            return self.loop.run_until_complete(self._play(history))
        except Exception as error:
            error.add_note(f"This plays it again:\n\n{program(history)}")
            raise

    async def _play(self, history: History) -> World:
        real = await self.stage.next_database()
        world = World(history, self.stage, real, self.loop, f"h{self.stage.histories}")
        self.loop.turns = real.turns = world.turns
        try:
            await world.begin()
            await world.play()
            await world.come_to_rest()
        finally:
            await world.end()
            self.loop.turns = real.turns = None
        world.evidence.faults += self.logged
        self.logged.clear()
        story = await read(world)
        self.counts += world.counts + count_evidence(story)
        self.counts["histories"] += 1
        check(story)
        return world

    def hear(self, _: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Listen to the product's log: an exception there is a fault that it survived."""
        if method in {"exception", "error", "critical"}:
            self.logged.append(RuntimeError(str(event)))
        raise structlog.DropEvent


@contextmanager
def player() -> Iterator[Player]:
    """A server of the simulation's own, for its clock and its superuser."""
    with LocalPostgres(settings={"autovacuum": "off", "synchronous_commit": "off"}) as server:
        found = Player(Stage.build(server), SimulatedLoop())
        found.loop.set_exception_handler(_complain)
        structlog.configure(processors=[structlog.processors.format_exc_info, found.hear])
        try:
            yield found
        finally:
            found.loop.turns = None
            found.loop.run_until_complete(found.stage.close())
            found.loop.close()
            structlog.reset_defaults()


def _complain(loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say nothing of tasks that the product began by itself, in a process that is gone: nobody waits for them."""
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)


def replay(history: History) -> None:
    """Play one history on a server of its own, and print what happened."""
    with player() as playing:
        world = playing.play(history)
        for entry in world.evidence.log:
            after = f"{entry.true_at - world.began_at:14.3f}"
            print(after, f"{entry.actor:24}", entry.what, entry.table, entry.user_id or "")
