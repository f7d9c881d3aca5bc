"""`usersync serve` on a real API server, under exactly the rights that the webhook's ServiceAccount gets."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml

from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings
from controller.postgres import migrate
from tests.support.databases import seed_users, users_with_rows
from tests.support.serving import REPOSITORY, Program, eventually, rows_in_all, start, status_of
from tests.support.sessions import ORIGIN, ask, bearer
from tests.support.usersyncs import clerk as clerk_part
from tests.support.usersyncs import usersync
from tests.support.webhooks import OTHER_SECRET, Answer, Sender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.controlplane import ControlPlane, Kubectl

ACCOUNT = "usersync-webhook"
BASE = str(REPOSITORY / "deploy" / "kustomize" / "base" / "webhook-rbac.yaml")
WEBHOOK_SECRET = {"name": "clerk", "key": "CLERK_WEBHOOK_SECRET"}


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    settings = EmulatorSettings(environment=Environment.PRODUCTION, rate_limit=None)
    async with ClerkEmulator(settings, users=5) as emulator:
        yield emulator


class World:
    """A namespace with the webhook's rights and Secrets, and the program that serves it."""

    def __init__(self, plane: ControlPlane, kubectl: Kubectl, clerk: ClerkEmulator, url: str, folder: Path) -> None:
        self.plane = plane
        self.kubectl = kubectl
        self.clerk = clerk
        self.url = url
        self.folder = folder
        self.programs: list[Program] = []

    @property
    def namespace(self) -> str:
        namespace = self.kubectl.namespace
        assert namespace is not None
        return namespace

    def prepare(self) -> None:
        self.kubectl("apply", "-f", BASE)
        self.put_secret("clerk", CLERK_SECRET_KEY=self.clerk.secret_key, CLERK_WEBHOOK_SECRET=self.clerk.webhook_secret)
        self.put_secret("supabase", DATABASE_URL=self.url)

    def put_secret(self, name: str, **content: str) -> None:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(secret))

    def apply(self, name: str = "production", **spec: Any) -> None:
        part = clerk_part(apiUrl=self.clerk.url, webhookSecretRefs=[WEBHOOK_SECRET])
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(usersync(name, **({"clerk": part} | spec))))

    def start(self) -> Program:
        kubeconfig = self.plane.service_account_kubeconfig(self.namespace, ACCOUNT)
        program = start(
            self.folder,
            "--namespace",
            self.namespace,
            environment={"KUBECONFIG": str(kubeconfig)},
            name=f"serve-{len(self.programs)}",
        )
        self.programs.append(program)
        return program

    @asynccontextmanager
    async def sender(self, program: Program) -> AsyncIterator[Sender]:
        async with aiohttp.ClientSession(await program.url()) as session:
            yield Sender(session, self.clerk.webhook_secret, self.clerk.instance.id)

    def path(self, name: str = "production") -> str:
        return f"/api/webhooks/clerk/{self.namespace}/{name}"

    async def until_answered(self, sender: Sender, status: int, name: str = "production") -> Answer:
        """Send an event that changes nothing until it is answered so."""
        answers: list[Answer] = []

        async def answered() -> bool:
            answers.append(await sender.send("session.created", "", path=self.path(name)))
            return answers[-1].status == status

        await eventually(answered)
        return answers[-1]


@pytest.fixture
async def url(database_url: str, clerk: ClerkEmulator) -> str:
    await migrate(database_url)
    await seed_users(database_url, clerk.users)
    return database_url


@pytest.fixture
def world(
    control_plane: ControlPlane, kubectl: Kubectl, clerk: ClerkEmulator, url: str, tmp_path: Path
) -> Iterator[World]:
    world = World(control_plane, kubectl, clerk, url, tmp_path)
    world.prepare()
    yield world
    for program in world.programs:
        program.end()


async def test_a_signed_event_takes_effect_with_the_rights_of_the_webhook_alone(world: World) -> None:
    world.apply()
    program = world.start()
    gone_user, *others = list(world.clerk.users)
    async with world.sender(program) as sender:
        await world.until_answered(sender, 200)
        world.clerk.delete(gone_user, webhook=False)
        answer = await sender.send("user.deleted", gone_user, path=world.path())
        assert answer.content == {"result": "claimed"}

        async def gone() -> bool:
            return await rows_in_all(world.url, gone_user) == (0, 0, 0, 0)

        await eventually(gone)
    assert await users_with_rows(world.url) == set(others)
    used = world.plane.rights_used(world.namespace, ACCOUNT)
    assert {(right.verb, right.resource) for right in used} == {
        ("list", "usersyncs"),
        ("watch", "usersyncs"),
        ("get", "secrets"),
    }
    assert all(right.allowed for right in used)


async def test_it_is_ready_once_the_resources_are_listed(world: World) -> None:
    program = world.start()
    ops = await program.ops_url()

    async def ready() -> bool:
        return await status_of(f"{ops}/readyz") == 200

    await eventually(ready)


async def test_it_is_not_ready_while_nothing_can_be_listed(world: World) -> None:
    world.kubectl("delete", "rolebinding", ACCOUNT)
    program = world.start()
    ops = await program.ops_url()
    await program.saying("watch_interrupted")
    assert await status_of(f"{ops}/readyz") == 503
    assert await status_of(f"{ops}/livez") == 200
    world.kubectl("apply", "-f", BASE)

    async def ready() -> bool:
        return await status_of(f"{ops}/readyz") == 200

    await eventually(ready)


async def test_a_new_resource_is_served_and_a_removed_one_is_not_without_a_restart(world: World) -> None:
    program = world.start()
    async with world.sender(program) as sender:
        await world.until_answered(sender, 404)
        world.apply()
        await world.until_answered(sender, 200)
        world.kubectl("delete", "usersync", "production")
        await world.until_answered(sender, 404)


async def test_a_changed_spec_is_served_as_it_stands_then(world: World) -> None:
    world.apply()
    program = world.start()
    async with world.sender(program) as sender:
        await world.until_answered(sender, 200)
        world.apply(dryRun=True)
        user_id = world.clerk.sign_up(webhook=False)

        async def dry() -> bool:
            answer = await sender.send("user.created", user_id, path=world.path())
            return bool(answer.content == {"result": "dry_run"})

        await eventually(dry)


async def test_a_status_that_changes_opens_nothing_anew(world: World) -> None:
    world.apply()
    program = world.start()
    async with world.sender(program) as sender:
        await world.until_answered(sender, 200)
        status = {"status": {"observedGeneration": 1, "consecutiveFailures": 3}}
        world.kubectl(
            "patch", "usersync", "production", "--subresource=status", "--type=merge", "-p", json.dumps(status)
        )
        world.apply("second")
        await world.until_answered(sender, 200, "second")
    assert [each["resource"] for each in program.said("serving")] == [
        f"{world.namespace}/production",
        f"{world.namespace}/second",
    ]


async def test_a_resource_without_a_webhook_secret_is_not_served(world: World) -> None:
    world.apply("other", clerk=clerk_part(apiUrl=world.clerk.url))
    world.apply()
    program = world.start()
    async with world.sender(program) as sender:
        await world.until_answered(sender, 200)
        await world.until_answered(sender, 404, "other")


async def test_a_missing_secret_is_503_with_its_reason_until_it_is_there(world: World) -> None:
    world.kubectl("delete", "secret", "clerk")
    world.apply()
    program = world.start()
    async with world.sender(program) as sender:
        answer = await world.until_answered(sender, 503)
        assert answer.content == {"error": "SecretNotFound"}
        world.prepare()
        await world.until_answered(sender, 200)


async def test_a_rotated_webhook_secret_is_taken_without_a_restart(world: World) -> None:
    world.apply()
    program = world.start()
    async with world.sender(program) as sender:
        await world.until_answered(sender, 200)
        world.put_secret("clerk", CLERK_SECRET_KEY=world.clerk.secret_key, CLERK_WEBHOOK_SECRET=OTHER_SECRET)
        sender.secret = OTHER_SECRET
        await world.until_answered(sender, 200)
        sender.secret = world.clerk.webhook_secret
        assert (await sender.send("session.created", "", path=world.path())).status == 401


async def test_an_outage_of_the_api_server_does_not_end_the_service(world: World) -> None:
    world.apply()
    program = world.start()
    async with world.sender(program) as sender:
        await world.until_answered(sender, 200)
        world.plane.stop_api_server(at_once=True)
        try:
            await program.saying("watch_interrupted")
            assert (await sender.send("session.created", "", path=world.path())).status == 200
        finally:
            world.plane.start_api_server()
        world.apply("second")
        await world.until_answered(sender, 200, "second")


async def test_once_the_resource_permits_it_a_user_ends_his_account_with_his_session_token(world: World) -> None:
    leaver, *others = list(world.clerk.users)
    world.prepare()
    world.apply()
    program = world.start()
    async with world.sender(program) as sender:
        await world.until_answered(sender, 200)
    base = await program.url()
    answers: list[Answer] = []

    async def answered(status: int) -> bool:
        answers.append(await ask(base, bearer(world.clerk.sessions.token(leaver, ORIGIN))))
        return answers[-1].status == status

    assert await answered(404)
    assert leaver in world.clerk.users
    world.apply(accountDeletion={"enabled": True, "authorizedParties": [ORIGIN]})
    await eventually(lambda: answered(200))
    assert answers[-1].content["rows"]["user_progress"] == 1
    assert set(world.clerk.users) == await users_with_rows(world.url) == set(others)
