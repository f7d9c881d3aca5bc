"""Mapped columns from Clerk to the database: its webhooks over HTTP, its listing over HTTP, a real PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from controller.core.mapping import Constant, MappedColumn, parse_field
from controller.core.ports import Phase, Unwatched
from controller.core.targets import DEFAULT_TABLES, Action, ClerkSource, Deletion, Limits, Role, Table, Target
from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings
from controller.emulator.events import deleted_user, encode, envelope, sign
from controller.postgres import migrate
from controller.runtime import open_sweeper
from controller.settings import ClerkURLs, Credentials
from tests.support.databases import execute, fetch
from tests.support.serving import OWED, count, eventually, real_service
from tests.support.webhooks import PATH, SPEC

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from controller.core.outcomes import Outcome
    from tests.support.serving import Replica

SOURCES = {"email": "primaryEmailAddress", "plan": "publicMetadata.plan", "seen": "updatedAt"}
VALUES = tuple(
    MappedColumn(column, field) for column, source in SOURCES.items() if (field := parse_field(source)) is not None
)
PROFILE = Table("user_progress", Role.PROFILE, values=(*VALUES, MappedColumn("kind", Constant("human"))))
MAPPED = replace(
    SPEC, target=Target(tables=(PROFILE, *DEFAULT_TABLES[1:])), deletion=Deletion(limits=Limits(1000, 100))
)


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    settings = EmulatorSettings(environment=Environment.PRODUCTION, rate_limit=None)
    # of fewer than fifty users only five may be removed
    async with ClerkEmulator(settings, users=60) as emulator:
        yield emulator


@pytest.fixture
async def url(database_url: str) -> str:
    await migrate(database_url)
    await execute(
        database_url,
        "ALTER TABLE user_progress ADD email text, ADD plan varchar(20), ADD seen timestamptz, ADD kind text",
        "CREATE UNIQUE INDEX ON user_progress (user_id)",
    )
    return database_url


@pytest.fixture
async def replica(clerk: ClerkEmulator, url: str) -> AsyncIterator[Replica]:
    async with real_service(clerk, url, MAPPED) as replica:
        await sweep(clerk, url)
        yield replica


async def sweep(
    clerk: ClerkEmulator, url: str, *actions: Action, dry_run: bool = False, watcher: Unwatched | None = None
) -> Outcome:
    spec = replace(MAPPED, clerk=ClerkSource(clerk.url), actions=actions or (Action.FULL_SYNC,), dry_run=dry_run)
    credentials = Credentials(clerk.secret_key, url)
    async with open_sweeper(spec, credentials, ClerkURLs(allow_insecure=True), watcher) as sweeper:
        return await sweeper.sweep(spec, holder="test")


async def rows(url: str, user_id: str) -> list[tuple[Any, ...]]:
    found = await fetch(
        url,
        "SELECT email, plan, (extract(epoch FROM seen) * 1000)::bigint, kind FROM user_progress WHERE user_id = $1",
        user_id,
    )
    return [tuple(row) for row in found]


def desired(clerk: ClerkEmulator, user_id: str) -> list[tuple[Any, ...]]:
    """The row that a user should have, by Clerk's own description of him."""
    if user_id not in clerk.users:
        return []
    user = clerk.users.describe(user_id)
    addresses = {each["id"]: each["email_address"] for each in user["email_addresses"]}
    plan = user["public_metadata"].get("plan")
    return [(addresses.get(user["primary_email_address_id"]), plan, user["updated_at"], "human")]


async def settled(url: str) -> bool:
    return await count(url, OWED) == 0


class Mail:
    """Messages of Clerk, in the hands of somebody who sends them as he likes."""

    def __init__(self, clerk: ClerkEmulator, session: aiohttp.ClientSession) -> None:
        self.clerk = clerk
        self.session = session

    def message(self, event_type: str, data: dict[str, Any]) -> bytes:
        return encode(envelope(event_type, data, instance_id=self.clerk.instance.id))

    async def send(self, body: bytes, message_id: str) -> str:
        headers = sign(self.clerk.webhook_secret, body, message_id=message_id)
        async with self.session.post(PATH, data=body, headers=headers) as response:
            assert response.status == 200
            result: str = (await response.json())["result"]
            return result


@pytest.fixture
async def mail(clerk: ClerkEmulator, replica: Replica) -> AsyncIterator[Mail]:
    async with aiohttp.ClientSession(replica.url) as session:
        yield Mail(clerk, session)


def history(clerk: ClerkEmulator, mail: Mail, *, ends: str) -> tuple[str, list[bytes]]:
    """Let a user sign up, be edited twice, the second time within the same millisecond if it `ends` in a tie."""
    user_id = clerk.sign_up(webhook=False)
    bodies = [mail.message("user.created", clerk.users.describe(user_id))]
    created_at = clerk.users.describe(user_id)["created_at"]
    for number, (plan, address) in enumerate((("free", None), ("pro", "new@example.com"))):
        later = created_at + (1 if ends == "tie" else 1 + number)
        changes = {"public_metadata": {"plan": plan}, "email_address": address, "updated_at": later}
        clerk.edit(user_id, webhook=False, **changes)
        bodies.append(mail.message("user.updated", clerk.users.describe(user_id)))
    if ends == "deletion":
        clerk.delete(user_id, webhook=False)
        bodies.append(mail.message("user.deleted", deleted_user(user_id)))
    return user_id, bodies


@pytest.mark.parametrize("ends", ["life", "tie", "deletion"])
async def test_events_in_every_order_and_repeated_converge_to_what_clerk_says(
    clerk: ClerkEmulator, url: str, mail: Mail, ends: str
) -> None:
    histories = []
    for order in permutations(range(4 if ends == "deletion" else 3)):
        user_id, bodies = history(clerk, mail, ends=ends)
        histories.append(user_id)
        for number in (*order, *reversed(order)):
            await mail.send(bodies[number], f"msg_{user_id}_{number}")
    await eventually(lambda: settled(url))
    assert [await rows(url, user_id) for user_id in histories] == [desired(clerk, user_id) for user_id in histories]


async def test_events_of_one_user_all_at_once_converge(clerk: ClerkEmulator, url: str, mail: Mail) -> None:
    histories = [history(clerk, mail, ends=ends) for ends in ("life", "tie", "deletion") * 4]
    await asyncio.gather(
        *(
            mail.send(body, f"msg_{user_id}_{number}")
            for user_id, bodies in histories
            for number, body in reversed([*enumerate(bodies), *enumerate(bodies)])
        )
    )
    await eventually(lambda: settled(url))
    for user_id, _ in histories:
        assert await rows(url, user_id) == desired(clerk, user_id)


@pytest.mark.usefixtures("replica")
async def test_a_sign_up_and_an_edit_are_in_the_columns_at_once(clerk: ClerkEmulator, url: str) -> None:
    user_id = clerk.sign_up()
    await clerk.webhooks.settle()
    assert await rows(url, user_id) == desired(clerk, user_id)
    later = clerk.users.describe(user_id)["updated_at"] + 5
    clerk.edit(user_id, public_metadata={"plan": "pro"}, updated_at=later)
    await clerk.webhooks.settle()
    assert await rows(url, user_id) == desired(clerk, user_id)
    assert await count(url, OWED) == 0


@pytest.mark.usefixtures("replica")
async def test_a_value_that_the_column_cannot_hold_leaves_it_and_the_run_says_so(
    clerk: ClerkEmulator, url: str
) -> None:
    user_id = next(iter(clerk.users))
    clerk.edit(user_id, public_metadata={"plan": "x" * 21})
    await clerk.webhooks.settle()
    outcome = await sweep(clerk, url)
    ((address, plan, *_),) = await rows(url, user_id)
    assert (address, plan) == (desired(clerk, user_id)[0][0], None)
    assert outcome.remaining.total == 0
    assert "publicMetadata.plan of 1 user(s) does not fit public.user_progress.plan" in outcome.warnings[-1]


async def test_a_run_creates_rows_with_their_values_and_mends_columns_changed_by_hand(
    clerk: ClerkEmulator, url: str
) -> None:
    clerk.sign_up(webhook=False)
    first = await sweep(clerk, url)
    assert (first.changes.profiles_created, first.changes.profiles_updated) == (61, 0)
    await execute(
        url,
        "UPDATE user_progress SET plan = 'pro', kind = NULL WHERE user_id >= (SELECT max(user_id) FROM user_progress)",
    )
    analysed = await sweep(clerk, url, Action.ANALYZE)
    dry = await sweep(clerk, url, dry_run=True)
    assert (analysed.found.outdated, analysed.changes.profiles_updated, dry.changes.profiles_updated) == (1, 0, 1)
    mended = await sweep(clerk, url)
    assert (mended.found.outdated, mended.changes.profiles_updated, mended.remaining.total) == (1, 1, 0)
    for user_id in clerk.users:
        assert await rows(url, user_id) == desired(clerk, user_id)


async def test_a_run_mends_what_lost_webhooks_left_outdated(clerk: ClerkEmulator, url: str, replica: Replica) -> None:
    user_id = clerk.sign_up()
    await clerk.webhooks.settle()
    clerk.edit(user_id, webhook=False, public_metadata={"plan": "pro"})
    outcome = await sweep(clerk, url)
    assert outcome.changes.profiles_updated == 1
    assert await rows(url, user_id) == desired(clerk, user_id)
    assert replica.counted("usersync_webhook_events_total", type="user.created", result="created") == 1


@pytest.mark.parametrize("phase", [Phase.LIST, Phase.OBSERVE])
async def test_an_edit_during_a_run_is_never_overwritten_by_what_was_listed_before(
    clerk: ClerkEmulator, url: str, replica: Replica, phase: Phase
) -> None:
    user_id = next(iter(clerk.users))
    clerk.edit(user_id, webhook=False, public_metadata={"plan": "listed"})
    edited: list[bool] = []

    def edit() -> None:
        if not edited:
            edited.append(True)
            later = clerk.users.describe(user_id)["updated_at"] + 1
            clerk.edit(user_id, public_metadata={"plan": "told"}, updated_at=later)

    await sweep(clerk, url, watcher=Meddling(phase, edit))
    await clerk.webhooks.settle()
    await eventually(lambda: settled(url))
    assert edited
    assert (await rows(url, user_id))[0][1] == "told"
    assert replica.counted("usersync_webhook_events_total", type="user.updated", result="updated") == 1


class Meddling(Unwatched):
    """Does something as soon as a run has got so far."""

    def __init__(self, phase: Phase, act: Callable[[], None]) -> None:
        super().__init__()
        self.phase = phase
        self.act = act

    def advance(self, phase: Phase, done: int) -> None:
        del done
        if phase is self.phase:
            self.act()


async def test_what_was_edited_while_suspended_is_caught_up_on_resume(
    clerk: ClerkEmulator, url: str, replica: Replica
) -> None:
    user_id = next(iter(clerk.users))
    replica.apply(replace(MAPPED, suspend=True))
    clerk.edit(user_id, public_metadata={"plan": "once"})
    clerk.edit(user_id, public_metadata={"plan": "pro"})
    await clerk.webhooks.settle()
    before = await rows(url, user_id)
    assert before[0][1] is None
    replica.apply(MAPPED)
    await eventually(lambda: settled(url))
    assert await rows(url, user_id) == desired(clerk, user_id)
