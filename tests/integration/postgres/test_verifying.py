"""The chain of receipts: whoever changes something is found, with the position."""

from __future__ import annotations

import pytest

from controller.core.receipts import Verified
from controller.postgres.receipting import RECENT, chain
from tests.support.databases import execute, fetch_value, seed_users, user_ids
from tests.support.stores import erase, ids, opened, proofs

USERS = ids(user_ids(5))
UNGUARDED = "ALTER TABLE usersync.{0} DISABLE TRIGGER append_only"


@pytest.fixture
async def chained(database_url: str) -> str:
    """Five receipts, each linked."""
    await seed_users(database_url, USERS)
    async with opened(database_url) as database:
        for user in USERS:
            await erase(database, proofs([user])[0])
    for table in ("receipts", "receipt_chain", "tombstones"):
        await execute(database_url, UNGUARDED.format(table))
    return database_url


async def verify(url: str, head: str | None = None) -> Verified:
    async with opened(url) as database:
        return await database.verify_receipts(head)


async def head_of(url: str, position: int) -> str:
    head: str = await fetch_value(
        url, "SELECT encode(hash, 'hex') FROM usersync.receipt_chain WHERE position = $1", position
    )
    return head


async def test_receipts_that_nobody_touched_fit(chained: str) -> None:
    assert await verify(chained) == Verified(5, await head_of(chained, 5))


async def test_a_target_without_receipts_fits(database_url: str) -> None:
    assert await verify(database_url) == Verified(0, None)


async def test_receipts_without_a_link_are_linked_first(chained: str) -> None:
    last = await head_of(chained, 5)
    await execute(chained, "DELETE FROM usersync.receipt_chain WHERE position > 3")
    assert await verify(chained) == Verified(5, last)


async def test_an_event_looks_for_receipts_without_a_link_only_so_far_back(chained: str) -> None:
    """To look through all takes longer with each receipt; that is left to the runs, and to whoever verifies."""
    another = (
        "INSERT INTO usersync.receipts OVERRIDING SYSTEM VALUE SELECT {0}, schema_name, instance_id, user_hash, act, "
        "reason, requested_by, counted, approval, run_id, rows, issued_at FROM usersync.receipts WHERE id = 5"
    )
    await execute(chained, another.format(5 + RECENT))
    assert (await verify(chained)).receipts == 6
    await execute(chained, another.format(6 + RECENT), "DELETE FROM usersync.receipt_chain WHERE receipt_id = 5")
    unlinked = "SELECT min(id) FROM usersync.receipts WHERE id NOT IN (SELECT receipt_id FROM usersync.receipt_chain)"
    async with opened(chained) as database:
        await database.connections.transact(lambda transaction: chain(transaction, "public", looks_back=RECENT))
        assert await fetch_value(chained, unlinked) == 5
        assert await fetch_value(chained, "SELECT max(receipt_id) FROM usersync.receipt_chain") == 6 + RECENT
        await database.connections.transact(lambda transaction: chain(transaction, "public"))
    assert await fetch_value(chained, unlinked) is None


async def test_a_head_from_earlier_is_found_among_the_links(chained: str) -> None:
    assert (await verify(chained, await head_of(chained, 2))).problem is None


async def test_the_newest_receipts_taken_away_are_found_by_the_head_that_somebody_kept(chained: str) -> None:
    kept = await head_of(chained, 5)
    await execute(
        chained,
        "DELETE FROM usersync.receipt_chain WHERE position > 3",
        "DELETE FROM usersync.receipts WHERE id > 3",
    )
    assert (await verify(chained)).problem is None
    verified = await verify(chained, kept)
    assert f"The head {kept} is no link" in str(verified.problem)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE usersync.receipts SET rows = '{}' WHERE id = 3",
        "UPDATE usersync.receipts SET requested_by = 'somebody else' WHERE id = 3",
        "UPDATE usersync.receipts SET act = 'restored' WHERE id = 3",
        "UPDATE usersync.receipts SET issued_at = issued_at - interval '1 microsecond' WHERE id = 3",
        "UPDATE usersync.receipt_chain SET hash = sha256('x') WHERE position = 3",
        "DELETE FROM usersync.receipt_chain WHERE position = 3; DELETE FROM usersync.receipts WHERE id = 3",
        (
            "DELETE FROM usersync.receipt_chain WHERE position = 3; DELETE FROM usersync.receipts WHERE id = 3; "
            "UPDATE usersync.receipt_chain SET position = position - 1 WHERE position > 3"
        ),
        "UPDATE usersync.receipt_chain SET position = position + 10 WHERE position >= 3",
        "UPDATE usersync.receipts SET schema_name = 'elsewhere' WHERE id = 3",
        "DELETE FROM usersync.tombstones WHERE id = 3",
    ],
    ids=["rows", "person", "act", "time", "link", "gap", "closed-gap", "moved", "schema", "tombstone"],
)
async def test_whatever_is_changed_is_found_at_its_position(chained: str, change: str) -> None:
    await execute(chained, f"BEGIN; {change}; COMMIT")
    verified = await verify(chained)
    assert verified.problem is not None
    assert verified.position == 3
    assert verified.head is None


async def test_a_lifted_tombstone_is_a_tombstone_still(chained: str) -> None:
    await execute(chained, "INSERT INTO usersync.lifted_tombstones SELECT id, 'somebody' FROM usersync.tombstones")
    assert (await verify(chained)).problem is None


async def test_receipts_are_read_newest_last_and_for_one_user_by_his_hash(chained: str) -> None:
    async with opened(chained) as database:
        assert [receipt.position for receipt in await database.receipts(3)] == [3, 4, 5]
        (his,) = await database.receipts(3, USERS[1])
        assert (his.position, his.act, dict(his.rows)["tasks"]) == (2, "erased", 2)
        assert his.link == await head_of(chained, 2)
