"""The contract of `Inbox` for users who leave on their own request, for the fake and for PostgreSQL alike."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from controller.core.absorbing import SECOND_SWEEP_DELAY
from controller.core.claims import ClaimKind
from controller.core.events import Delivery
from controller.core.leaving import FOR_GOOD, OWN_REQUEST
from controller.core.outcomes import Removal
from controller.core.removals import RemovalTerms
from controller.core.targets import Deletion, DeletionPolicy, Limits, Policy
from tests.support.contracts.store import (
    DATA,
    DELETION,
    INSTANCE,
    LABEL,
    LEASE,
    PROFILE,
    TERMS,
    A,
    B,
    C,
    add_large_user,
    add_users,
    observe,
    proof,
    take_one,
    users,
)

if TYPE_CHECKING:
    from controller.core.claims import Claim
    from controller.core.users import UserId
    from tests.support.contracts.store import Premises

RETAIN = Deletion(DeletionPolicy.RETAIN)
RETAINING = RemovalTerms.of(RETAIN, permitted=None)
STRICT = Deletion(limits=Limits(users=1, percent=100))


async def requested(premises: Premises, user_id: UserId = A) -> Claim:
    """The claim of a user who asks."""
    claim = await premises.inbox.request_removal(user_id, LEASE)
    assert claim is not None
    return claim


async def announced(premises: Premises, user_id: UserId = A, message_id: str = "msg_1") -> Claim:
    """The claim of an event about a user, taken."""
    await premises.inbox.record_claim(Delivery(message_id, "user.deleted"), user_id, ClaimKind.DELETION)
    claims = await premises.inbox.take_claims(10, LEASE)
    return next(claim for claim in claims if claim.user_id == user_id)


async def left(premises: Premises, user_id: UserId = A) -> None:
    """A user who has left on his own request."""
    claim = await requested(premises, user_id)
    assert (await premises.inbox.settle_by_removal(claim, proof(premises, user_id), FOR_GOOD)).users == 1


class LeavingContract:
    """Inherit it, with a fixture `premises`, not pinned."""

    async def test_a_request_is_leased_to_whoever_stored_it(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        claim = await requested(premises)
        assert (claim.user_id, claim.kind) == (A, ClaimKind.OWN_REQUEST)
        assert await premises.inbox.take_claims(10, LEASE) == []
        await premises.let_pass(LEASE)
        assert await take_one(premises) == claim

    async def test_asked_twice_it_is_one_request_that_begins_anew(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        first = await requested(premises)
        await premises.inbox.postpone_claim(first, timedelta(minutes=10), answered_present=False)
        assert await requested(premises) == first
        await premises.let_pass(LEASE)
        assert await take_one(premises) == first

    async def test_before_and_while_it_is_asked_there_is_no_receipt(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        assert await premises.inbox.receipt_of_request(A) is None
        await requested(premises)
        assert await premises.inbox.receipt_of_request(A) is None

    async def test_he_is_erased_with_his_receipt_and_looked_at_again(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        claim = await requested(premises)
        removal = await premises.inbox.settle_by_removal(claim, proof(premises, A), FOR_GOOD)
        assert removal == Removal(users=1, rows=2)
        receipt = await premises.inbox.receipt_of_request(A)
        assert receipt is not None
        assert (receipt.act, receipt.reason, receipt.requested_by) == ("erased", "requested", OWN_REQUEST)
        assert (receipt.rows, receipt.counted) == ({PROFILE: 1, DATA: 1}, False)
        assert receipt.link is not None
        assert await users(premises, PROFILE) == [B]
        await premises.let_pass(SECOND_SWEEP_DELAY)
        assert (await take_one(premises)).kind is ClaimKind.SECOND_SWEEP

    async def test_asked_again_afterwards_there_is_nothing_to_do(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        await left(premises)
        receipt = await premises.inbox.receipt_of_request(A)
        assert await premises.inbox.request_removal(A, LEASE) is None
        assert await premises.inbox.receipt_of_request(A) == receipt

    async def test_it_is_beyond_the_limits_and_uses_nothing_of_them(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B, C)
        first = await announced(premises, A)
        assert (await premises.inbox.settle_by_removal(first, proof(premises, A), STRICT)).users == 1
        await left(premises, B)
        third = await announced(premises, C, "msg_2")
        assert (await premises.inbox.settle_by_removal(third, proof(premises, C), STRICT)).limit_reached
        more = replace(STRICT, limits=Limits(users=2, percent=100))
        assert (await premises.inbox.settle_by_removal(third, proof(premises, C), more)).users == 1

    async def test_the_event_that_overtakes_it_erases_on_his_request(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        own = await requested(premises)
        event = await announced(premises)
        assert await premises.inbox.settle_by_removal(event, proof(premises, A), DELETION) == Removal(users=1, rows=2)
        receipt = await premises.inbox.receipt_of_request(A)
        assert receipt is not None
        assert receipt.rows == {PROFILE: 1, DATA: 1}
        assert await premises.inbox.settle_by_removal(own, proof(premises, A), FOR_GOOD) == Removal(users_left=1)
        assert await premises.inbox.receipt_of_request(A) == receipt

    async def test_the_event_that_follows_it_changes_nothing(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        await left(premises)
        receipt = await premises.inbox.receipt_of_request(A)
        event = await announced(premises)
        assert await premises.inbox.settle_by_removal(event, proof(premises, A), DELETION) == Removal(users=1)
        assert await premises.inbox.receipt_of_request(A) == receipt
        assert [claim.kind for claim in await premises.inbox.take_claims(10, LEASE)] == []

    async def test_archived_by_an_event_before_he_can_still_ask(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        event = await announced(premises)
        await premises.inbox.settle_by_removal(event, proof(premises, A), DELETION)
        assert await premises.inbox.receipt_of_request(A) is None
        await left(premises)
        receipt = await premises.inbox.receipt_of_request(A)
        assert receipt is not None
        assert receipt.rows == {}

    async def test_a_run_that_removes_him_meanwhile_leaves_his_request_standing(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        own = await requested(premises)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            assert (await run.remove_users([proof(premises, A)], TERMS)).users == 1
        assert await premises.inbox.receipt_of_request(A) is None
        assert (await premises.inbox.settle_by_removal(own, proof(premises, A), FOR_GOOD)).users == 1
        assert await premises.inbox.receipt_of_request(A) is not None

    async def test_a_lifted_request_is_gone(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        claim = await requested(premises)
        assert await premises.inbox.lift_request(claim)
        assert await premises.inbox.next_claim_due() is None
        assert await users(premises, PROFILE) == [A]

    async def test_a_request_that_clerk_has_carried_out_is_not_lifted(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        claim = await requested(premises)
        await premises.inbox.keep_request(claim)
        assert await requested(premises) == claim
        assert not await premises.inbox.lift_request(claim)
        await premises.let_pass(LEASE)
        assert await premises.inbox.take_claims(10, LEASE) == [claim]

    async def test_the_request_of_a_buried_user_is_not_lifted(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        claim = await requested(premises)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, B)
            await run.remove_users([proof(premises, A)], TERMS)
        assert not await premises.inbox.lift_request(claim)
        await premises.let_pass(LEASE)
        assert claim in await premises.inbox.take_claims(10, LEASE)

    async def test_under_retain_a_run_erases_what_was_written_of_him_since_and_keeps_what_is_of_others(
        self, premises: Premises
    ) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A, B)
        await left(premises)
        await premises.add_row(DATA, A)
        async with premises.store.begin_run(replace(LABEL, policy=Policy(deletion=RETAIN))) as run:
            await observe(run, C)
            drift = await run.observe()
            assert (drift.orphaned, drift.retained) == (2, 0)
            done = await run.remove_users([proof(premises, A), proof(premises, B)], RETAINING)
            assert done == Removal(users=2, rows=1)
            drift = await run.observe()
        assert (drift.orphaned, drift.retained) == (0, 1)
        assert await users(premises, DATA) == [B]

    async def test_under_retain_an_event_erases_what_was_written_of_him_since(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_users(premises, A)
        await left(premises)
        await premises.add_row(DATA, A)
        event = await announced(premises)
        assert await premises.inbox.settle_by_removal(event, proof(premises, A), RETAIN) == Removal(users=1, rows=1)
        assert await users(premises, DATA) == []


class LargeLeavingContract:
    """Inherit it, with a fixture `premises` of small bounds, not pinned."""

    async def test_a_user_with_very_many_rows_is_gone_only_at_the_end(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_large_user(premises, A)
        claim = await requested(premises)
        assert (await premises.inbox.settle_by_removal(claim, proof(premises, A), FOR_GOOD)).users_unfinished == 1
        assert await premises.inbox.receipt_of_request(A) is None
        while (await premises.inbox.settle_by_removal(claim, proof(premises, A), FOR_GOOD)).users_unfinished:
            pass
        receipt = await premises.inbox.receipt_of_request(A)
        assert receipt is not None
        assert receipt.requested_by == OWN_REQUEST
        assert await users(premises, DATA) == []

    async def test_a_request_takes_over_what_an_event_has_begun(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_large_user(premises, A)
        event = await announced(premises)
        assert (await premises.inbox.settle_by_removal(event, proof(premises, A), DELETION)).users_unfinished == 1
        await requested(premises)
        while (await premises.inbox.settle_by_removal(event, proof(premises, A), DELETION)).users_unfinished:
            pass
        assert await premises.inbox.receipt_of_request(A) is not None

    async def test_a_run_goes_on_with_it_on_his_request(self, premises: Premises) -> None:
        await premises.store.pin_instance(INSTANCE)
        await add_large_user(premises, A)
        claim = await requested(premises)
        assert (await premises.inbox.settle_by_removal(claim, proof(premises, A), FOR_GOOD)).users_unfinished == 1
        one = RemovalTerms.of(Deletion(), permitted=1)
        async with premises.store.begin_run(LABEL) as run:
            while (await run.go_on(proof(premises, A), one)).users_unfinished:
                pass
        receipt = await premises.inbox.receipt_of_request(A)
        assert receipt is not None
        assert receipt.requested_by == OWN_REQUEST
