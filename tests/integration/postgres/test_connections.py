from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from controller.core.absorbing import ClaimKind
from controller.errors import DatabaseRefused, DatabaseUnavailable
from controller.postgres.connections import SHORT, Connections, Limits, Transaction
from tests.support.databases import connected, create_tables, execute, fetch_value, seed_users, user_ids
from tests.support.pooler import pooled
from tests.support.stores import delivery, ids, opened, proofs, running

if TYPE_CHECKING:
    from controller.cli.demo.local_postgres import LocalPostgres


async def one(transaction: Transaction) -> int:
    number: int = await transaction.value("SELECT 1")
    return number


async def test_everything_works_through_a_transaction_mode_pooler_and_leaves_no_session_state(
    database_url: str,
) -> None:
    users = user_ids(8)
    await seed_users(database_url, users[:6])
    async with pooled(database_url) as pooler:
        async with opened(pooler.url) as database:
            async with running(database, users[:4] + users[6:]) as run:
                assert await run.create_profiles(ids(users[6:])) == 2
                assert (await run.remove_users(proofs(users[4:6]))).users == 2
                assert (await run.reduce_duplicates(ids(users[:1]))).rows == 0
            await database.record_claim(delivery("m1"), ids(users)[0], ClaimKind.DELETION)
            (claim,) = await database.take_claims(5, timedelta(minutes=1))
            assert (await database.settle_by_removal(claim, proofs(users[:1])[0])).users == 1
        assert await pooler.left_behind() == []


async def test_the_pooler_of_the_tests_gives_each_transaction_another_session(database_url: str) -> None:
    async def session(transaction: Transaction) -> int:
        number: int = await transaction.value("SELECT pg_backend_pid()")
        return number

    async with pooled(database_url) as pooler, Connections.open(pooler.url) as connections:
        assert await connections.transact(session) != await connections.transact(session)


async def test_connections_say_who_they_are(database_url: str) -> None:
    async def name(transaction: Transaction) -> str:
        found: str = await transaction.value("SELECT current_setting('application_name')")
        return found

    async with Connections.open(database_url, label="usersync test") as connections:
        assert await connections.transact(name) == "usersync test"


async def test_parameters_of_other_drivers_in_the_url_do_no_harm(database_url: str) -> None:
    url = f"{database_url}?pgbouncer=true&connection_limit=1&channel_binding=prefer&sslmode=disable"
    async with Connections.open(url) as connections:
        assert await connections.transact(one) == 1


async def test_a_server_without_tls_is_refused_where_the_url_demands_it(database_url: str) -> None:
    async with Connections.open(f"{database_url}?sslmode=require") as connections:
        with pytest.raises(DatabaseRefused, match="TLS"):
            await connections.transact(one)


async def test_an_unknown_database_is_refused(postgres_server: LocalPostgres) -> None:
    async with Connections.open(postgres_server.url("nowhere")) as connections:
        with pytest.raises(DatabaseRefused, match="nowhere"):
            await connections.transact(one)


async def test_an_unknown_role_is_refused(postgres_server: LocalPostgres) -> None:
    async with Connections.open(postgres_server.url(user="nobody_we_know")) as connections:
        with pytest.raises(DatabaseRefused, match="nobody_we_know"):
            await connections.transact(one)


async def test_a_server_that_is_away_is_unavailable(unused_tcp_port: int) -> None:
    async with Connections.open(f"postgres://me@127.0.0.1:{unused_tcp_port}/app") as connections:
        with pytest.raises(DatabaseUnavailable, match=str(unused_tcp_port)):
            await connections.transact(one)


async def test_a_connection_that_was_ended_is_an_outage_without_a_traceback_of_the_library(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def end_ourselves(transaction: Transaction) -> None:
        await transaction.value("SELECT pg_terminate_backend(pg_backend_pid())")

    with caplog.at_level(logging.WARNING):
        async with Connections.open(database_url) as connections:
            with pytest.raises(DatabaseUnavailable):
                await connections.transact(end_ourselves)
            assert await connections.transact(one) == 1
    assert [record for record in caplog.records if record.name.startswith(("asyncpg", "asyncio"))] == []


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(database_url: str) -> None:
    async def sleep(transaction: Transaction) -> None:
        await transaction.rows("SELECT pg_sleep(60)")

    async with Connections.open(database_url) as connections:
        with pytest.raises(DatabaseUnavailable, match="statement timeout"):
            await connections.transact(sleep, limits=Limits(timedelta(milliseconds=50)))


async def test_a_transaction_that_lost_is_done_again(database_url: str) -> None:
    await execute(database_url, "CREATE TABLE counter (n int)", "INSERT INTO counter VALUES (0)")
    first_reads, second_is_done = asyncio.Event(), asyncio.Event()

    async def slow(transaction: Transaction) -> None:
        n = await transaction.value("SELECT n FROM counter")
        first_reads.set()
        await second_is_done.wait()
        await transaction.change("UPDATE counter SET n = $1", n + 10)

    async def quick(transaction: Transaction) -> None:
        await transaction.change("UPDATE counter SET n = n + 1")

    async with Connections.open(database_url) as connections:
        losing = asyncio.create_task(connections.transact(slow, isolation="repeatable_read"))
        await first_reads.wait()
        await connections.transact(quick)
        second_is_done.set()
        await losing
    assert await fetch_value(database_url, "SELECT n FROM counter") == 11


async def test_a_lock_that_is_never_given_is_an_outage_after_bounded_attempts(database_url: str) -> None:
    async def lock(transaction: Transaction) -> None:
        await transaction.execute("LOCK TABLE tasks")

    async with connected(database_url) as holder, holder.transaction():
        await holder.execute("LOCK TABLE tasks")
        async with Connections.open(database_url) as connections:
            with pytest.raises(DatabaseUnavailable, match="lock"):
                await connections.transact(lock, limits=Limits(SHORT.statement, timedelta(milliseconds=20)), attempts=2)


async def test_a_cancelled_transaction_changes_nothing(database_url: str) -> None:
    begun = asyncio.Event()

    async def insert(transaction: Transaction) -> None:
        await transaction.change("INSERT INTO tasks (user_id) VALUES ('user_a')")
        begun.set()
        await asyncio.Event().wait()

    async with Connections.open(database_url) as connections:
        task = asyncio.create_task(connections.transact(insert))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await connections.transact(one) == 1
    assert await fetch_value(database_url, "SELECT count(*) FROM tasks") == 0


async def test_a_default_isolation_of_the_role_does_not_reach_our_transactions(
    database_url: str, postgres_server: LocalPostgres
) -> None:
    async def isolation(transaction: Transaction) -> str:
        found: str = await transaction.value("SELECT current_setting('transaction_isolation')")
        return found

    database = database_url.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'")
    async with Connections.open(database_url) as connections:
        assert await connections.transact(isolation) == "read committed"


async def test_every_transaction_turns_hidden_rows_into_an_error(database_url: str) -> None:
    async def setting(transaction: Transaction) -> str:
        found: str = await transaction.value("SELECT current_setting('row_security')")
        return found

    async with Connections.open(database_url) as connections:
        assert await connections.transact(setting) == "off"
    assert await fetch_value(database_url, "SELECT current_setting('row_security')") == "on"


async def test_the_library_itself_would_leave_prepared_statements_behind(empty_database_url: str) -> None:
    """The pooler notices session state: the same library with its defaults is caught."""
    await create_tables(empty_database_url)
    async with pooled(empty_database_url, size=1) as pooler:
        connection = await asyncpg.connect(pooler.url)
        await connection.fetch("SELECT $1::int", 1)
        connection.terminate()
        assert any(found.startswith("prepared statement") for found in await pooler.left_behind())
