"""`usersync serve` as a program: how it starts, how it is killed and begun anew, how it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest
import yaml

from controller.emulator import ClerkEmulator, Endpoint, Fault, FaultName
from tests.support.databases import connected, execute, seed, until_waited_for, users_with_rows
from tests.support.observing import observing, row_held
from tests.support.serving import (
    OWED,
    REPOSITORY,
    Program,
    count,
    environment_of,
    eventually,
    rows_in_all,
    send_to,
    start,
    status_of,
)
from tests.support.usersyncs import clerk as clerk_part
from tests.support.usersyncs import usersync
from tests.support.webhooks import Sender

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = (0, 0, 0, 0)
SHORT_PATH = "/api/webhooks/clerk"


class Starter:
    """Starts programs on one environment; all of them end with the test."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.programs: list[Program] = []

    def start(self, *arguments: str) -> Program:
        name = f"serve-{len(self.programs)}"
        program = start(self.folder, *arguments, environment=self.environment, name=name)
        self.programs.append(program)
        return program


@pytest.fixture
def starter(tmp_path: Path, clerk: ClerkEmulator, url: str) -> Iterator[Starter]:
    starter = Starter(tmp_path, environment_of(clerk, url))
    yield starter
    for program in starter.programs:
        program.end()


async def point_at(clerk: ClerkEmulator, program: Program) -> None:
    """Let Clerk's webhooks go to the program once it serves: from the environment, a resource has no name."""
    await program.saying("serving")
    send_to(clerk, await program.url(), SHORT_PATH)


async def test_on_the_environment_alone_it_serves_names_its_ports_and_ends_on_sigterm(
    clerk: ClerkEmulator, starter: Starter, url: str
) -> None:
    program = starter.start()
    base, ops = await program.url(), await program.ops_url()
    await program.saying("serving")
    assert [await status_of(f"{ops}{path}") for path in ("/livez", "/readyz", "/metrics")] == [200, 200, 200]
    async with aiohttp.ClientSession(base) as session:
        sender = Sender(session, clerk.webhook_secret, clerk.instance.id)
        answer = await sender.send("user.created", clerk.sign_up("user_2new", webhook=False), path=SHORT_PATH)
        assert answer.content == {"result": "created"}
    assert await rows_in_all(url, "user_2new") == (1, 0, 0, 0)
    assert program.end() == 0
    assert [await status_of(f"{base}/"), await status_of(f"{ops}/livez")] == [0, 0]
    assert "Traceback" not in program.log.read_text()
    assert list(program.said("stopped"))


async def test_killed_between_acknowledgement_and_effect_it_finishes_after_a_new_start(
    clerk: ClerkEmulator, starter: Starter, url: str
) -> None:
    gone_user, *others = list(clerk.users)
    number = clerk.switch_on(Fault(FaultName.TIMEOUT, endpoint=Endpoint.LOOKUP))
    first = starter.start()
    await point_at(clerk, first)
    clerk.delete(gone_user)
    await clerk.webhooks.settle()

    async def asked() -> bool:
        return clerk.requests.by_endpoint[Endpoint.LOOKUP] > 0

    await eventually(asked)
    first.kill()
    assert [each.status for each in clerk.webhooks.deliveries] == [200]
    assert await rows_in_all(url, gone_user) == (1, 2, 2, 2)
    assert (await count(url, "claims"), await count(url, "tombstones")) == (1, 0)
    clerk.faults.switch_off(number)
    # the lease of the killed worker ends by itself after half a minute, which no test needs to sit through
    await execute(url, "UPDATE usersync.claims SET due_at = clock_timestamp() + interval '1 second'")
    starter.start()

    async def gone() -> bool:
        return await rows_in_all(url, gone_user) == NOBODY

    await eventually(gone)
    assert await users_with_rows(url) == set(others)
    assert (await count(url, OWED), await count(url, "tombstones"), await count(url, "archive")) == (0, 1, 7)


async def test_killed_in_the_middle_of_a_removal_nobody_sees_half_a_user(
    clerk: ClerkEmulator, starter: Starter, url: str
) -> None:
    gone_user, *others = list(clerk.users)
    first = starter.start()
    await point_at(clerk, first)
    async with observing(url) as observer:
        async with row_held(url, "daily_checkins", gone_user) as holder:
            clerk.delete(gone_user)
            await until_waited_for(holder)
            first.kill()
            await observer.looked_again()
        await observer.looked_again()
        assert await rows_in_all(url, gone_user) == (1, 2, 2, 2)
        await execute(url, "UPDATE usersync.claims SET due_at = clock_timestamp()")  # as above
        await point_at(clerk, starter.start())

        async def gone() -> bool:
            return await rows_in_all(url, gone_user) == NOBODY

        await eventually(gone)
        await observer.looked_again()
    assert observer.halves == []
    assert await users_with_rows(url) == set(others)


async def test_killed_before_it_answers_it_has_the_effect_once_by_the_senders_next_attempt(
    clerk: ClerkEmulator, starter: Starter, url: str
) -> None:
    first = starter.start()
    await point_at(clerk, first)
    first.kill()
    user_id = clerk.sign_up()
    second = starter.start()
    await point_at(clerk, second)
    await clerk.webhooks.settle()
    attempts = [each.status for each in clerk.webhooks.deliveries]
    assert attempts[0] is None
    assert attempts[-1] == 200
    assert await rows_in_all(url, user_id) == (1, 0, 0, 0)


async def test_two_programs_share_the_claims(clerk: ClerkEmulator, starter: Starter, url: str) -> None:
    programs = [starter.start(), starter.start()]
    users = list(clerk.users)
    for place, user_id in enumerate(users):
        await point_at(clerk, programs[place % 2])
        clerk.delete(user_id)
        await clerk.webhooks.settle()

    async def all_gone() -> bool:
        return not await users_with_rows(url)

    await eventually(all_gone)
    assert (await count(url, "tombstones"), await count(url, "archive")) == (5, 35)
    settled = [record["claim"] for program in programs for record in program.said("claim_settled")]
    assert sorted(settled) == sorted(set(settled))
    assert len(settled) == 5


async def test_killed_between_two_batches_of_a_user_with_very_many_rows_another_program_goes_on(
    clerk: ClerkEmulator, starter: Starter, url: str
) -> None:
    gone_user, *others = list(clerk.users)
    await seed(url, "tasks", [gone_user], rows=55_000)
    first, second = starter.start(), starter.start()
    await point_at(clerk, first)
    await second.saying("serving")
    async with connected(url) as application, application.transaction():
        # a row that the application holds, so that it is known where the first one is
        await application.execute("SELECT 1 FROM moods WHERE user_id = $1 FOR UPDATE", gone_user)
        clerk.delete(gone_user)
        await clerk.webhooks.settle()
        assert [each.status for each in clerk.webhooks.deliveries] == [200]
        await until_waited_for(application)
        assert await rows_in_all(url, gone_user) == (0, 0, 0, 2)
        first.kill()
    assert (await count(url, "unfinished"), await count(url, "tombstones")) == (1, 1)
    # the lease of the killed worker ends by itself after half a minute, which no test needs to sit through
    await execute(url, "UPDATE usersync.claims SET due_at = clock_timestamp()")

    async def ended() -> bool:
        return await count(url, "unfinished") == 0

    await eventually(ended)
    assert await users_with_rows(url) == set(others)
    assert (await count(url, "archive"), await count(url, "receipts")) == (55_007, 2)
    assert [record["result"] for record in second.said("claim_settled")][-1] == "removed"


async def test_a_user_with_very_many_rows_is_answered_within_a_second_and_gone_soon_after(
    clerk: ClerkEmulator, starter: Starter, url: str
) -> None:
    """The small form of `make bench LARGE=1`, which holds a million rows to a minute."""
    gone_user, *others = list(clerk.users)
    await seed(url, "tasks", [gone_user], rows=60_000)
    await seed(url, "moods", [gone_user], rows=40_000)
    first, second = starter.start(), starter.start()
    await second.saying("serving")
    await point_at(clerk, first)
    began = time.perf_counter()
    clerk.delete(gone_user)
    await clerk.webhooks.settle()
    answered = time.perf_counter() - began

    async def ended() -> bool:
        return await rows_in_all(url, gone_user) == NOBODY and await count(url, OWED) == 0

    await eventually(ended, seconds=30)
    assert [each.status for each in clerk.webhooks.deliveries] == [200]
    assert answered < 1
    assert await users_with_rows(url) == set(others)
    assert await count(url, "archive") == 100_007


async def test_it_serves_the_resources_of_a_manifest_each_by_its_path(
    clerk: ClerkEmulator, starter: Starter, url: str, tmp_path: Path
) -> None:
    manifest = tmp_path / "usersync.yaml"
    one = usersync("one", clerk=clerk_part(apiUrl=clerk.url, webhookSecretRefs=[ref("CLERK_WEBHOOK_SECRET")]))
    two = usersync(
        "two", dryRun=True, clerk=clerk_part(apiUrl=clerk.url, webhookSecretRefs=[ref("CLERK_WEBHOOK_SECRET")])
    )
    manifest.write_text(yaml.safe_dump_all([one, two]))
    program = starter.start("-f", str(manifest))
    namespace = one["metadata"].get("namespace", "default")
    async with aiohttp.ClientSession(await program.url()) as session:
        sender = Sender(session, clerk.webhook_secret, clerk.instance.id)
        user_id = clerk.sign_up(webhook=False)
        answers = [
            await sender.send("user.created", user_id, path=f"{SHORT_PATH}{rest}")
            for rest in (f"/{namespace}/two", f"/{namespace}/one", f"/{namespace}/three", "")
        ]
    assert [answer.status for answer in answers] == [200, 200, 404, 404]
    assert [answer.content.get("result") for answer in answers[:2]] == ["dry_run", "created"]
    assert await rows_in_all(url, user_id) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    ("variables", "arguments", "said"),
    [
        ({"CLERK_WEBHOOK_SECRET": ""}, [], "CLERK_WEBHOOK_SECRET"),
        ({"CLERK_WEBHOOK_SECRET": "whsec_stray characters"}, [], "not base64"),
        ({"CLERK_WEBHOOK_SECRET": "whsec_"}, [], "not base64"),
        ({"CLERK_WEBHOOK_SECRET": "whsec_AAAA"}, [], "too short"),
        ({"CLERK_API_URL": "https://clerk.example.com"}, [], "--clerk-url-allow"),
        ({}, ["--namespace", "app", "--all-namespaces"], "either"),
        ({}, ["--context", "x"], "--namespace"),
    ],
)
def test_what_could_never_be_served_is_refused_at_the_start_in_one_sentence(
    variables: dict[str, str], arguments: list[str], said: str
) -> None:
    known = {
        "CLERK_SECRET_KEY": "sk_test_x",
        "CLERK_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "DATABASE_URL": "postgres://127.0.0.1:1/x",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "controller.cli.main", "serve", "--port", "0", "--ops-port", "0", *arguments],
        env=known | variables,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in {1, 2}, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "stray characters" not in ended.stderr


def ref(key: str) -> dict[str, str]:
    return {"name": "clerk", "key": key}
