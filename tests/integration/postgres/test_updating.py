"""Mapped columns in PostgreSQL: types, NULL, what the database refuses, what is noted and forgotten."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from controller.core.mapping import Constant, MappedColumn, parse_field
from controller.core.outcomes import Absorbed, Changes, Outcome, Updating
from controller.core.plans import Plan
from controller.core.targets import DEFAULT_TABLES, Role, Table, Target
from controller.core.users import Profile
from controller.errors import TableUnsupported
from tests.support.contracts.mapping import T1, T2, T3
from tests.support.databases import connected, execute, fetch, fetch_value, until, user_id
from tests.support.stores import TERMS, delivery, erase, ids, label, opened, proofs, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controller.postgres import Database
    from controller.postgres.runs import PostgresRun

A, B, C = ids([user_id(1), user_id(2), user_id(3)])
MOMENT = datetime(2026, 3, 1, 12, 30, 15, 123_000, UTC)
SINCE = datetime(2026, 6, 1, tzinfo=UTC)


def mapped(**sources: str | Constant) -> Target:
    """The default target with columns mapped to fields (by name) or constants."""
    columns = []
    for column, source in sources.items():
        chosen = parse_field(source) if isinstance(source, str) else source
        assert chosen is not None
        columns.append(MappedColumn(column, chosen))
    return Target(tables=(Table("user_progress", Role.PROFILE, values=tuple(columns)), *DEFAULT_TABLES[1:]))


@asynccontextmanager
async def mapping(url: str, columns: str, **sources: str | Constant) -> AsyncIterator[Database]:
    """A database whose profile table has more columns, some of them mapped."""
    await execute(url, f"ALTER TABLE user_progress {columns}")
    async with opened(url, target=mapped(**sources)) as database:
        yield database


async def tell(database: Database, profile: Profile, message_id: str = "msg_1") -> Absorbed:
    return await database.update_profile(delivery(message_id, "user.updated"), profile, inserts=True)


async def values(url: str, columns: str, user: str = A) -> list[tuple[Any, ...]]:
    rows = await fetch(url, f"SELECT {columns} FROM user_progress WHERE user_id = $1", user)
    return [tuple(row) for row in rows]


async def observe(run: PostgresRun, *profiles: Profile) -> int:
    await run.record_listed([profile.user_id for profile in profiles])
    await run.record_values(profiles)
    return (await run.observe()).outdated


async def update(run: PostgresRun) -> Updating:
    updated = Updating()
    async for batch in run.behind():
        updated += await run.update_profiles(batch, (), SINCE)
    return updated


AWKWARD = "Zoë \\ \\N \"quoted\" {a,b} 'x' \t\r\n $1 %s =, NULL"
TYPES: list[tuple[str, Any, Any]] = [
    ("text", AWKWARD, AWKWARD),
    ("text", "", ""),
    ("varchar(40)", "ä" * 40, "ä" * 40),
    ("smallint", -5, -5),
    ("integer", 2147483647, 2147483647),
    ("bigint", MOMENT, 1772368215123),
    ("numeric", "1.10", Decimal("1.10")),
    ("numeric(5,2)", 3.14159, Decimal("3.14")),
    ("real", 0.5, 0.5),
    ("double precision", 0.1, 0.1),
    ("boolean", True, True),
    ("boolean", "false", False),
    ("timestamptz", MOMENT, MOMENT),
    ("timestamptz(0)", MOMENT, MOMENT.replace(microsecond=0)),
    ("jsonb", {"a": [1, "ë", None, 1.5]}, '{"a": [1, "ë", null, 1.5]}'),
    ("jsonb", AWKWARD, None),
]


@pytest.mark.parametrize(("column_type", "given", "expected"), TYPES)
async def test_a_value_of_each_type_is_written_and_then_in_step(
    database_url: str, column_type: str, given: Any, expected: Any
) -> None:
    async with mapping(database_url, f"ADD c {column_type}", c="publicMetadata.x") as database:
        assert await tell(database, Profile(A, T1, (None,))) is Absorbed.CREATED
        async with database.begin_run(label()) as run:
            listed = [Profile(A, T2, (given,)), Profile(B, T1, (given,))]
            assert await observe(run, *listed) == 1
            assert await run.create_profiles([B]) == 1
            assert await update(run) == Updating(1)
            assert (await run.observe()).total == 0
        for user in (A, B):
            assert await tell(database, Profile(user, T3, (given,)), f"msg_{user}") is Absorbed.PRESENT
        if expected is not None:
            assert await values(database_url, "c") == await values(database_url, "c", B) == [(expected,)]


async def test_a_missing_value_is_null_and_left_out_where_null_is_refused(database_url: str) -> None:
    columns = "ADD a text DEFAULT 'unset', ADD b text NOT NULL DEFAULT 'unset'"
    async with mapping(database_url, columns, a="username", b="externalId") as database:
        await tell(database, Profile(A, T1, (None, None)))
        assert await values(database_url, "a, b") == [(None, "unset")]
        await tell(database, Profile(A, T2, ("ada", "ex_1")), "msg_2")
        await tell(database, Profile(A, T3, (None, None)), "msg_3")
        assert await values(database_url, "a, b") == [(None, "ex_1")]
        async with database.begin_run(label()) as run:
            assert await observe(run, Profile(A, T3, (None, None)), Profile(B, T1, (None, "ex_2"))) == 0
            await run.create_profiles([B])
        assert await values(database_url, "a, b", B) == [(None, "ex_2")]


async def test_a_value_that_does_not_fit_leaves_its_column_and_is_said_in_words(database_url: str) -> None:
    async with mapping(database_url, "ADD a integer DEFAULT 7, ADD b text", a="username", b="firstName") as database:
        async with database.begin_run(label()) as run:
            await observe(run, Profile(A, T1, ("many", "Ada")), Profile(B, T1, ("5", "Bo")))
            assert await run.create_profiles([A, B]) == 2
            (words,) = run.misfits()
            assert "username of 1 user(s) does not fit public.user_progress.a, which is integer" in words
        assert await values(database_url, "a, b") == [(7, "Ada")]
        assert await values(database_url, "a, b", B) == [(5, "Bo")]


async def test_constants_are_written_with_the_others(database_url: str) -> None:
    columns = "ADD a text, ADD b integer, ADD c boolean, ADD d jsonb"
    constants = {"a": Constant("free"), "b": Constant(5), "c": Constant("true"), "d": Constant('{"x": 1}')}
    async with mapping(database_url, columns, **constants) as database:
        await tell(database, Profile(A, T1, ("free", 5, "true", '{"x": 1}')))
    assert await values(database_url, "a, b, c, d") == [("free", 5, True, '{"x": 1}')]


@pytest.mark.parametrize(
    ("columns", "sources", "words"),
    [
        ("ADD a text", {"b": "username"}, "has no column b, which spec.tables maps username to. Create it"),
        ("ADD a uuid", {"a": "username"}, "user_progress.a is of type uuid; a mapped column has to be of type text"),
        ("ADD a text[]", {"a": "username"}, "is of type text"),
        ("ADD a text GENERATED ALWAYS AS ('x') STORED", {"a": "username"}, "is computed by the database"),
        ("ADD a integer GENERATED ALWAYS AS IDENTITY", {"a": "username"}, "is computed by the database"),
        ("ADD a integer", {"a": Constant("free")}, "The value 'free' does not fit public.user_progress.a"),
    ],
)
async def test_a_column_that_cannot_be_mapped_is_refused_in_words(
    database_url: str, columns: str, sources: dict[str, Any], words: str
) -> None:
    with pytest.raises(TableUnsupported, match=re.escape(words)):
        async with mapping(database_url, columns, **sources):
            pass


async def test_a_mapped_column_that_is_gone_keeps_nobody_from_being_removed(database_url: str) -> None:
    async with mapping(database_url, "ADD a text", a="username") as database:
        await tell(database, Profile(A, T1, ("ada",)))
        await execute(database_url, "ALTER TABLE user_progress DROP COLUMN a")
        with pytest.raises(TableUnsupported, match="has no column a"):
            await tell(database, Profile(A, T2, ("bo",)), "msg_2")
        erased = await erase(database, proofs([A])[0])
    assert erased.rows["user_progress"] == 1


async def test_a_required_column_warns_and_costs_only_users_without_the_value_their_row(database_url: str) -> None:
    async with mapping(database_url, "ADD a text NOT NULL", a="username") as database:
        (warning,) = [each for each in (await database.inspect()).warnings if "NULL" in each]
        assert "user_progress.a may not be NULL and has no default: a user without username gets no profile" in warning
        async with database.begin_run(label()) as run:
            await observe(run, Profile(A, T1, ("ada",)), Profile(B, T1, (None,)), Profile(C, T1, ("cy",)))
            assert await run.create_profiles([A, B, C]) == 2
            assert (await run.observe()).missing == 1
        with pytest.raises(TableUnsupported, match="a may not be NULL and has no default"):
            await tell(database, Profile(B, T1, (None,)))
        assert await fetch_value(database_url, "SELECT count(*) FROM usersync.deliveries") == 0


async def test_another_required_column_stops_the_creation_at_once(database_url: str) -> None:
    columns = "ADD a text, ADD b text NOT NULL"
    async with mapping(database_url, columns, a="username") as database, database.begin_run(label()) as run:
        await observe(run, Profile(A, T1, ("ada",)))
        with pytest.raises(TableUnsupported, match="b may not be NULL"):
            await run.create_profiles([A])


async def test_nobody_is_inserted_who_was_not_found_missing(database_url: str) -> None:
    async with mapping(database_url, "ADD a text", a="username") as database, database.begin_run(label()) as run:
        await execute(database_url, f"INSERT INTO user_progress (user_id) VALUES ('{A}')")
        await observe(run, Profile(A, T1, ("ada",)))
        await execute(database_url, "DELETE FROM user_progress")
        assert await run.create_profiles([A]) == 0


UNIQUE = "ADD a text UNIQUE, ADD b text"


async def test_a_value_that_a_constraint_refuses_is_left_by_an_event_and_the_others_are_written(
    database_url: str,
) -> None:
    async with mapping(database_url, UNIQUE, a="primaryEmailAddress", b="firstName") as database:
        await tell(database, Profile(A, T1, ("same@example.com", "Ada")))
        assert await tell(database, Profile(B, T1, ("same@example.com", "Bo")), "msg_2") is Absorbed.CREATED
        assert await values(database_url, "a, b", B) == [(None, "Bo")]
        assert await tell(database, Profile(B, T2, ("same@example.com", "Bob")), "msg_3") is Absorbed.UPDATED
        assert await values(database_url, "a, b", B) == [(None, "Bob")]


async def test_a_value_that_a_constraint_refuses_is_left_by_a_run_and_the_others_are_written(database_url: str) -> None:
    async with mapping(database_url, UNIQUE, a="primaryEmailAddress", b="firstName") as database:
        await execute(database_url, f"INSERT INTO user_progress (user_id) VALUES ('{A}'), ('{B}')")
        async with database.begin_run(label()) as run:
            listed = [Profile(A, T1, ("x@example.com", "Ada")), Profile(B, T1, ("x@example.com", "Bo"))]
            await observe(run, *listed, Profile(C, T1, ("x@example.com", "Cy")))
            assert await run.create_profiles([C]) == 1
            assert await update(run) == Updating(2, users_left=2)
            assert (await run.observe()).outdated == 2
        assert await values(database_url, "a, b", C) == [("x@example.com", "Cy")]
        assert [await values(database_url, "a, b", user) for user in (A, B)] == [[(None, "Ada")], [(None, "Bo")]]


async def test_an_update_touches_no_row_that_is_in_step(database_url: str) -> None:
    async with mapping(database_url, "ADD a text", a="username") as database:
        await tell(database, Profile(A, T1, ("ada",)))
        await tell(database, Profile(B, T1, ("bo",)), "msg_2")
        before = await values(database_url, "xmin::text")
        async with database.begin_run(label()) as run:
            await observe(run, Profile(A, T2, ("ada",)), Profile(B, T2, ("Bo",)))
            assert await update(run) == Updating(1)
        assert await values(database_url, "xmin::text") == before


async def test_an_event_waits_for_a_run_that_writes_the_same_user_and_the_later_value_stays(database_url: str) -> None:
    async with mapping(database_url, "ADD a text", a="username") as database:
        await tell(database, Profile(A, T1, ("first",)))
        async with database.begin_run(label()) as run, connected(database_url) as holder:
            await observe(run, Profile(A, T3, ("third",)))
            async with holder.transaction():
                await holder.execute("SELECT FROM user_progress FOR UPDATE")
                writing = asyncio.create_task(update(run))
                await until(database_url, WAITING.format(1))
                event = asyncio.create_task(tell(database, Profile(A, T2, ("second",)), "msg_2"))
                await until(database_url, WAITING.format(2))
            assert (await writing, await event) == (Updating(1), Absorbed.OLDER)
    assert await values(database_url, "a") == [("third",)]


async def test_a_run_waits_for_an_event_about_the_same_user_and_does_not_write_over_it(database_url: str) -> None:
    async with mapping(database_url, "ADD a text", a="username") as database:
        await tell(database, Profile(A, T1, ("first",)))
        async with database.begin_run(label()) as run, connected(database_url) as holder:
            await observe(run, Profile(A, T2, ("second",)))
            async with holder.transaction():
                await holder.execute("SELECT FROM user_progress FOR UPDATE")
                event = asyncio.create_task(tell(database, Profile(A, T3, ("third",)), "msg_2"))
                await until(database_url, WAITING.format(1))
                writing = asyncio.create_task(update(run))
                await until(database_url, WAITING.format(2))
            assert (await writing, await event) == (Updating(0), Absorbed.UPDATED)
    assert await values(database_url, "a") == [("third",)]


WAITING = (
    "SELECT count(*) >= {} FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
    "AND application_name = 'usersync'"
)


async def test_two_first_events_about_a_user_at_once_insert_one_row(database_url: str) -> None:
    async with mapping(database_url, "ADD a text", a="username") as database:
        told = [tell(database, Profile(A, moment, (str(moment),)), f"msg_{moment}") for moment in range(T1, T1 + 8)]
        await asyncio.gather(*told)
        assert await values(database_url, "a") == [(str(T1 + 7),)]


async def test_a_removal_and_an_erasure_forget_the_version(database_url: str) -> None:
    async with mapping(database_url, "ADD a text", a="username") as database:
        for number, user in enumerate((A, B, C)):
            await tell(database, Profile(user, T1, ("x",)), f"msg_{number}")
        async with running(database, [A, B]) as run:
            await run.remove_users(proofs([C]), TERMS)
        await erase(database, proofs([B])[0])
    assert [tuple(row) for row in await fetch(database_url, "SELECT user_id, updated_at FROM usersync.versions")] == [
        (A, T1)
    ]


async def test_nothing_of_what_clerk_said_is_left_when_a_run_is_over(database_url: str) -> None:
    async with mapping(database_url, "ADD a text", a="username") as database:
        async with database.begin_run(label()) as run:
            await observe(run, Profile(A, T1, ("ada",)))
            assert await fetch_value(database_url, "SELECT count(*) FROM usersync.listed_values") == 1
            assert await fetch_value(database_url, "SELECT count(*) FROM usersync.owed_values") == 1
        for table in ("listed_values", "owed_values"):
            assert await fetch_value(database_url, f"SELECT count(*) FROM usersync.{table}") == 0


async def test_the_version_of_a_user_who_is_not_listed_is_forgotten_as_the_run_ends(database_url: str) -> None:
    async with mapping(database_url, "ADD a text", a="username") as database:
        for number, user in enumerate((A, B)):
            await tell(database, Profile(user, T1, ("x",)), f"msg_{number}")
        await execute(database_url, f"DELETE FROM user_progress WHERE user_id = '{B}'")
        for listed in ([], [Profile(A, T1, ("x",))]):
            async with database.begin_run(label()) as run:
                await observe(run, *listed)
                drift = await run.observe()
                await run.finish(Outcome(run.id, drift, drift, Plan(), Changes()))
            # an empty listing is no reason to forget anybody
            left = [row["user_id"] for row in await fetch(database_url, "SELECT user_id FROM usersync.versions")]
            assert sorted(left) == ([A] if listed else [A, B])


async def test_an_answer_of_clerk_that_a_run_has_outlasted_is_not_written_over_a_later_event(database_url: str) -> None:
    async with mapping(database_url, "ADD a text", a="username") as database:
        await tell(database, Profile(A, T1, ("first",)))
        assert await tell(database, Profile(A, T1, ("other",)), "msg_2") is Absorbed.DOUBTED
        (stalled,) = await database.take_claims(1, timedelta(seconds=30))
        assert await tell(database, Profile(A, T2, ("later",)), "msg_3") is Absorbed.UPDATED
        async with database.begin_run(label()) as run:
            # he signed up after the listing had passed by
            await observe(run, Profile(B, T1, ("x",)))
            drift = await run.observe()
            await run.finish(Outcome(run.id, drift, drift, Plan(), Changes()))
        assert not await database.settle_by_update(stalled, Profile(A, T1, ("other",)))
    assert await values(database_url, "a") == [("later",)]


@pytest.mark.parametrize("ahead", [timedelta(minutes=-30), timedelta(days=30_000)])
async def test_a_version_that_clerk_has_never_heard_of_is_written_over_once_clerk_was_asked(
    database_url: str, ahead: timedelta
) -> None:
    forged = int((datetime.now(UTC) + ahead).timestamp() * 1000)
    async with mapping(database_url, "ADD a text", a="username") as database:
        await tell(database, Profile(A, T1, ("true",)))
        assert await tell(database, Profile(A, forged, ("forged",)), "msg_2") is Absorbed.UPDATED
        async with database.begin_run(label()) as run:
            assert await observe(run, Profile(A, T1, ("true",))) == 1
            assert await run.doubtful([A], SINCE) == [A]
            assert await run.update_profiles([A], (), SINCE) == Updating(0)
            assert await run.update_profiles([A], [Profile(A, T1, ("true",))], SINCE) == Updating(1)
            assert (await run.observe()).outdated == 0
        assert await tell(database, Profile(A, T2, ("later",)), "msg_3") is Absorbed.UPDATED
    assert await values(database_url, "a") == [("later",)]


async def test_a_version_of_the_time_of_the_listing_is_believed_and_so_is_one_that_clerk_confirms(
    database_url: str,
) -> None:
    now = int(datetime.now(UTC).timestamp() * 1000)
    async with mapping(database_url, "ADD a text", a="username") as database:
        await tell(database, Profile(A, now, ("just now",)))
        await tell(database, Profile(B, T2, ("second",)), "msg_2")
        async with database.begin_run(label()) as run:
            assert await observe(run, Profile(A, T1, ("old",)), Profile(B, T1, ("first",))) == 1
            assert await run.doubtful([A, B], SINCE) == [B]
            assert await run.update_profiles([A, B], [Profile(B, T2, ("second",))], SINCE) == Updating(0)
            assert await run.update_profiles([A, B], [Profile(B, T3, ("third",))], SINCE) == Updating(1)
        assert await tell(database, Profile(B, T2, ("second",)), "msg_3") is Absorbed.OLDER
    assert (await values(database_url, "a"), await values(database_url, "a", B)) == ([("just now",)], [("third",)])


async def test_a_value_of_an_event_that_does_not_fit_is_said_in_the_log(database_url: str) -> None:
    async with mapping(database_url, "ADD a integer", a="username") as database:
        with capture_logs() as logged:
            await tell(database, Profile(A, T1, ("ada",)))
    (line,) = [each for each in logged if each["event"] == "value_left"]
    assert "username of 1 user(s) does not fit public.user_progress.a, which is integer" in line["reason"]
