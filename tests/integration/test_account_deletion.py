"""A user deletes his own account on a real database and the emulator of Clerk, beside events and runs."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.targets import AccountDeletion, Action, ClerkSource, Deletion, DeletionPolicy, Limits
from controller.emulator import ClerkEmulator, Endpoint, Fault, FaultName
from controller.runtime import open_sweeper
from controller.settings import ClerkURLs, Credentials
from controller.web.worker import Pace
from tests.support.databases import execute, fetch, seed, users_with_rows
from tests.support.serving import OWED, count, eventually, real_service, rows_in_all
from tests.support.sessions import ORIGIN, ask, bearer
from tests.support.webhooks import SPEC

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.serving import Replica
    from tests.support.webhooks import Answer

NOBODY = (0, 0, 0, 0)
QUICK = Pace(poll=timedelta(seconds=0.2))
DELETING = replace(SPEC, account_deletion=AccountDeletion(enabled=True, authorized_parties=(ORIGIN,)))


@pytest.fixture
async def replica(clerk: ClerkEmulator, url: str) -> AsyncIterator[Replica]:
    async with real_service(clerk, url, DELETING, pace=QUICK) as replica:
        yield replica


async def delete(clerk: ClerkEmulator, replica: Replica, user_id: str) -> Answer:
    """Ask as the user's front-end does, once it is served."""

    async def served() -> bool:
        return (await ask(replica.url)).status == 401 and any(
            endpoint.instance_id for endpoint in replica.resources.ending_accounts()
        )

    await eventually(served)
    return await ask(replica.url, bearer(clerk.sessions.token(user_id, ORIGIN)))


async def own_receipts(url: str) -> list[tuple[str, str, str, dict[str, int], bool]]:
    """Every receipt: act, reason, on whose request, rows, counted."""
    rows = await fetch(url, "SELECT act, reason, requested_by, rows::text, counted FROM usersync.receipts ORDER BY id")
    return [(act, reason, by, json.loads(rows_text), counted) for act, reason, by, rows_text, counted in rows]


ALL = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
RECEIPT = ("erased", "requested", "own request", ALL, False)


async def test_he_is_gone_from_clerk_and_from_every_table_within_a_second(
    clerk: ClerkEmulator, replica: Replica, url: str
) -> None:
    user_id, *others = list(clerk.users)
    began = time.monotonic()
    answer = await delete(clerk, replica, user_id)
    assert time.monotonic() - began < 5
    assert (answer.status, answer.content["rows"]) == (200, ALL)
    assert answer.content["receipt"]["link"] is not None
    assert await users_with_rows(url) == set(others) == set(clerk.users)
    assert await own_receipts(url) == [RECEIPT]
    assert (await count(url, OWED), await count(url, "archive"), await count(url, "tombstones")) == (0, 0, 1)


async def test_the_event_that_clerk_then_sends_changes_nothing(
    clerk: ClerkEmulator, replica: Replica, url: str
) -> None:
    user_id, *others = list(clerk.users)
    first = await delete(clerk, replica, user_id)
    await clerk.webhooks.settle()
    assert [each.status for each in clerk.webhooks.deliveries] == [200]

    async def settled() -> bool:
        return await count(url, OWED) == 0

    await eventually(settled)
    assert await own_receipts(url) == [RECEIPT]
    assert (await delete(clerk, replica, user_id)).content == first.content
    assert await users_with_rows(url) == set(others)


@pytest.mark.parametrize("policy", list(DeletionPolicy))
async def test_whatever_the_policy_he_is_erased_and_so_is_his_archive(
    clerk: ClerkEmulator, url: str, policy: DeletionPolicy
) -> None:
    user_id, other, *_ = list(clerk.users)
    await execute(
        url,
        *(
            "INSERT INTO usersync.archive (schema_name, table_name, user_id, content, reason) "
            f"VALUES ('public', 'moods', '{each}', '{{}}', 'duplicate')"
            for each in (user_id, other)
        ),
    )
    deletion = Deletion(policy=policy, limits=Limits(users=0, percent=0))
    async with real_service(clerk, url, replace(DELETING, deletion=deletion), pace=QUICK) as replica:
        answer = await delete(clerk, replica, user_id)
    assert (answer.status, answer.content["rows"]) == (200, ALL)
    archived = await fetch(url, "SELECT user_id FROM usersync.archive")
    assert [row["user_id"] for row in archived] == [other]


async def test_what_a_token_wrote_since_is_erased_too(clerk: ClerkEmulator, replica: Replica, url: str) -> None:
    user_id, *others = list(clerk.users)
    await delete(clerk, replica, user_id)
    await seed(url, "moods", [user_id], rows=3)
    await execute(url, "UPDATE usersync.claims SET due_at = usersync.clock()")

    async def swept() -> bool:
        return await users_with_rows(url) == set(others)

    await eventually(swept)
    assert await count(url, "archive") == 0
    assert [act for act, *_ in await own_receipts(url)] == ["erased", "erased"]


async def test_what_came_back_of_him_after_the_second_sweep_a_run_erases_under_retain_too(
    clerk: ClerkEmulator, url: str
) -> None:
    user_id, other, *living = list(clerk.users)
    deletion = Deletion(policy=DeletionPolicy.RETAIN, grace_period=timedelta())
    spec = replace(DELETING, clerk=ClerkSource(clerk.url), deletion=deletion, actions=(Action.CLEANUP,))
    async with real_service(clerk, url, spec, pace=QUICK) as replica:
        await delete(clerk, replica, user_id)
    await execute(url, "DELETE FROM usersync.claims")
    clerk.delete(other, webhook=False)
    await seed(url, "moods", [user_id], rows=3)
    credentials = Credentials(clerk.secret_key, url)
    async with open_sweeper(spec, credentials, ClerkURLs(allow_insecure=True)) as sweeper:
        outcome = await sweeper.sweep(spec, holder="test")
    assert (outcome.changes.users_removed, outcome.changes.rows_removed) == (2, 3)
    assert await users_with_rows(url) == {other, *living}
    assert await count(url, "archive") == 0


@pytest.mark.parametrize("name", [FaultName.SERVER_ERROR, FaultName.RATE_LIMITED, FaultName.TIMEOUT])
async def test_while_clerk_does_not_delete_him_no_row_goes_and_then_all_do(
    clerk: ClerkEmulator, replica: Replica, url: str, name: FaultName
) -> None:
    user_id, *others = list(clerk.users)
    number = clerk.switch_on(Fault(name, endpoint=Endpoint.DELETE))
    began = time.monotonic()
    answer = await delete(clerk, replica, user_id)
    assert (answer.status, answer.content["status"]) == (202, "pending")
    assert time.monotonic() - began < 5
    assert user_id in clerk.users
    assert await rows_in_all(url, user_id) == (1, 2, 2, 2)
    assert await count(url, "claims") == 1
    clerk.faults.switch_off(number)

    async def gone() -> bool:
        await execute(url, "UPDATE usersync.claims SET due_at = usersync.clock() WHERE kind = 'own_request'")
        return await users_with_rows(url) == set(others)

    await eventually(gone)
    assert set(clerk.users) == set(others)


@pytest.mark.parametrize("name", [FaultName.FORBIDDEN, FaultName.UNPROCESSABLE])
async def test_what_clerk_refuses_for_good_is_lifted_and_can_be_asked_again(
    clerk: ClerkEmulator, replica: Replica, url: str, name: FaultName
) -> None:
    user_id = next(iter(clerk.users))
    number = clerk.switch_on(Fault(name, endpoint=Endpoint.DELETE))
    answer = await delete(clerk, replica, user_id)
    assert (answer.status, answer.content["status"]) == (502, "not_deleted")
    assert replica.counted("usersync_account_deletions_total", result="refused") == 1
    assert (await count(url, "claims"), await count(url, "tombstones"), await count(url, "receipts")) == (0, 0, 0)
    assert await rows_in_all(url, user_id) == (1, 2, 2, 2)
    clerk.faults.switch_off(number)
    assert (await delete(clerk, replica, user_id)).status == 200


@pytest.mark.parametrize("name", [FaultName.UNANSWERED, FaultName.RESET])
async def test_deleted_in_clerk_by_an_answer_that_got_lost_he_is_gone_all_the_same(
    clerk: ClerkEmulator, replica: Replica, url: str, name: FaultName
) -> None:
    user_id, *others = list(clerk.users)
    clerk.switch_on(Fault(name, endpoint=Endpoint.DELETE, times=1))
    answer = await delete(clerk, replica, user_id)
    assert answer.status in {200, 202}

    async def gone() -> bool:
        return await users_with_rows(url) == set(others)

    await eventually(gone)
    assert await own_receipts(url) == [RECEIPT]


async def test_a_user_archived_by_an_event_can_still_ask_to_be_erased(
    clerk: ClerkEmulator, replica: Replica, url: str
) -> None:
    user_id = next(iter(clerk.users))
    text = clerk.sessions.token(user_id, ORIGIN)
    clerk.delete(user_id)

    async def archived() -> bool:
        return await count(url, "archive") == 7

    await eventually(archived)
    answer = await ask(replica.url, bearer(text))
    assert answer.status == 200
    assert await count(url, "archive") == 0
    assert [(act, by) for act, _, by, *_ in await own_receipts(url)] == [
        ("archived", "user.deleted event"),
        ("erased", "own request"),
    ]


async def test_a_rotated_key_is_followed(clerk: ClerkEmulator, replica: Replica) -> None:
    first, second, *_ = list(clerk.users)
    assert (await delete(clerk, replica, first)).status == 200
    old = clerk.sessions.token(second, ORIGIN)
    clerk.sessions.rotate()
    await asyncio.sleep(0)

    async def refetched() -> bool:
        return (await ask(replica.url, bearer(clerk.sessions.token(second, ORIGIN)))).status == 200

    await eventually(refetched)
    assert (await ask(replica.url, bearer(old))).status == 401


async def test_a_flood_of_forged_tokens_asks_clerk_next_to_nothing(clerk: ClerkEmulator, replica: Replica) -> None:
    user_id = next(iter(clerk.users))
    await delete(clerk, replica, user_id)
    asked = clerk.requests.by_endpoint[Endpoint.JWKS]
    text = clerk.sessions.token(user_id, ORIGIN)
    forged = bearer(text[:-10] + "A" * 10)
    statuses = [(await ask(replica.url, forged)).status for _ in range(100)]
    assert set(statuses) == {401}
    assert clerk.requests.by_endpoint[Endpoint.JWKS] - asked <= 2
