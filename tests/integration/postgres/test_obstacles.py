"""What the application's own database objects put in the way of a removal."""

from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from controller.core.claims import ClaimKind
from controller.core.outcomes import Removal
from tests.support.databases import (
    TABLES,
    create_tables,
    execute,
    fetch_value,
    rows_of,
    seed_users,
    user_ids,
    users_with_rows,
)
from tests.support.stores import DELETION, TERMS, delivery, ids, opened, proofs, running

WHOLE = {"user_progress": 1, "tasks": 2, "daily_checkins": 2, "moods": 2}
INDEXED = pytest.mark.parametrize("index", [True, False], ids=["indexed", "by-place"])


def held_by_a_foreign_key(user: str) -> list[str]:
    return [
        "CREATE TABLE invoices (task uuid NOT NULL REFERENCES tasks ON DELETE RESTRICT)",
        f"INSERT INTO invoices SELECT id FROM tasks WHERE user_id = '{user}' LIMIT 1",
    ]


def held_at_commit(user: str) -> list[str]:
    return [
        "CREATE TABLE invoices (task uuid NOT NULL REFERENCES tasks DEFERRABLE INITIALLY DEFERRED)",
        f"INSERT INTO invoices SELECT id FROM tasks WHERE user_id = '{user}' LIMIT 1",
    ]


def held_by_a_trigger(user: str) -> list[str]:
    return _trigger(f"IF OLD.user_id = '{user}' THEN RAISE EXCEPTION 'not %', OLD.user_id; END IF; RETURN OLD;")


def swallowed_by_a_trigger(user: str) -> list[str]:
    return _trigger(f"IF OLD.user_id = '{user}' THEN RETURN NULL; END IF; RETURN OLD;")


def _trigger(body: str) -> list[str]:
    return [
        f"CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        "CREATE TRIGGER guard BEFORE DELETE ON moods FOR EACH ROW EXECUTE FUNCTION guard()",
    ]


@INDEXED
@pytest.mark.parametrize("obstacle", [held_by_a_foreign_key, held_at_commit, held_by_a_trigger, swallowed_by_a_trigger])
@pytest.mark.parametrize("place", [0, 7, 19])
async def test_a_user_whom_the_database_holds_is_left_whole_and_the_others_go(
    empty_database_url: str, obstacle: object, place: int, *, index: bool
) -> None:
    users = user_ids(20)
    held = users[place]
    await create_tables(empty_database_url, index=index)
    await seed_users(empty_database_url, users)
    assert callable(obstacle)
    await execute(empty_database_url, *obstacle(held))
    async with opened(empty_database_url) as database, running(database) as run:
        assert await run.remove_users(proofs(users), TERMS) == Removal(users=19, rows=19 * 7, users_left=1)
        assert (await run.observe()).orphaned == 1
    assert await users_with_rows(empty_database_url) == {held}
    assert await rows_of(empty_database_url, held) == WHOLE
    assert await fetch_value(empty_database_url, "SELECT count(*) FROM usersync.tombstones") == 19
    archived = await fetch_value(empty_database_url, "SELECT count(*) FROM usersync.archive WHERE user_id = $1", held)
    assert archived == 0


@pytest.mark.parametrize("state", ["PT403", "45000", "42501", "54000", "55000"])
async def test_a_trigger_may_raise_what_it_likes_of_one_user_and_the_others_go(database_url: str, state: str) -> None:
    users = user_ids(4)
    held = users[1]
    body = f"RAISE EXCEPTION 'not %', OLD.user_id USING ERRCODE = '{state}';"
    await seed_users(database_url, users)
    await execute(database_url, *_trigger(f"IF OLD.user_id = '{held}' THEN {body} END IF; RETURN OLD;"))
    with capture_logs() as logs:
        async with opened(database_url) as database, running(database) as run:
            assert await run.remove_users(proofs(users), TERMS) == Removal(users=3, rows=21, users_left=1)
    assert await users_with_rows(database_url) == {held}
    (reason,) = [entry["reason"] for entry in logs if entry["event"] == "user_left" and "reason" in entry]
    assert state in reason
    assert held not in reason


async def test_a_claim_on_a_user_whom_the_database_holds_stays(database_url: str) -> None:
    (user,) = ids(user_ids(1))
    await seed_users(database_url, [user])
    await execute(database_url, *held_by_a_trigger(user))
    async with opened(database_url) as database:
        await database.record_claim(delivery("m1"), user, ClaimKind.DELETION)
        (claim,) = await database.take_claims(1, timedelta(seconds=30))
        assert await database.settle_by_removal(claim, proofs([user])[0], DELETION) == Removal(users_left=1)
        assert await database.next_claim_due() is not None
    assert await rows_of(database_url, user) == WHOLE


@pytest.mark.parametrize("rule", ["NO ACTION", "RESTRICT"])
async def test_rows_that_refer_to_other_listed_tables_go_first(database_url: str, rule: str) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    await execute(
        database_url,
        f"ALTER TABLE user_progress ADD COLUMN mood uuid REFERENCES moods ON DELETE {rule}",
        f"ALTER TABLE moods ADD COLUMN task uuid REFERENCES tasks ON DELETE {rule}",
        f"ALTER TABLE daily_checkins ADD COLUMN mood uuid REFERENCES moods ON DELETE {rule}",
        "UPDATE moods AS m SET task = (SELECT id FROM tasks AS t WHERE t.user_id = m.user_id LIMIT 1)",
        "UPDATE user_progress AS p SET mood = (SELECT id FROM moods AS m WHERE m.user_id = p.user_id LIMIT 1)",
        "UPDATE daily_checkins AS p SET mood = (SELECT id FROM moods AS m WHERE m.user_id = p.user_id LIMIT 1)",
    )
    async with opened(database_url) as database, running(database, users[:1]) as run:
        assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users=1, rows=7)
    assert await rows_of(database_url, users[0]) == WHOLE


async def test_rows_that_a_cascade_would_take_along_are_archived_before_it_does(database_url: str) -> None:
    await seed_users(database_url, user_ids(1))
    await execute(
        database_url,
        "ALTER TABLE tasks ADD COLUMN profile uuid REFERENCES user_progress ON DELETE CASCADE",
        "UPDATE tasks SET profile = (SELECT id FROM user_progress)",
    )
    async with opened(database_url) as database, running(database) as run:
        assert (await run.remove_users(proofs(user_ids(1)), TERMS)).rows == 7
    assert await fetch_value(database_url, "SELECT count(*) FROM usersync.archive WHERE table_name = 'tasks'") == 2


async def test_tables_that_refer_to_each_other_are_emptied_where_the_constraints_permit(database_url: str) -> None:
    users = user_ids(2)
    await seed_users(database_url, users)
    await execute(
        database_url,
        "ALTER TABLE tasks ADD COLUMN mood uuid REFERENCES moods DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE moods ADD COLUMN task uuid REFERENCES tasks DEFERRABLE INITIALLY DEFERRED",
        "UPDATE moods AS m SET task = (SELECT id FROM tasks AS t WHERE t.user_id = m.user_id LIMIT 1)",
        "UPDATE tasks AS t SET mood = (SELECT id FROM moods AS m WHERE t.user_id = m.user_id LIMIT 1)",
    )
    async with opened(database_url) as database, running(database, users[:1]) as run:
        assert await run.remove_users(proofs(users[1:]), TERMS) == Removal(users=1, rows=7)
    assert set(await rows_of(database_url, users[1])) == set(TABLES)
    assert await users_with_rows(database_url) == {users[0]}
