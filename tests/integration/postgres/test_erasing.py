"""Users erased at their own request: nothing that names them stays anywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core.absorbing import ClaimKind
from controller.core.proofs import MAX_AGE
from controller.core.removals import RemovalTerms
from controller.core.targets import Deletion, Limits
from controller.errors import RequestRefused, TargetBusy
from tests.support.databases import (
    TABLES,
    connected,
    execute,
    fetch,
    fetch_value,
    rows_of,
    seed_users,
    user_id,
    user_ids,
)
from tests.support.fakes.clock import FakeClock
from tests.support.stores import OTHER_INSTANCE, delivery, ids, opened, proofs, running

(USER,) = ids([user_id(7)])
(OTHER,) = ids([user_id(8)])
WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
NOTHING = dict.fromkeys(TABLES, 0)
LEFTOVER = "11111111-1111-1111-1111-111111111111"


@pytest.fixture
async def whole(database_url: str) -> str:
    """The four tables with rows of two users."""
    await seed_users(database_url, [USER, OTHER])
    return database_url


async def tables_that_name(url: str, text: str) -> list[str]:
    """Every table and view of our schema with a row that has the text anywhere."""
    found = []
    async with connected(url) as connection:
        names = await connection.fetch(
            "SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'usersync'::regnamespace "
            "AND relkind IN ('r', 'p', 'v', 'm')"
        )
        assert len(names) > 10
        for row in names:
            query = f"SELECT EXISTS (SELECT FROM usersync.{row['name']} AS t WHERE strpos(t::text, $1) > 0)"
            if await connection.fetchval(query, text):
                found.append(row["name"])
    return sorted(found)


async def leave_traces(url: str, user: str) -> None:
    """Put the user into every table of ours that can name one, as runs and events do."""
    await execute(
        url,
        f"INSERT INTO usersync.suspects VALUES ('public', '{user}', 'ins_test', 'epoch', now(), now())",
        f"INSERT INTO usersync.held_users VALUES ('public', '{user}', 1)",
        f"INSERT INTO usersync.versions VALUES ('public', '{user}', 5)",
        *(
            f"INSERT INTO usersync.claims (schema_name, user_id, kind) VALUES ('public', '{user}', '{kind}')"
            for kind in ("deletion", "second_sweep", "catch_up")
        ),
        "INSERT INTO usersync.runs (id, schema_name, resource, holder, instance_id, actions, dry_run) "
        f"VALUES ('{LEFTOVER}', 'public', 'killed', 'nobody', 'ins_test', '{{}}', false) ON CONFLICT DO NOTHING",
        f"INSERT INTO usersync.listed VALUES ('{LEFTOVER}', '{user}')",
        f"INSERT INTO usersync.drifted VALUES ('{LEFTOVER}', 'orphaned', '{user}')",
        f"INSERT INTO usersync.listed_values VALUES ('{LEFTOVER}', '{user}', 5, '{{=of a user}}')",
        f"INSERT INTO usersync.owed_values VALUES ('{LEFTOVER}', '{user}', 'missing', 5, '{{=of a user}}')",
        f"INSERT INTO usersync.places VALUES ('{LEFTOVER}', 'moods', '{user}', '(0,1)')",
    )


NAMING = [
    "archive", "claims", "drifted", "held_users", "listed", "listed_values", "owed_values", "places", "suspects",
    "versions",
]  # fmt: skip


async def test_nothing_of_ours_names_an_erased_user_and_everything_still_names_others(whole: str) -> None:
    async with opened(whole) as database:
        async with running(database, []) as run:
            await run.remove_users(proofs([USER, OTHER]), RemovalTerms.of(Deletion(), None))
        await seed_users(whole, [USER])
        await leave_traces(whole, USER)
        await leave_traces(whole, OTHER)
        assert await tables_that_name(whole, USER) == NAMING
        erased = await database.erase(proofs([USER])[0], "somebody")
    assert (dict(erased.rows), erased.archived) == (WHOLE, 7)
    assert await rows_of(whole, USER) == NOTHING
    assert await tables_that_name(whole, USER) == []
    assert await tables_that_name(whole, OTHER) == NAMING


async def test_tombstone_and_receipt_stay_and_say_on_whose_request(whole: str) -> None:
    async with opened(whole) as database:
        await database.erase(proofs([USER])[0], "somebody")
        assert (await database.create_profile(delivery("late"), USER)).value == "tombstoned"
    (receipt,) = await fetch(whole, "SELECT * FROM usersync.receipts")
    assert (receipt["act"], receipt["reason"], receipt["requested_by"]) == ("erased", "requested", "somebody")
    assert not receipt["counted"]
    assert json.loads(receipt["rows"]) == WHOLE
    assert await fetch_value(whole, "SELECT count(*) FROM usersync.receipt_chain") == 1


async def test_a_user_of_whom_only_the_archive_is_left_is_erased_from_it(whole: str) -> None:
    async with opened(whole) as database:
        async with running(database, [OTHER]) as run:
            await run.remove_users(proofs([USER]), RemovalTerms.of(Deletion(), None))
        erased = await database.erase(proofs([USER])[0], "somebody")
    assert (dict(erased.rows), erased.archived) == ({}, 7)
    assert await tables_that_name(whole, USER) == []
    assert await fetch_value(whole, "SELECT count(*) FROM usersync.tombstones") == 1


async def test_the_limits_do_not_keep_a_persons_own_request_back_nor_are_they_used_up(whole: str) -> None:
    users = user_ids(20, start=100)
    await seed_users(whole, users)
    none_may_go = replace(Deletion(), limits=Limits(users=0, percent=0))
    async with opened(whole) as database:
        await database.erase(proofs([USER])[0], "somebody")
        await database.record_claim(delivery("msg_1", "user.deleted"), OTHER, ClaimKind.DELETION)
        (claim,) = await database.take_claims(1, timedelta(seconds=60))
        assert (await database.settle_by_removal(claim, proofs([OTHER])[0], none_may_go)).limit_reached
    assert await rows_of(whole, USER) == NOTHING


async def test_a_proof_that_grew_old_erases_nothing(whole: str) -> None:
    clock = FakeClock()
    async with opened(whole, clock=clock) as database:
        (proof,) = proofs([USER], clock)
        clock.advance(MAX_AGE + timedelta(seconds=1))
        with pytest.raises(RequestRefused, match="too old"):
            await database.erase(proof, "somebody")
    assert await rows_of(whole, USER) == WHOLE


async def test_a_proof_of_another_instance_erases_nothing(whole: str) -> None:
    async with opened(whole) as database:
        with pytest.raises(RequestRefused, match="Nothing was erased"):
            await database.erase(proofs([USER], instance=OTHER_INSTANCE)[0], "somebody")
    assert await rows_of(whole, USER) == WHOLE
    assert await fetch_value(whole, "SELECT count(*) FROM usersync.tombstones") == 0


async def test_a_user_whom_the_database_keeps_stays_whole_and_the_constraint_is_named(whole: str) -> None:
    await execute(
        whole,
        "CREATE TABLE invoices (task uuid CONSTRAINT invoiced REFERENCES tasks)",
        f"INSERT INTO invoices SELECT id FROM tasks WHERE user_id = '{USER}' LIMIT 1",
    )
    async with opened(whole) as database:
        await leave_traces(whole, USER)
        with pytest.raises(RequestRefused, match="invoiced"):
            await database.erase(proofs([USER])[0], "somebody")
    assert await rows_of(whole, USER) == WHOLE
    assert "claims" in await tables_that_name(whole, USER)


async def test_nobody_is_erased_while_a_run_is_under_way(whole: str) -> None:
    async with opened(whole) as database:
        async with running(database, [OTHER]):
            with pytest.raises(TargetBusy):
                await database.erase(proofs([USER])[0], "somebody")
        await database.erase(proofs([USER])[0], "somebody")
