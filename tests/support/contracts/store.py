"""The contract of `Store`, `Run` and `Inbox` of `controller.core.ports`, for the fake and for PostgreSQL alike."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import pytest

from controller.core.absorbing import SECOND_SWEEP_DELAY
from controller.core.approving import VALID_FOR, SetDigest
from controller.core.claims import Backlog, ClaimKind
from controller.core.drift import TableDrift
from controller.core.events import Delivery
from controller.core.outcomes import Absorbed, Changes, Outcome, Removal
from controller.core.plans import Plan
from controller.core.ports import RunLabel
from controller.core.proofs import MAX_AGE, Proof
from controller.core.removals import RemovalTerms
from controller.core.suspects import Suspects, Terms
from controller.core.targets import Approval, Deletion, DeletionPolicy, Limits, Policy
from controller.core.users import CLERK_ID_LENGTH_MAX, Environment, Instance, UserId
from controller.errors import TargetBusy, WrongInstance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from controller.core.approving import HeldSet
    from controller.core.claims import Claim
    from controller.core.ports import Inbox, Run, Store

INSTANCE = Instance("ins_one", Environment.PRODUCTION)
OTHER_INSTANCE = Instance("ins_two", Environment.PRODUCTION)
LABEL = RunLabel("app/production", Policy(), INSTANCE, "contract")
DELETION = Deletion(limits=Limits(1_000_000, 100))
TERMS = RemovalTerms.of(DELETION, permitted=None)
"""For what is not about limits."""
HOUR = Terms(grace_period=timedelta(hours=1), longest_gap=timedelta(hours=3), window=timedelta(hours=24))
AT_ONCE = replace(HOUR, grace_period=timedelta())
HEADER = "what the set is bound to"
A, B, C, D = (UserId(f"user_{letter}") for letter in "abcd")
PROFILE, DATA = "user_progress", "moods"
LEASE = timedelta(minutes=5)
BOUND, BITE = 8, 2
"""Rows of a user, and of one batch, from which on, and in which, he leaves in batches: of a premises."""


class Premises(Protocol):
    """A store of the default target, and the tables behind it, as a test changes them."""

    store: Store
    inbox: Inbox

    async def add_row(self, table: str, user_id: str | None, created_at: datetime | None = None) -> None:
        """Insert one row, as the application does."""

    async def rows(self, table: str) -> list[tuple[str | None, datetime | None]]:
        """Return user id and creation time of each row, sorted by both (None first)."""

    async def hold(self, user_id: UserId) -> None:
        """Let the database refuse to remove this user."""

    async def let_pass(self, time: timedelta) -> None:
        """Let time go on, for claims and for proofs."""

    def elapsed(self) -> float:
        """Seconds of the clock that dates proofs."""


async def add_users(premises: Premises, *user_ids: UserId) -> None:
    """Give each user a profile and a row of data."""
    for user_id in user_ids:
        await premises.add_row(PROFILE, user_id)
        await premises.add_row(DATA, user_id)


async def add_large_user(premises: Premises, user_id: UserId) -> None:
    """Give a user a profile and more rows than may leave at once."""
    await premises.add_row(PROFILE, user_id)
    for _ in range(BOUND):
        await premises.add_row(DATA, user_id)


async def users(premises: Premises, table: str) -> list[str | None]:
    """Whose the rows of a table are."""
    return [user_id for user_id, _ in await premises.rows(table)]


def proof(premises: Premises, user_id: UserId, instance: Instance = INSTANCE) -> Proof:
    """A proof made now."""
    return Proof(user_id, instance.id, premises.elapsed())


async def walk(batches: AsyncIterator[Sequence[UserId]]) -> list[UserId]:
    """All ids of all batches."""
    return [user_id async for batch in batches for user_id in batch]


async def observe(run: Run, *listed: UserId) -> None:
    """Record the listing and compare."""
    await run.record_listed(listed)
    await run.observe()


async def weighed(premises: Premises, *listed: UserId, label: RunLabel = LABEL) -> tuple[Suspects, list[UserId]]:
    """A run that lists these users: what the suspects come to, and who is due."""
    async with premises.store.begin_run(label) as run:
        await observe(run, *listed)
        suspects, _ = await run.weigh(HOUR, None, HEADER)
        return suspects, await walk(run.due())


async def hold(premises: Premises, *listed: UserId) -> HeldSet:
    """A run that lists these users, and holds back all others who have rows."""
    async with premises.store.begin_run(LABEL) as run:
        await observe(run, *listed)
        await run.weigh(AT_ONCE, None, HEADER)
        digest = SetDigest(HEADER)
        digest.add(await walk(run.due()))
        return await run.hold(digest)


async def take_one(premises: Premises) -> Claim:
    """The one claim that is due."""
    (claim,) = await premises.inbox.take_claims(10, LEASE)
    return claim


class StoreContract:
    """Inherit it, with a fixture `premises`, not pinned."""

    async def test_a_target_is_pinned_once(self, premises: Premises) -> None:
        assert await premises.store.pinned_instance() is None
        await premises.store.pin_instance(INSTANCE)
        await premises.store.pin_instance(INSTANCE)
        assert await premises.store.pinned_instance() == INSTANCE.id

    async def test_another_instance_is_not_pinned_over_the_first(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        with pytest.raises(WrongInstance):
            await premises.store.pin_instance(OTHER_INSTANCE)
        assert await premises.store.pinned_instance() == INSTANCE.id

    async def test_a_sample_has_distinct_ids_of_clerks_form(self, premises: Premises) -> None:
        await add_users(premises, A, A, B)
        await premises.add_row(DATA, "system")
        await premises.add_row(DATA, "user_" + "a" * CLERK_ID_LENGTH_MAX)
        await premises.add_row(DATA, C)
        assert sorted(await premises.store.sample_user_ids(200)) == [A, B, C]
        assert len(await premises.store.sample_user_ids(2)) == 2

    async def test_an_observation_counts_users_and_rows(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, B)
        for value in ("system", None, ""):
            await premises.add_row(DATA, value)
        async with premises.store.begin_run(LABEL) as run:
            await run.record_listed([A, C])
            drift = await run.observe()
        assert replace(drift, tables=()) == replace(
            drift, tables=(), clerk_users=2, users_with_rows=2, synced=1, missing=1, clerk_only=1, orphaned=1,
            duplicates=1, duplicated_users=1, foreign=1,
        )  # fmt: skip
        by_name = {table.name: table for table in drift.tables}
        assert by_name[PROFILE] == TableDrift(PROFILE, rows=3, users=1, orphaned_rows=2)
        assert by_name[DATA] == TableDrift(DATA, rows=6, users=1, orphaned_rows=2)

    async def test_the_sets_behind_the_counts_are_walked_in_byte_order(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, UserId("user_b"), UserId("user_B"), UserId("user_B"), UserId("user_a"))
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, D, C)
            assert await walk(run.missing()) == [C, D]
            assert await walk(run.orphaned()) == ["user_B", "user_a", "user_b"]
            assert await walk(run.duplicated()) == ["user_B"]

    async def test_missing_profiles_are_created_once(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, A, B, C)
            assert await run.create_profiles([B, C]) == 2
            assert await run.create_profiles([A, B, C]) == 0
            assert (await run.observe()).total == 0
        assert await users(premises, PROFILE) == [A, B, C]

    async def test_a_user_is_due_once_absent_for_the_grace_period_from_one_listing_to_the_next(
        self, premises: Premises
    ) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        assert await weighed(premises, B) == (Suspects(waiting=1), [])
        await premises.let_pass(timedelta(minutes=59))
        assert await weighed(premises, B) == (Suspects(waiting=1), [])
        await premises.let_pass(timedelta(minutes=1))
        assert await weighed(premises, B) == (Suspects(due=1), [A])

    async def test_weighing_twice_in_a_run_ages_nobody(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            first = await run.weigh(HOUR, None, HEADER)
            await premises.let_pass(timedelta(hours=2))
            assert await run.weigh(HOUR, None, HEADER) == first == (Suspects(waiting=1), None)

    async def test_a_user_seen_again_is_absent_anew(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        await weighed(premises, B)
        await premises.let_pass(timedelta(minutes=40))
        await weighed(premises, A, B)
        await premises.let_pass(timedelta(minutes=40))
        assert await weighed(premises, B) == (Suspects(waiting=1), [])

    async def test_a_gap_between_listings_begins_the_absence_anew(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        await weighed(premises, B)
        await premises.let_pass(HOUR.longest_gap + timedelta(seconds=1))
        assert await weighed(premises, B) == (Suspects(waiting=1), [])

    async def test_another_instance_begins_the_absence_anew(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        await weighed(premises, B)
        await premises.let_pass(timedelta(hours=1))
        label = replace(LABEL, instance=OTHER_INSTANCE)
        assert await weighed(premises, B, label=label) == (Suspects(waiting=1), [])

    async def test_a_tombstoned_user_whose_rows_came_back_is_due_at_once(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            await run.remove_users([proof(premises, A)], TERMS)
        await premises.add_row(DATA, A)
        assert await weighed(premises, B) == (Suspects(due=1), [A])

    async def test_a_held_claim_makes_its_user_due(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.DELETION)
        assert await weighed(premises, B) == (Suspects(waiting=1), [])
        await premises.inbox.hold_claim(await take_one(premises), timedelta(minutes=10))
        assert await weighed(premises, B) == (Suspects(due=1), [A])

    async def test_a_user_in_holdback_is_not_due_before_that_is_over(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        holdback = timedelta(hours=2)
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.HOLDBACK, holdback)
        await weighed(premises, B)
        await premises.let_pass(timedelta(hours=1))
        assert await weighed(premises, B) == (Suspects(waiting=1), [])
        await premises.let_pass(timedelta(hours=1))
        assert await weighed(premises, B) == (Suspects(due=1), [A])

    async def test_a_tombstoned_user_is_due_in_a_holdback_too(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            await run.remove_users([proof(premises, A)], TERMS)
        await premises.add_row(DATA, A)
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.HOLDBACK, timedelta(days=1))
        assert await weighed(premises, B) == (Suspects(due=1), [A])

    async def test_an_approval_permits_the_very_set_and_whoever_joins_later_waits(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, C, D)
        held = await hold(premises, C, D)
        approval = Approval(held.digest, "somebody")
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, D)
            assert await run.weigh(AT_ONCE, approval, HEADER) == (Suspects(due=1, approved=2), None)
            assert (await walk(run.approved()), await walk(run.due())) == ([A, B], [C])

    async def test_who_joined_a_later_set_is_not_permitted_by_the_approval_of_an_older_one(
        self, premises: Premises
    ) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, C, D)
        older = await hold(premises, C, D)
        await hold(premises, D)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, D)
            approval = Approval(older.digest, "somebody")
            assert await run.weigh(AT_ONCE, approval, HEADER) == (Suspects(due=1, approved=2), None)
            assert (await walk(run.approved()), await walk(run.due())) == ([A, B], [C])

    async def test_who_came_back_in_between_is_permitted_by_no_older_approval(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, C)
        held = await hold(premises, C)
        await hold(premises, A, C)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, C)
            approval = Approval(held.digest, "somebody")
            assert await run.weigh(AT_ONCE, approval, HEADER) == (Suspects(due=1, approved=1), None)
            assert (await walk(run.approved()), await walk(run.due())) == ([B], [A])

    async def test_an_approval_permits_nobody_of_another_set_beside_which_its_own_was_held_back(
        self, premises: Premises
    ) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, C)
        first = Approval((await hold(premises, B, C)).digest, "somebody")
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, C)
            assert await run.weigh(AT_ONCE, first, HEADER) == (Suspects(due=1, approved=1), None)
            digest = SetDigest(HEADER)
            digest.add(await walk(run.due()))
            beside = await run.hold(digest)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, C)
            assert await run.weigh(AT_ONCE, Approval(beside.digest, "somebody"), HEADER) == (
                Suspects(due=1, approved=1),
                None,
            )
            assert (await walk(run.approved()), await walk(run.due())) == ([B], [A])
            assert await run.weigh(AT_ONCE, first, HEADER) == (Suspects(due=1, approved=1), None)
            assert (await walk(run.approved()), await walk(run.due())) == ([A], [B])
        both = Approval((await hold(premises, C)).digest, "somebody")
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, C)
            assert await run.weigh(AT_ONCE, both, HEADER) == (Suspects(approved=2), None)

    async def test_a_set_held_again_though_nobody_joined_since_the_last_one_is_permitted_whole(
        self, premises: Premises
    ) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, C, D)
        for listed in ((C, D), (B, C, D), (D,)):
            await hold(premises, *listed)
        again = await hold(premises, C, D)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, C, D)
            suspects, refusal = await run.weigh(AT_ONCE, Approval(again.digest, "somebody"), HEADER)
        assert (suspects, refusal) == (Suspects(approved=2), None)

    async def test_a_set_held_again_after_somebody_came_back_is_permitted_whole(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, C)
        for listed in ((C,), (A, C)):
            await hold(premises, *listed)
        again = await hold(premises, C)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, C)
            suspects, refusal = await run.weigh(AT_ONCE, Approval(again.digest, "somebody"), HEADER)
        assert (suspects, refusal) == (Suspects(approved=2), None)

    async def test_the_same_set_held_again_has_the_same_digest_and_waits_since_the_first_time(
        self, premises: Premises
    ) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, C)
        first = await hold(premises, C)
        await premises.let_pass(timedelta(hours=1))
        again = await hold(premises, C)
        assert again == replace(first, seen_before=True)
        assert not first.seen_before

    @pytest.mark.parametrize("header", ["another", HEADER])
    async def test_an_approval_of_another_target_or_policy_permits_nobody(
        self, premises: Premises, header: str
    ) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        approval = Approval((await hold(premises, B)).digest, "somebody")
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            suspects, refusal = await run.weigh(AT_ONCE, approval, header)
        assert (suspects.approved, refusal is None) == ((1, True) if header == HEADER else (0, False))

    async def test_an_approval_is_void_after_seven_days(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        approval = Approval((await hold(premises, B)).digest, "somebody")
        await premises.let_pass(VALID_FOR + timedelta(seconds=1))
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            suspects, refusal = await run.weigh(AT_ONCE, approval, HEADER)
        assert (suspects.approved, suspects.due) == (0, 1)
        assert refusal is not None

    async def test_an_approval_is_used_once(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        approval = Approval((await hold(premises, B)).digest, "somebody")
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            await run.approve(approval)
            await run.use_up(approval)
            suspects, refusal = await run.weigh(AT_ONCE, approval, HEADER)
        assert suspects.approved == 0
        assert refusal is not None

    async def test_a_used_set_that_is_due_again_waits_under_another_digest(self, premises: Premises) -> None:
        """Its users were put back, say. The old digest may stand in an annotation still, and permits nobody."""
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        digests = []
        for _ in range(3):
            held = await hold(premises, B)
            assert not held.seen_before
            digests.append(held.digest)
            approval = Approval(held.digest, "somebody")
            async with premises.store.begin_run(LABEL) as run:
                await observe(run, B)
                assert await run.weigh(AT_ONCE, approval, HEADER) == (Suspects(approved=1), None)
                await run.approve(approval)
                await run.use_up(approval)
        assert len(set(digests)) == 3
        again = await hold(premises, B)
        assert (await hold(premises, B)).digest == again.digest
        async with premises.store.begin_run(LABEL) as run:
            for digest in digests:
                await observe(run, B)
                suspects, refusal = await run.weigh(AT_ONCE, Approval(digest, "somebody"), HEADER)
                assert (suspects, refusal is None) == (Suspects(due=1), False)

    async def test_an_unknown_digest_permits_nobody(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        await hold(premises, B)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            suspects, refusal = await run.weigh(AT_ONCE, Approval("0" * 64, "somebody"), HEADER)
        assert suspects.approved == 0
        assert refusal is not None

    async def test_a_batch_that_passes_the_limits_leaves_all_of_it(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, C)
        two = RemovalTerms.of(Deletion(), permitted=2)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, D)
            assert await run.remove_users([proof(premises, A)], two) == Removal(users=1, rows=2)
            held = await run.remove_users([proof(premises, B), proof(premises, C)], two)
            assert held == Removal(users_left=2, limit_reached=True)
            assert await run.remove_users([proof(premises, C)], two) == Removal(users=1, rows=2)
        assert await users(premises, PROFILE) == await users(premises, DATA) == [B]

    async def test_removals_count_until_the_window_has_passed(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, C)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, D)
            await run.remove_users([proof(premises, A)], RemovalTerms.of(Deletion(), permitted=1))
        assert (await weighed(premises, C))[0].removed == 1
        await premises.let_pass(Limits().window)
        assert (await weighed(premises, C))[0].removed == 0

    async def test_an_approved_removal_does_not_count(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, D)
            await run.remove_users([proof(premises, A)], TERMS)
        assert (await weighed(premises, B))[0].removed == 0

    async def test_an_event_beyond_the_limits_leaves_user_and_claim(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        one = Deletion(limits=Limits(users=1))
        for number, user_id in enumerate((A, B)):
            await premises.inbox.record_claim(Delivery(f"msg_{number}", "user.deleted"), user_id, ClaimKind.DELETION)
        first, second = await premises.inbox.take_claims(10, LEASE)
        assert await premises.inbox.settle_by_removal(first, proof(premises, A), one) == Removal(users=1, rows=2)
        held = await premises.inbox.settle_by_removal(second, proof(premises, B), one)
        assert held == Removal(users_left=1, limit_reached=True)
        assert await users(premises, PROFILE) == await users(premises, DATA) == [B]
        await premises.let_pass(one.limits.window)
        later = await premises.inbox.settle_by_removal(second, proof(premises, B), one)
        assert later == Removal(users=1, rows=2)

    async def test_retained_rows_stay_and_are_no_drift(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        retain = Deletion(DeletionPolicy.RETAIN)
        async with premises.store.begin_run(replace(LABEL, policy=Policy(deletion=retain))) as run:
            await observe(run, B)
            done = await run.remove_users([proof(premises, A)], RemovalTerms.of(retain, permitted=None))
            drift = await run.observe()
        assert done == Removal(users=1, rows=0)
        assert (drift.orphaned, drift.retained, drift.total) == (0, 1, 0)
        assert await users(premises, PROFILE) == await users(premises, DATA) == [A, B]
        late = Delivery("msg_0", "user.created")
        assert await premises.inbox.create_profile(late, A) is Absorbed.TOMBSTONED

    async def test_a_user_without_rows_uses_nothing_up_when_retained(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, B)
        none = RemovalTerms.of(Deletion(DeletionPolicy.RETAIN), permitted=0)
        async with premises.store.begin_run(LABEL) as run:
            assert await run.remove_users([proof(premises, A)], none) == Removal(users=1)
            assert (await run.remove_users([proof(premises, B)], none)).limit_reached

    async def test_a_user_retained_once_uses_nothing_up_the_second_time(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        retain = Deletion(DeletionPolicy.RETAIN)
        one, none = RemovalTerms.of(retain, permitted=1), RemovalTerms.of(retain, permitted=0)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            assert await run.remove_users([proof(premises, A)], one) == Removal(users=1)
            await premises.let_pass(Limits().window)
            assert await run.remove_users([proof(premises, A)], none) == Removal(users=1)
            assert (await run.remove_users([proof(premises, B)], none)).limit_reached

    async def test_a_removed_user_is_gone_from_all_tables_and_gets_no_profile_again(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, A)
            assert await run.remove_users([proof(premises, B)], TERMS) == Removal(users=1, rows=2)
            await observe(run, B)
            assert await walk(run.missing()) == []
            assert await run.create_profiles([B]) == 0
        assert await users(premises, PROFILE) == await users(premises, DATA) == [A]

    async def test_an_expired_proof_leaves_its_user(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        old = proof(premises, A)
        await premises.let_pass(MAX_AGE + timedelta(seconds=1))
        async with premises.store.begin_run(LABEL) as run:
            await observe(run)
            assert await run.remove_users([old, proof(premises, B)], TERMS) == Removal(users=1, rows=2, users_left=1)
        assert await users(premises, PROFILE) == await users(premises, DATA) == [A]

    async def test_a_proof_of_another_instance_leaves_its_user(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run)
            assert await run.remove_users([proof(premises, A, OTHER_INSTANCE)], TERMS) == Removal(users_left=1)
        assert await users(premises, PROFILE) == [A]

    async def test_a_user_whom_the_database_holds_is_left_whole(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        await premises.hold(A)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run)
            removal = await run.remove_users([proof(premises, A), proof(premises, B)], TERMS)
        assert removal == Removal(users=1, rows=2, users_left=1)
        assert await users(premises, PROFILE) == await users(premises, DATA) == [A]

    async def test_the_oldest_profile_row_is_kept(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
        for created_at in (late, None, early):
            await premises.add_row(PROFILE, A, created_at)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, A)
            assert (await run.reduce_duplicates([A])).rows == 2
        assert await premises.rows(PROFILE) == [(A, early)]

    async def test_a_run_is_finished_with_its_outcome(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        async with premises.store.begin_run(LABEL) as run:
            drift = await run.observe()
            await run.finish(Outcome(run.id, drift, drift, Plan(), Changes()))
        async with premises.store.begin_run(LABEL) as run:
            assert (await run.observe()).clerk_users == 0


class BusyContract:
    """Inherit it, with a fixture `premises` whose lock somebody else holds."""

    async def test_a_run_beside_another_is_refused(self, premises: Premises) -> None:
        with pytest.raises(TargetBusy):
            async with premises.store.begin_run(LABEL):
                pass


class LargeRemovalContract:
    """A store whose bounds are BOUND and BITE, and which removes one batch at a time."""

    async def test_a_user_with_very_many_rows_is_begun_with_and_leaves_batch_by_batch(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        await add_large_user(premises, B)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, A)
            assert await run.remove_users([proof(premises, B)], TERMS) == Removal(rows=1, users_unfinished=1)
            assert await users(premises, PROFILE) == [A]
            assert await walk(run.unfinished()) == [B]
            for _ in range(BOUND // BITE):
                assert await run.go_on(proof(premises, B), TERMS) == Removal(rows=BITE, users_unfinished=1)
            assert await users(premises, DATA) == [A]
            assert await run.go_on(proof(premises, B), TERMS) == Removal(users=1)
            assert await walk(run.unfinished()) == []
            assert await run.go_on(proof(premises, B), TERMS) == Removal()

    async def test_whoever_was_begun_with_is_not_begun_with_again(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_large_user(premises, A)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            await run.remove_users([proof(premises, A)], TERMS)
            await run.go_on(proof(premises, A), TERMS)
            assert await run.remove_users([proof(premises, A)], TERMS) == Removal(users_unfinished=1)

    async def test_an_expired_proof_or_a_held_row_leaves_him_unfinished(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_large_user(premises, A)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            await run.remove_users([proof(premises, A)], TERMS)
            old = proof(premises, A)
            await premises.let_pass(MAX_AGE + timedelta(seconds=1))
            assert await run.go_on(old, TERMS) == Removal(users_left=1)
            await premises.hold(A)
            for _ in range(BOUND // BITE):
                left = await run.go_on(proof(premises, A), TERMS)
            assert left == Removal(users_left=1)
            assert await walk(run.unfinished()) == [A]

    async def test_he_counts_once(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, B)
        await add_large_user(premises, A)
        one = RemovalTerms.of(Deletion(), permitted=1)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            assert (await run.remove_users([proof(premises, A)], one)).users_unfinished == 1
            while (await run.go_on(proof(premises, A), one)).users_unfinished:
                pass
        assert (await weighed(premises, B))[0].removed == 1

    async def test_an_event_goes_on_with_the_same_claim_until_he_is_gone(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_large_user(premises, A)
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.DELETION)
        claim = await take_one(premises)
        first = await premises.inbox.settle_by_removal(claim, proof(premises, A), DELETION)
        assert first == Removal(rows=1 + BITE, users_unfinished=1)
        assert await premises.inbox.is_unfinished(A)
        await premises.inbox.go_on_later(claim)
        again = await take_one(premises)
        assert again == claim
        while (await premises.inbox.settle_by_removal(again, proof(premises, A), DELETION)).users_unfinished:
            pass
        assert not await premises.inbox.is_unfinished(A)
        assert await users(premises, DATA) == []
        await premises.let_pass(SECOND_SWEEP_DELAY)
        assert (await take_one(premises)).kind is ClaimKind.SECOND_SWEEP


class InboxContract:
    """Inherit it, with a fixture `premises`, not pinned."""

    async def test_a_profile_is_created_once_per_message(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        created = Delivery("msg_1", "user.created")
        assert await premises.inbox.create_profile(created, A) is Absorbed.CREATED
        assert await premises.inbox.create_profile(created, A) is Absorbed.REPEATED
        assert await premises.inbox.create_profile(Delivery("msg_2", "user.created"), A) is Absorbed.PRESENT
        assert await users(premises, PROFILE) == [A]

    async def test_a_claim_is_recorded_once_per_message(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        deleted = Delivery("msg_1", "user.deleted")
        assert await premises.inbox.record_claim(deleted, A, ClaimKind.DELETION) is Absorbed.CLAIMED
        assert await premises.inbox.record_claim(deleted, A, ClaimKind.DELETION) is Absorbed.REPEATED
        other = Delivery("msg_2", "user.created")
        assert await premises.inbox.record_claim(other, B, ClaimKind.CATCH_UP) is Absorbed.RECORDED
        assert [claim.user_id for claim in await premises.inbox.take_claims(10, LEASE)] == [A, B]

    async def test_a_taken_claim_is_nobody_elses_until_its_lease_is_over(self, premises: Premises) -> None:
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.DELETION)
        assert await premises.inbox.next_claim_due() == timedelta()
        claim = await take_one(premises)
        assert await premises.inbox.take_claims(10, LEASE) == []
        due = await premises.inbox.next_claim_due()
        assert due is not None
        assert LEASE - timedelta(seconds=30) < due <= LEASE
        await premises.let_pass(LEASE)
        assert await take_one(premises) == claim

    async def test_without_claims_none_is_due(self, premises: Premises) -> None:
        assert await premises.inbox.next_claim_due() is None

    async def test_a_settled_removal_ends_the_claim_and_buries_the_user(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.DELETION)
        claim = await take_one(premises)
        assert await premises.inbox.settle_by_removal(claim, proof(premises, A), DELETION) == Removal(users=1, rows=2)
        assert await premises.inbox.take_claims(10, LEASE) == []
        await premises.let_pass(SECOND_SWEEP_DELAY)
        sweep = await take_one(premises)
        assert (sweep.user_id, sweep.kind) == (A, ClaimKind.SECOND_SWEEP)
        assert await premises.inbox.is_swept(sweep)
        assert await premises.inbox.next_claim_due() is None
        late = Delivery("msg_0", "user.created")
        assert await premises.inbox.create_profile(late, A) is Absorbed.TOMBSTONED
        assert await users(premises, PROFILE) == await users(premises, DATA) == [B]

    async def test_a_proof_that_does_not_hold_leaves_user_and_claim(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.DELETION)
        claim = await take_one(premises)
        old = proof(premises, A)
        await premises.let_pass(MAX_AGE + timedelta(seconds=1))
        assert await premises.inbox.settle_by_removal(claim, old, DELETION) == Removal(users_left=1)
        assert await premises.inbox.next_claim_due() is not None
        assert await users(premises, PROFILE) == await users(premises, DATA) == [A]

    async def test_a_claim_is_settled_by_creation_once(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await premises.inbox.record_claim(Delivery("msg_1", "user.updated"), A, ClaimKind.CATCH_UP)
        assert await premises.inbox.settle_by_creation(await take_one(premises))
        assert await premises.inbox.next_claim_due() is None
        assert await users(premises, PROFILE) == [A]

    async def test_a_postponed_claim_counts_its_answers(self, premises: Premises) -> None:
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.DELETION)
        claim = await take_one(premises)
        await premises.inbox.postpone_claim(claim, timedelta(), answered_present=True)
        claim = await take_one(premises)
        assert (claim.attempts, claim.present_answers) == (0, 1)
        await premises.inbox.postpone_claim(claim, timedelta(), answered_present=False)
        claim = await take_one(premises)
        assert (claim.attempts, claim.present_answers) == (1, 1)

    async def test_a_postponed_claim_is_due_after_its_delay(self, premises: Premises) -> None:
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.DELETION)
        await premises.inbox.postpone_claim(await take_one(premises), timedelta(minutes=2), answered_present=True)
        assert await premises.inbox.take_claims(10, LEASE) == []
        await premises.let_pass(timedelta(minutes=2))
        assert (await take_one(premises)).user_id == A

    async def test_a_discarded_claim_touches_no_row(self, premises: Premises) -> None:
        await add_users(premises, A)
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.DELETION)
        await premises.inbox.discard_claim(await take_one(premises))
        assert await premises.inbox.next_claim_due() is None
        assert await users(premises, PROFILE) == await users(premises, DATA) == [A]

    async def test_a_claim_begun_anew_since_it_was_taken_is_not_discarded(self, premises: Premises) -> None:
        await premises.inbox.record_claim(Delivery("msg_1", "user.created"), A, ClaimKind.CREATION)
        claim = await take_one(premises)
        await premises.inbox.record_claim(Delivery("msg_2", "user.created"), A, ClaimKind.CREATION)
        await premises.inbox.discard_claim(claim)
        assert await premises.inbox.next_claim_due() == timedelta()

    async def test_a_claim_begun_anew_while_clerk_was_asked_outlasts_the_profile(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await premises.inbox.record_claim(Delivery("msg_1", "user.created"), A, ClaimKind.CATCH_UP)
        claim = await take_one(premises)
        await premises.inbox.record_claim(Delivery("msg_2", "user.deleted"), A, ClaimKind.CATCH_UP)
        again = await take_one(premises)
        assert await premises.inbox.settle_by_creation(claim)
        assert await premises.inbox.next_claim_due() == timedelta()
        assert (await premises.inbox.settle_by_removal(again, proof(premises, A), DELETION)).users == 1
        assert await users(premises, PROFILE) == []

    async def test_a_claim_in_holdback_is_due_when_that_is_over(self, premises: Premises) -> None:
        holdback = timedelta(days=30)
        deleted = Delivery("msg_1", "user.deleted")
        assert await premises.inbox.record_claim(deleted, A, ClaimKind.HOLDBACK, holdback) is Absorbed.HELD
        assert await premises.inbox.record_claim(deleted, A, ClaimKind.HOLDBACK, holdback) is Absorbed.REPEATED
        await premises.let_pass(holdback - timedelta(minutes=1))
        assert await premises.inbox.is_held_back(A)
        assert await premises.inbox.take_claims(10, LEASE) == []
        await premises.let_pass(timedelta(minutes=1))
        claim = await take_one(premises)
        assert (claim.user_id, claim.kind) == (A, ClaimKind.HOLDBACK)

    async def test_another_message_does_not_begin_a_holdback_anew(self, premises: Premises) -> None:
        for hour in (0, 2):
            await premises.let_pass(timedelta(hours=hour))
            deleted = Delivery(f"msg_{hour}", "user.deleted")
            await premises.inbox.record_claim(deleted, A, ClaimKind.HOLDBACK, timedelta(hours=24))
        await premises.let_pass(timedelta(hours=22))
        assert (await take_one(premises)).user_id == A

    async def test_a_claim_in_holdback_that_was_taken_is_postponed_as_any_other(self, premises: Premises) -> None:
        await premises.inbox.record_claim(
            Delivery("msg_1", "user.deleted"), A, ClaimKind.HOLDBACK, timedelta(minutes=1)
        )
        await premises.let_pass(timedelta(minutes=1))
        await premises.inbox.postpone_claim(await take_one(premises), timedelta(minutes=2), answered_present=True)
        await premises.let_pass(timedelta(minutes=2))
        assert (await take_one(premises)).present_answers == 1

    async def test_a_doubted_sign_up_is_recorded_as_such(self, premises: Premises) -> None:
        created = Delivery("msg_1", "user.created")
        assert await premises.inbox.record_claim(created, A, ClaimKind.CREATION) is Absorbed.DOUBTED
        assert (await take_one(premises)).kind is ClaimKind.CREATION

    async def test_a_backlog_counts_the_claims_by_kind_and_says_how_old_the_oldest_is(self, premises: Premises) -> None:
        assert await premises.inbox.backlog() == Backlog()
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.DELETION)
        await premises.let_pass(timedelta(minutes=5))
        for number, user in enumerate((B, C)):
            await premises.inbox.record_claim(Delivery(f"msg_{user}", "user.created"), user, ClaimKind.CREATION)
            backlog = await premises.inbox.backlog()
            assert backlog.waiting == {ClaimKind.DELETION: 1, ClaimKind.CREATION: number + 1}
            assert timedelta(minutes=5) <= backlog.oldest < timedelta(minutes=6)
            assert backlog.held_back == 0

    async def test_what_waits_on_purpose_is_not_overdue(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.DELETION)
        await premises.inbox.hold_claim(await take_one(premises), timedelta(hours=1))
        await premises.inbox.record_claim(Delivery("msg_2", "user.deleted"), B, ClaimKind.DELETION)
        await premises.inbox.settle_by_removal(await take_one(premises), proof(premises, B), DELETION)
        await premises.inbox.record_claim(Delivery("msg_3", "user.deleted"), C, ClaimKind.HOLDBACK, timedelta(days=1))
        await premises.let_pass(timedelta(minutes=5))
        backlog = await premises.inbox.backlog()
        assert backlog.waiting == {ClaimKind.DELETION: 1, ClaimKind.SECOND_SWEEP: 1, ClaimKind.HOLDBACK: 1}
        assert (backlog.held_back, backlog.oldest) == (1, timedelta())

    async def test_a_claim_is_overdue_from_the_end_of_its_holdback(self, premises: Premises) -> None:
        await premises.inbox.record_claim(Delivery("msg_1", "user.deleted"), A, ClaimKind.HOLDBACK, timedelta(days=1))
        await premises.let_pass(timedelta(days=1))
        await take_one(premises)
        await premises.let_pass(timedelta(minutes=5))
        assert timedelta(minutes=5) <= (await premises.inbox.backlog()).oldest < timedelta(minutes=6)
