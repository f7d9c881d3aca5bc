"""The world of one history: an application, Clerk and its messages, five processes of the product, and a person.

Plays the history, then lets everybody be honest until the world has come to rest. Decides nothing about what is
right; that is `invariants`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any

import asyncpg

from controller.core.absorbing import absorb
from controller.core.contact import establish
from controller.core.doubting import is_doubtful
from controller.core.events import Delivery
from controller.core.events import Event as ClerkEvent
from controller.core.outcomes import Absorbed, Settled
from controller.core.ports import Unwatched
from controller.core.sweeping import Sweeper
from controller.core.targets import (
    DEFAULT_TABLES,
    Action,
    Approval,
    ClerkSource,
    Deletion,
    DeletionPolicy,
    Limits,
    OnUserCreated,
    OnUserDeleted,
    Spec,
    Target,
    Webhook,
)
from controller.core.users import UserId
from controller.errors import TargetBusy, UserSyncError
from controller.postgres import Database, LockTimes
from controller.postgres.connections import Connections
from controller.postgres.counting import Bounds
from controller.runtime import Served
from controller.web.account_deletion import LEASE
from controller.web.events import DESCRIBING
from controller.web.metrics import Metrics
from controller.web.webhooks import CLAIMING
from controller.web.worker import Pace, Worker
from tests.simulation import histories as h
from tests.simulation.clerk import INSTANCE, MAPPING, START_MILLISECONDS, Clerk, LyingDirectory
from tests.simulation.connections import ACTOR, SimulatedPool
from tests.simulation.crashes import Armed, Killed, Process
from tests.simulation.evidence import Evidence
from tests.simulation.loop import START, ProcessClock
from tests.simulation.stage import schema_sql
from tests.simulation.turns import Turns
from tests.support.databases import TABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.outcomes import Outcome
    from controller.core.users import Profile
    from tests.simulation.connections import RealConnections
    from tests.simulation.loop import SimulatedLoop
    from tests.simulation.stage import Stage

RETRIES = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
"""Waits before the attempts of a message that is not acknowledged: Svix's schedule."""
TOKEN_SECONDS = 60.0
"""How long a session token outlives its user."""
ANSWER_SECONDS = 13.0
PATIENCE_SECONDS = 0.8
"""How long a user waits for all to be gone."""
RESTART_SECONDS = 10.0
"""Twice as long each time that a replica did not open: Clerk may lie for weeks."""
RESTART_SECONDS_AT_MOST = 6 * 3600.0
TIMES = LockTimes(beat=timedelta(seconds=20), stale=timedelta(seconds=60))
PACE = Pace(poll=timedelta(days=2), lease=timedelta(seconds=30))
ROUNDS = 14
HELD = "SELECT 1 FROM usersync.claims WHERE schema_name = $1 AND holdback IS NOT NULL"
AWAKE_SECONDS = 3600.0
MAPPED_TABLES = (replace(DEFAULT_TABLES[0], values=MAPPING), *DEFAULT_TABLES[1:])
LONG_AGO = START - timedelta(days=100)


@dataclass
class Replica:
    """One replica of the webhook service, as long as it lives."""

    process: Process
    spec: Spec
    actor: str
    database: Database
    directory: LyingDirectory
    closed_before: int
    """How often in a row it has not opened."""
    open: bool = False
    worker: Worker | None = None


@dataclass(frozen=True)
class Message:
    """What Clerk, or whoever has its secret, says of a user; times in milliseconds, as Clerk writes them."""

    kind: str
    user_id: UserId
    told_at: int | None
    created_at: int | None
    profile: Profile | None = None


@dataclass
class World:
    """Everything of one history."""

    history: h.History
    stage: Stage
    real: RealConnections
    loop: SimulatedLoop
    schema: str
    clerk: Clerk = field(default_factory=Clerk)
    config: h.Configure = field(default_factory=h.Configure)
    everybody: list[UserId] = field(default_factory=list)
    written: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    approval: Approval | None = None
    counts: Counter[str] = field(default_factory=Counter)
    processes: dict[str, Process] = field(default_factory=dict)
    all_processes: list[Process] = field(default_factory=list)
    replicas: dict[str, Replica] = field(default_factory=dict)
    running: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    deliveries: list[asyncio.Task[Any]] = field(default_factory=list)
    metrics: list[Metrics] = field(default_factory=list)
    last_outcome: Outcome | None = None
    at_rest: bool = False
    ending: bool = False
    told_when_deleted: dict[UserId, tuple[float, ...]] = field(default_factory=dict)
    _numbers: int = 0

    def __post_init__(self) -> None:
        """Prepare who decides about turns, and who takes notes."""
        self.random = random.Random(self.history.seed)
        random.seed(self.history.seed)
        self.turns = Turns(self.loop, self.random, self.stage.monitor, self.tick)
        self.turns.stickiness = self.random.choice((0.0, 0.5, 0.9))
        self.evidence = Evidence(self.schema, self.turns, self.random)
        self.began_at = self.loop.time()
        beginning = self.history.beginning
        self.config = h.Configure(policy=beginning.policy, on_deleted=beginning.on_deleted)
        self.stage.clock.offset = 0.0
        self.clerk.on_deletion = self._tell_of_deletion
        self.maps = self.history.beginning.maps
        self.target = Target(self.schema, MAPPED_TABLES) if self.maps else Target(self.schema)

    def tick(self) -> None:
        """Tell the database what time it is."""
        self.stage.clock.write(self.loop.time())

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    # The resource.

    def spec(self) -> Spec:
        """The resource as it is written now."""
        beginning = self.history.beginning
        deletion = Deletion(
            DeletionPolicy(self.config.policy),
            timedelta(hours=beginning.grace_hours),
            Limits(users=beginning.limit_users, percent=10, window=timedelta(hours=24)),
            timedelta(days=10000),
        )
        return Spec(
            "app/simulated",
            ClerkSource(),
            self.target,
            (Action(self.config.actions),),
            timedelta(hours=beginning.interval_hours),
            self.config.suspend,
            self.config.dry_run,
            deletion,
            self.approval,
            Webhook(
                OnUserCreated(self.config.on_created),
                OnUserDeleted(self.config.on_deleted),
                timedelta(hours=beginning.holdback_hours),
            ),
        )

    # The beginning.

    async def begin(self) -> None:
        """Make tables and rows, and start the replicas."""
        beginning = self.history.beginning
        await self._outside(schema_sql(self.schema, unique=beginning.unique, indexed=beginning.indexed))
        rows: list[tuple[str, UserId | str | None]] = []
        for place in range(beginning.living + beginning.gone + beginning.missing):
            user = self._new_user((LONG_AGO - START).total_seconds())
            lives = place < beginning.living or place >= beginning.living + beginning.gone
            if lives:
                self.clerk.users[user] = LONG_AGO + timedelta(minutes=place)
            else:
                self.clerk.gone_at[user] = -1e9
            if place < beginning.living + beginning.gone:
                rows += [(table, user) for table in TABLES[: 2 + place % 3]]
                if place < beginning.duplicates and not beginning.unique:
                    rows.append((TABLES[0], user))
        await self._outside("; ".join(self._insert(table, user) for table, user in rows))
        process = self._process("setup")
        await self._database(process).pin_instance(INSTANCE)
        for name in h.REPLICAS:
            self._start_replica(name)

    def _new_user(self, created_at: float) -> UserId:
        user = UserId(f"user_2{self.schema}U{len(self.everybody):03d}")
        self.everybody.append(user)
        self.clerk.edit(user, created_at)
        return user

    def _insert(self, table: str, user_id: str | None) -> str:
        row_id = f"00000000-0000-4000-8000-{self.number():012d}"
        self.written[row_id] = (table, user_id)
        value = "NULL" if user_id is None else f"'{user_id}'"
        at = LONG_AGO + timedelta(seconds=self._numbers)
        return (
            f"INSERT INTO {self.schema}.{table} VALUES ('{row_id}', {value}, 'note {row_id[-4:]}', '{at.isoformat()}')"
        )

    async def _outside(self, script: str) -> None:
        """Do something to the database that is no step of the history."""
        if not script:
            return
        self.turns.outside += 1
        real = await self.real.get()
        try:
            await real.execute(script)
        finally:
            self.real.free.append(real)
            self.turns.outside -= 1

    async def ask(self, query: str, *arguments: object) -> list[Any]:
        """Look at the database beside the history."""
        self.turns.outside += 1
        real = await self.real.get()
        try:
            return list(await real.fetch(query, *arguments))
        finally:
            self.real.free.append(real)
            self.turns.outside -= 1

    # Processes.

    def _process(self, name: str) -> Process:
        process = self.processes.get(name)
        if process is None or not process.alive:
            process = self._new_process(name)
        return process

    def _new_process(self, name: str) -> Process:
        process = Process(name, ProcessClock(self.loop))
        self.processes[name] = process
        self.all_processes.append(process)
        return process

    def _database(self, process: Process) -> Database:
        pool = SimulatedPool(process, self.turns, self.real, self.evidence)
        connections = Connections(pool, "the simulated database")
        bounds = Bounds(rows=2, batch=1) if self.history.beginning.batches else Bounds()
        return Database(connections, self.target, process.clock, bounds, times=TIMES)

    def _directory(self, process: Process) -> LyingDirectory:
        return LyingDirectory(self.clerk, process, self.turns, self.evidence, self.maps)

    def start_run(self, by: str) -> asyncio.Task[Any] | None:
        """Begin a run, unless the process is at one."""
        if by in self.running and not self.running[by].done():
            return None
        process = self._process(by)
        task = process.begin(self._run(process))
        self.running[by] = task
        return task

    async def _run(self, process: Process) -> Outcome | None:
        actor = f"{self.schema}/{process.name}#{self.number()}"
        ACTOR.set(actor)
        spec = self.evidence.specs[actor] = self.spec()
        if spec.suspend:
            return None
        sweeper = Sweeper(self._directory(process), self._database(process), process.clock, Unwatched())
        self.counts["runs"] += 1
        outcome = None
        try:
            outcome = await sweeper.sweep(spec, holder=actor)
        except UserSyncError as error:
            self.counts[f"runs failed: {error.reason}"] += 1
            if isinstance(error, TargetBusy):
                self.counts["runs refused or taken over"] += 1
        except (Killed, asyncio.CancelledError):
            self.counts["runs killed"] += 1
        except Exception as error:  # noqa: BLE001 - any other is a fault of the product
            self.evidence.faults.append(error)
        if outcome is not None:
            self._hear(outcome, spec)
        return outcome

    def _hear(self, outcome: Outcome, spec: Spec) -> None:
        self.last_outcome = outcome
        self.counts["runs done"] += 1
        self.counts["users removed by runs"] += outcome.changes.users_removed if not outcome.dry_run else 0
        self.counts["users spared"] += outcome.changes.users_spared
        if outcome.held_back is not None:
            self.counts[f"runs held back: {outcome.held_back.reason.value}"] += 1
            if outcome.held_back.digest is not None:
                self.held.append(outcome.held_back.digest)
        approved = any(getattr(change, "approved", False) for change in outcome.plan.changes)
        if approved and spec.approval is not None and not outcome.dry_run:
            self.counts["approvals used"] += 1
            self.evidence.used_up.setdefault(spec.approval.digest, self.loop.time())

    def _start_replica(self, name: str, *, closed_before: int = 0) -> None:
        if self.ending:
            return
        process = self._new_process(name)
        actor = f"{self.schema}/{name}#{self.number()}"
        spec = self.evidence.specs[actor] = self.spec()
        replica = Replica(process, spec, actor, self._database(process), self._directory(process), closed_before)
        self.replicas[name] = replica
        task = process.begin(self._serve(replica))
        task.add_done_callback(lambda _: self._restart_later(replica))

    def _roll_out(self) -> None:
        for name in h.REPLICAS:
            before = self.replicas[name]
            self._start_replica(name)
            before.open = False
            before.process.terminate()

    def _restart_later(self, ended: Replica) -> None:
        closed = 0 if ended.open else ended.closed_before + 1
        ended.open = False
        if not self.ending and self.replicas[ended.process.name] is ended:
            delay = min(RESTART_SECONDS * 2**closed, RESTART_SECONDS_AT_MOST)
            self.loop.call_later(delay, self._restart, ended, closed)

    def _restart(self, ended: Replica, closed_before: int) -> None:
        if not self.ending and self.replicas[ended.process.name] is ended:
            self._start_replica(ended.process.name, closed_before=closed_before)

    async def _serve(self, replica: Replica) -> None:
        ACTOR.set(replica.actor)
        served = Served(replica.directory, replica.database, replica.database, replica.process.clock, replica.directory)
        try:
            await establish(served.directory, served.store)
            replica.open = True
            if replica.spec.suspend or replica.spec.dry_run:
                await asyncio.Event().wait()
            metrics = Metrics()
            self.metrics.append(metrics)
            replica.worker = Worker(replica.spec, served, metrics, PACE)
            await replica.worker.run()
        except (Killed, asyncio.CancelledError, UserSyncError):
            # The key may be of another instance: it is opened anew, by and by.
            return
        except BaseExceptionGroup as group:
            _, others = group.split((Killed, asyncio.CancelledError))
            if others is not None:
                self.evidence.faults.append(others)
        except Exception as error:  # noqa: BLE001
            self.evidence.faults.append(error)

    # Messages.

    def _send(self, message: Message, arrives: Sequence[float]) -> None:
        name = f"msg_{self.number()}"
        for delay in arrives:
            self.deliveries.append(self.loop.create_task(self._deliver(name, message, delay)))

    async def _deliver(self, name: str, message: Message, delay: float) -> None:
        await asyncio.sleep(delay)
        for wait in RETRIES:
            await asyncio.sleep(wait)
            replica = self.replicas[self.random.choice(h.REPLICAS)]
            if not replica.open:
                continue
            self.counts["deliveries"] += 1
            self.evidence.told.setdefault((message.user_id, message.kind), self.loop.time())
            attempt = replica.process.begin(self._receive(replica, name, message))
            # killed before its first step, it is cancelled itself
            await asyncio.wait({attempt})
            if not attempt.cancelled() and attempt.result():
                return

    async def _receive(self, replica: Replica, name: str, message: Message) -> bool:
        ACTOR.set(f"{replica.actor}:{name}")
        self.evidence.specs[ACTOR.get()] = replica.spec
        doubtful = is_doubtful(message.told_at, message.created_at, replica.process.clock.now())
        profile = message.profile if self.maps else None
        event = ClerkEvent(message.kind, INSTANCE.id, message.user_id, doubtful, profile)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                result = await absorb(event, Delivery(name, message.kind), replica.spec, replica.database)
        except (UserSyncError, TimeoutError, Killed, asyncio.CancelledError):
            self.counts["deliveries not acknowledged"] += 1
            return False
        except Exception as error:  # noqa: BLE001
            self.evidence.faults.append(error)
            return False
        self.counts[f"absorbed: {result.value}"] += 1
        self.evidence.absorbed.setdefault(name, []).append(result.value)
        # What is held back is found by the next poll, of which there are too few here.
        if result in {*CLAIMING, Absorbed.HELD} and replica.worker is not None:
            replica.worker.wake()
        return True

    def _tell_of_deletion(self, user_id: UserId) -> None:
        self._send(self._message("user.deleted", user_id), self.told_when_deleted.get(user_id, (0.0,)))

    # Users' own requests.

    async def _ask_for_deletion(self, user_id: UserId, delay: float) -> None:
        """Ask for a user with his token, as long as it is valid; without an answer he asks no more by himself."""
        await asyncio.sleep(delay)
        replica = self.replicas[self.random.choice(h.REPLICAS)]
        if replica.open and user_id in self._may_write():
            await asyncio.wait({replica.process.begin(self._receive_request(replica, user_id))})

    async def _receive_request(self, replica: Replica, user_id: UserId) -> None:
        """Do as `web.account_deletion` once it has read the token."""
        ACTOR.set(f"{replica.actor}:req_{self.number()}")
        self.evidence.specs[ACTOR.get()] = replica.spec
        answer = "not stored"
        if replica.spec.dry_run:
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._delete(replica, user_id)
        except (UserSyncError, TimeoutError, Killed, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001
            self.evidence.faults.append(error)
        if answer == "deleted":
            self.evidence.answered_deleted.add(user_id)
        self.counts[f"own requests: {answer}"] += 1

    async def _delete(self, replica: Replica, user_id: UserId) -> str:
        inbox = replica.database
        claim = await inbox.request_removal(user_id, LEASE)
        if claim is not None:
            settling = None if replica.worker is None else replica.worker.settle_now(claim)
            if settling is None:
                await inbox.go_on_later(claim)
                if replica.worker is not None:
                    replica.worker.wake()
            else:
                done, _ = await asyncio.wait({settling}, timeout=PATIENCE_SECONDS)
                if done and not settling.cancelled() and settling.result() is Settled.REFUSED:
                    return "refused"
        return "pending" if await inbox.receipt_of_request(user_id) is None else "deleted"

    # What happens.

    async def play(self) -> None:
        """Let everything happen that the history says."""
        for step in self.history.steps:
            await self.let_pass(step.after)
            self.counts[type(step.event).__name__] += 1
            await self.happen(step.event)

    async def let_pass(self, seconds: float) -> None:
        """Let time pass; from an hour on the replicas are away.

        A claim that is held back or gets no answer comes every ten minutes, and would fill the days with itself.
        """
        await asyncio.sleep(min(seconds, AWAKE_SECONDS))
        rest = seconds - AWAKE_SECONDS
        if rest > 0:
            for replica in self.replicas.values():
                self.turns.freeze(replica.process, rest)
            await asyncio.sleep(rest)

    def _of(self, users: Sequence[UserId], number: int) -> UserId | None:
        return users[number % len(users)] if users else None

    def _may_write(self) -> list[UserId]:
        now = self.loop.time()
        return [
            user
            for user in self.everybody
            if user in self.clerk.users or now - self.clerk.gone_at[user] <= TOKEN_SECONDS
        ]

    def _latest_first(self) -> list[UserId]:
        """Who has a session token: first those who have just gone, as theirs is valid a little longer."""
        return sorted(self._may_write(), key=lambda user: -self.clerk.gone_at.get(user, -1e12))

    def _living(self, number: int) -> UserId | None:
        """The one of this number or, if he is gone, the next who lives: as lies name them."""
        first = number % max(1, len(self.everybody))
        order = self.everybody[first:] + self.everybody[:first]
        return next((user for user in order if user in self.clerk.users), None)

    def _message(self, kind: str, user_id: UserId, *, back: int = 0, doubtful: bool = False) -> Message:
        versions = self.clerk.versions[user_id]
        profile = versions[max(0, len(versions) - 1 - back)] if kind in DESCRIBING else None
        now = START_MILLISECONDS + int(self.loop.time() * 1000)
        return Message(kind, user_id, None if doubtful else now, now, profile)

    @singledispatchmethod
    async def happen(self, event: h.Event) -> None:
        raise NotImplementedError(event)

    @happen.register
    async def _(self, event: h.SignUp) -> None:
        user = self._new_user(self.loop.time())
        self.clerk.users[user] = START + timedelta(seconds=self.loop.time())
        if event.profile:
            await self._write(TABLES[0], user)
        for place in range(event.rows):
            await self._write(TABLES[1 + place % 3], user)
        self._send(self._message("user.created", user), event.arrives)

    @happen.register
    async def _(self, event: h.Leave) -> None:
        user = self._living(event.who)
        if user is not None:
            self.told_when_deleted[user] = event.arrives
            self.clerk.delete(user, self.loop.time())

    @happen.register
    async def _(self, event: h.Request) -> None:
        user = self._of(self._latest_first(), event.who)
        if user is not None:
            self.told_when_deleted.setdefault(user, event.arrives)
            for delay in (0.0, *event.again):
                self.deliveries.append(self.loop.create_task(self._ask_for_deletion(user, delay)))

    @happen.register
    async def _(self, event: h.Edit) -> None:
        user = self._living(event.who)
        if user is None:
            return
        self.clerk.edit(user, self.loop.time(), mapped=event.mapped)
        self._send(self._message("user.updated", user), event.arrives)
        if event.second is not None:
            self.clerk.edit(user, self.loop.time(), same_millisecond=True)
            self._send(self._message("user.updated", user), event.second)

    @happen.register
    async def _(self, event: h.Tell) -> None:
        user = self._of(self.everybody, event.who)
        if user is not None:
            told = self._message(event.type, user, back=event.back, doubtful=event.doubtful)
            self._send(replace(told, profile=None) if event.bare else told, event.arrives)

    @happen.register
    async def _(self, event: h.Write) -> None:
        user = self._of(self._latest_first(), event.who)
        if user is not None:
            await self._write(TABLES[event.table], user)

    @happen.register
    async def _(self, event: h.WriteForeign) -> None:
        await self._write(TABLES[event.table], event.value)

    async def _write(self, table: str, user_id: str | None) -> None:
        # Among the steps of the others, as soon as the application gets its turn.
        await self.turns.take(self._process("application"))
        statement = self._insert(table, user_id)
        row_id = next(reversed(self.written))
        real = await self.real.get()
        flight = self.turns.begin(real.get_server_pid(), float("inf"))
        work = asyncio.ensure_future(real.execute(statement))
        work.add_done_callback(lambda _: self.turns.end(flight))
        with suppress(asyncpg.UniqueViolationError):
            await work
            self.counts["rows written"] += 1
            row_id = ""
        self.written.pop(row_id, None)
        self.real.free.append(real)

    @happen.register
    async def _(self, event: h.Deceive) -> None:
        self.clerk.lie = event.lie
        who = [self.everybody[number % len(self.everybody)] for number in event.about] if self.everybody else []
        self.clerk.about = frozenset(who)

    @happen.register
    async def _(self, event: h.Sweep) -> None:
        self.start_run(event.by)

    @happen.register
    async def _(self, event: h.Poll) -> None:
        worker = self.replicas[event.by].worker
        if worker is not None:
            worker.wake()

    @happen.register
    async def _(self, event: h.Disturb) -> None:
        self._process(event.process).armed.append(Armed(event.fate, event.steps, event.commits, event.stall))

    @happen.register
    async def _(self, event: h.Jump) -> None:
        self.stage.clock.offset += event.seconds
        self.evidence.jumps.append((self.loop.time(), event.seconds))
        self.tick()

    @happen.register
    async def _(self, event: h.Skew) -> None:
        self._process(event.process).clock.skew = timedelta(seconds=event.seconds)

    @happen.register
    async def _(self, event: h.Approve) -> None:
        sets = list(dict.fromkeys(reversed(self.held)))
        digest = sets[event.back] if event.back < len(sets) else "0" * 64
        self.approval = Approval(digest, "a person")
        self.counts["approvals given"] += event.back < len(sets)

    @happen.register
    async def _(self, event: h.Configure) -> None:
        if event == self.config:
            return
        self.config = event
        self._roll_out()

    # Rest.

    async def come_to_rest(self) -> None:
        """Everybody is honest, time passes, runs and workers go on, and a person approves what is held back."""
        self.clerk.lie = None
        for process in self.processes.values():
            process.armed.clear()
        self.approval = None
        self.config = replace(self.config, suspend=False, dry_run=False, actions="FullSync")
        self._roll_out()
        await asyncio.gather(*self.deliveries)
        await asyncio.gather(*self.running.values(), return_exceptions=True)
        for _ in range(ROUNDS):
            await asyncio.sleep(1000)
            if not self.clerk.users:
                # An instance without a user is an empty listing, on which nobody is ever deleted.
                await self.happen(h.SignUp())
            outcome = await self._one_round()
            if outcome is None:
                continue
            held = outcome.held_back
            if held is not None:
                self.approval = Approval(held.digest, "a person") if held.digest else None
            elif await self.ask(HELD, self.schema):
                await self.let_pass(self.history.beginning.holdback_hours * 3600)
            elif outcome.users_waiting:
                # In two parts: a longer gap between two listings would begin the absence anew.
                await self.let_pass(self.history.beginning.grace_hours * 3600 * 0.6)
            elif await self._nothing_left(outcome):
                self.at_rest = True
                return

    async def _one_round(self) -> Outcome | None:
        for name in h.REPLICAS:
            await self.happen(h.Poll(name))
        self._new_process("a")
        self.running.pop("a", None)
        task = self.start_run("a")
        outcome: Outcome | None = await task if task is not None else None
        return outcome

    async def _nothing_left(self, outcome: Outcome) -> bool:
        left = outcome.remaining.total or outcome.changes.users_left
        claims = await self.ask("SELECT 1 FROM usersync.claims WHERE schema_name = $1", self.schema)
        return not left and not claims

    async def end(self) -> None:
        """End all processes, and wait until the server has done with them."""
        self.ending = True
        tasks = [task for process in self.all_processes for task in process.tasks]
        for process in self.all_processes:
            process.kill()
        await asyncio.gather(*tasks, *self.deliveries, return_exceptions=True)
        while self.evidence.chores - {chore for chore in self.evidence.chores if chore.done()}:
            await asyncio.wait(self.evidence.chores)
        self.counts += self.turns.counts
        for sample in (
            sample for each in self.metrics for family in each.registry.collect() for sample in family.samples
        ):
            if sample.name == "usersync_claims_total":
                self.counts[f"claims: {sample.labels['result']}"] += int(sample.value)
        self.counts["snapshots"] = len(self.evidence.snapshots)
