"""The contract of `Run` and `Inbox` where columns are mapped, for the fake and for PostgreSQL alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from controller.core.claims import ClaimKind
from controller.core.events import Delivery
from controller.core.mapping import Field, MappedColumn
from controller.core.outcomes import Absorbed, Removal, Updating
from controller.core.targets import DEFAULT_TABLES, Role, Table, Target
from controller.core.users import Profile
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
    D,
    Premises,
    proof,
    take_one,
    users,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.ports import Run
    from controller.core.users import UserId

MAPPING = (
    MappedColumn("email", Field(("primaryEmailAddress",))),
    MappedColumn("plan", Field(("publicMetadata", "plan"))),
)
MAPPED = Target(tables=(Table(PROFILE, Role.PROFILE, values=MAPPING), *DEFAULT_TABLES[1:]))
LONG_AGO, NOW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
T1, T2, T3 = (int(LONG_AGO.timestamp() * 1000) + number for number in (1, 2, 3))
JUST_NOW = int(NOW.timestamp() * 1000)
OLD, NEW = ("old@example.com", "free"), ("new@example.com", "pro")
NOTHING = (None, None)


class MappedPremises(Premises, Protocol):
    """A store of MAPPED."""

    async def values(self, user_id: UserId) -> list[tuple[Any, ...]]:
        """Return the mapped columns of each profile row of a user."""

    async def set_values(self, user_id: UserId, *values: Any) -> None:
        """Set the mapped columns of a user's rows, as anybody can."""

    async def take_rows(self, table: str, user_id: UserId) -> None:
        """Delete a user's rows of a table, as anybody can."""


async def observe(run: Run, *profiles: Profile) -> int:
    """Record a listing and compare; returns how many are outdated."""
    await run.record_listed([profile.user_id for profile in profiles])
    await run.record_values(profiles)
    return (await run.observe()).outdated


async def update(run: Run, confirmed: Sequence[Profile] = ()) -> Updating:
    """Bring all in step who are behind."""
    updated = Updating()
    async for batch in run.behind():
        updated += await run.update_profiles(batch, confirmed, NOW)
    return updated


class Events:
    """Sends messages about users, each with an id of its own."""

    def __init__(self, premises: MappedPremises) -> None:
        self.premises = premises
        self.sent = 0

    async def tell(self, profile: Profile, message_id: str | None = None, *, inserts: bool = True) -> Absorbed:
        self.sent += 1
        delivery = Delivery(message_id or f"msg_{self.sent}", "user.updated")
        return await self.premises.inbox.update_profile(delivery, profile, inserts=inserts)


@pytest.fixture
async def events(premises: MappedPremises) -> Events:
    """Messages to a target that is pinned."""
    await premises.store.pin_instance(INSTANCE)
    return Events(premises)


class MappedInboxContract:
    """Inherit it, with a fixture `premises`, not pinned."""

    async def test_the_first_event_inserts_the_row_with_its_values(
        self, premises: MappedPremises, events: Events
    ) -> None:
        assert await events.tell(Profile(A, T1, OLD)) is Absorbed.CREATED
        assert await premises.values(A) == [OLD]

    async def test_a_row_that_is_missing_is_not_inserted_unasked_by_an_update(
        self, premises: MappedPremises, events: Events
    ) -> None:
        assert await events.tell(Profile(A, T1, OLD), inserts=False) is Absorbed.DOUBTED
        assert await premises.values(A) == []
        claim = await take_one(premises)
        assert not await premises.inbox.settle_by_update(claim, Profile(A, T1, OLD), inserts=False)
        assert await premises.values(A) == []
        assert await events.tell(Profile(A, T1, OLD), inserts=False) is Absorbed.DOUBTED
        assert await premises.inbox.settle_by_update(await take_one(premises), Profile(A, T1, OLD))
        assert await premises.values(A) == [OLD]

    async def test_a_message_has_its_effect_once(self, premises: MappedPremises, events: Events) -> None:
        await events.tell(Profile(A, T1, OLD), "msg_same")
        await premises.set_values(A, *NOTHING)
        assert await events.tell(Profile(A, T2, NEW), "msg_same") is Absorbed.REPEATED
        assert await premises.values(A) == [NOTHING]

    async def test_a_later_event_is_written_and_an_earlier_one_is_not(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await events.tell(Profile(A, T2, OLD))
        assert await events.tell(Profile(A, T3, NEW)) is Absorbed.UPDATED
        assert await events.tell(Profile(A, T1, NOTHING)) is Absorbed.OLDER
        assert await premises.values(A) == [NEW]

    async def test_a_missing_field_becomes_null(self, premises: MappedPremises, events: Events) -> None:
        await events.tell(Profile(A, T1, OLD))
        await events.tell(Profile(A, T2, (None, "free")))
        assert await premises.values(A) == [(None, "free")]

    async def test_the_same_values_again_are_in_step_whatever_their_version(self, events: Events) -> None:
        await events.tell(Profile(A, T2, OLD))
        assert await events.tell(Profile(A, T2, OLD)) is Absorbed.PRESENT
        assert await events.tell(Profile(A, T3, OLD)) is Absorbed.PRESENT
        assert await events.tell(Profile(A, T2, NEW)) is Absorbed.OLDER

    async def test_other_values_of_the_same_millisecond_are_asked_for(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await events.tell(Profile(A, T1, OLD))
        assert await events.tell(Profile(A, T1, NEW)) is Absorbed.DOUBTED
        assert await premises.values(A) == [OLD]
        claim = await take_one(premises)
        assert (claim.user_id, claim.kind) == (A, ClaimKind.REFRESH)
        assert await premises.inbox.settle_by_update(claim, Profile(A, T1, NEW))
        assert await premises.values(A) == [NEW]
        assert await premises.inbox.next_claim_due() is None

    async def test_values_over_a_row_of_no_known_version_are_asked_for(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await premises.add_row(PROFILE, A)
        assert await events.tell(Profile(A, T1, OLD)) is Absorbed.DOUBTED
        assert await premises.values(A) == [NOTHING]

    async def test_an_event_about_a_row_that_is_gone_is_asked_for_where_it_is_not_the_latest(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await events.tell(Profile(A, T2, NEW))
        await premises.take_rows(PROFILE, A)
        assert await events.tell(Profile(A, T1, OLD)) is Absorbed.DOUBTED
        assert await premises.inbox.settle_by_update(await take_one(premises), Profile(A, T2, NEW))
        assert await premises.values(A) == [NEW]

    async def test_a_row_inserted_from_an_older_answer_does_not_take_the_version_back(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await events.tell(Profile(A, T3, NEW))
        await premises.take_rows(PROFILE, A)
        await events.tell(Profile(A, T1, OLD))
        assert await premises.inbox.settle_by_update(await take_one(premises), Profile(A, T1, OLD))
        assert await premises.values(A) == [OLD]
        assert await events.tell(Profile(A, T2, NOTHING)) is Absorbed.OLDER

    async def test_an_answer_older_than_what_was_written_meanwhile_is_not_written(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await events.tell(Profile(A, T1, OLD))
        await events.tell(Profile(A, T1, NOTHING))
        claim = await take_one(premises)
        await events.tell(Profile(A, T3, NEW))
        assert not await premises.inbox.settle_by_update(claim, Profile(A, T2, OLD))
        assert await premises.values(A) == [NEW]
        assert await premises.inbox.next_claim_due() is None

    async def test_a_claim_begun_anew_while_clerk_was_asked_stays(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await events.tell(Profile(A, T1, OLD))
        await events.tell(Profile(A, T1, NOTHING))
        claim = await take_one(premises)
        assert await events.tell(Profile(A, T1, NEW)) is Absorbed.DOUBTED
        again = await take_one(premises)
        await premises.inbox.settle_by_update(claim, Profile(A, T1, NOTHING))
        assert await premises.inbox.next_claim_due() == timedelta()
        await premises.inbox.settle_by_update(again, Profile(A, T1, NEW))
        assert await premises.inbox.next_claim_due() is None

    async def test_an_answer_to_a_claim_that_another_worker_has_ended_since_is_not_written(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await events.tell(Profile(A, T1, OLD))
        await events.tell(Profile(A, T1, NOTHING))
        stalled = await take_one(premises)
        await events.tell(Profile(A, T1, NEW))
        assert await premises.inbox.settle_by_update(await take_one(premises), Profile(A, T1, NEW))
        assert not await premises.inbox.settle_by_update(stalled, Profile(A, T1, NOTHING))
        assert await premises.values(A) == [NEW]

    async def test_a_buried_user_gets_neither_row_nor_values(self, premises: MappedPremises, events: Events) -> None:
        await events.tell(Profile(A, T1, OLD))
        await events.tell(Profile(A, T1, NEW))
        asked = await take_one(premises)
        await premises.inbox.record_claim(Delivery("msg_gone", "user.deleted"), A, ClaimKind.DELETION)
        removal = await premises.inbox.settle_by_removal(await take_one(premises), proof(premises, A), DELETION)
        assert removal == Removal(users=1, rows=1)
        assert await events.tell(Profile(A, T3, NEW)) is Absorbed.TOMBSTONED
        assert not await premises.inbox.settle_by_update(asked, Profile(A, T3, NEW))
        assert await users(premises, PROFILE) == []

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    async def test_events_in_any_order_and_repeated_end_in_the_latest(
        self, premises: MappedPremises, events: Events, order: tuple[int, ...]
    ) -> None:
        told = [Profile(A, T1, OLD), Profile(A, T2, NOTHING), Profile(A, T3, NEW)]
        for number in (*order, *order):
            await events.tell(told[number], f"msg_{number}")
        for claim in await premises.inbox.take_claims(10, LEASE):
            await premises.inbox.settle_by_update(claim, told[-1])
        assert await premises.values(A) == [NEW]


class MappedRunContract:
    """Inherit it, with a fixture `premises`, not pinned."""

    async def test_a_missing_row_is_inserted_with_its_values(self, premises: MappedPremises, events: Events) -> None:
        async with premises.store.begin_run(LABEL) as run:
            assert await observe(run, Profile(A, T2, OLD), Profile(B, T1, NOTHING)) == 0
            assert await run.create_profiles([A, B]) == 2
            assert (await run.observe()).total == 0
        assert (await premises.values(A), await premises.values(B)) == ([OLD], [NOTHING])
        assert await events.tell(Profile(A, T1, NEW)) is Absorbed.OLDER

    @pytest.mark.usefixtures("events")
    async def test_columns_that_differ_are_outdated_and_brought_in_step(self, premises: MappedPremises) -> None:
        for user_id in (A, B, C):
            await premises.add_row(PROFILE, user_id)
        await premises.set_values(B, *OLD)
        async with premises.store.begin_run(LABEL) as run:
            listed = [Profile(A, T1, NEW), Profile(B, T1, OLD), Profile(C, T1, NOTHING), Profile(D, T1, NEW)]
            assert await observe(run, *listed) == 1
            assert await walk(run.outdated()) == [A]
            assert await walk(run.missing()) == [D]
            assert await update(run) == Updating(1)
            assert (await run.observe()).outdated == 0
        assert await premises.values(A) == [NEW]
        assert await premises.values(D) == []

    async def test_what_was_changed_by_hand_is_mended_as_it_was_listed(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await events.tell(Profile(A, T1, OLD))
        await premises.set_values(A, "by@hand", "pro")
        async with premises.store.begin_run(LABEL) as run:
            assert await observe(run, Profile(A, T1, OLD)) == 1
            assert await run.doubtful([A], NOW) == []
            assert await update(run) == Updating(1)
        assert await premises.values(A) == [OLD]

    async def test_a_listing_of_the_very_millisecond_that_is_noted_is_in_doubt_while_it_is_young(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await events.tell(Profile(A, JUST_NOW, NEW))
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, Profile(A, JUST_NOW, OLD))
            assert await run.doubtful([A], NOW) == [A]
            assert await update(run) == Updating(0)
            assert await premises.values(A) == [NEW]
            assert await update(run, [Profile(A, JUST_NOW, NOTHING)]) == Updating(1)
        assert await premises.values(A) == [NOTHING]

    async def test_what_an_event_wrote_after_the_listing_stays(self, premises: MappedPremises, events: Events) -> None:
        await events.tell(Profile(A, T1, OLD))
        async with premises.store.begin_run(LABEL) as run:
            assert await observe(run, Profile(A, T2, NOTHING)) == 1
            # as it is: one of long ago would have been listed
            await events.tell(Profile(A, int(datetime.now(UTC).timestamp() * 1000), NEW))
            assert await update(run) == Updating(0)
            assert (await run.observe()).outdated == 0
        assert await premises.values(A) == [NEW]

    async def test_an_event_older_than_a_listing_that_was_in_step_is_not_written(
        self, premises: MappedPremises, events: Events
    ) -> None:
        await events.tell(Profile(A, T1, OLD))
        async with premises.store.begin_run(LABEL) as run:
            assert await observe(run, Profile(A, T3, OLD)) == 0
            assert await walk(run.outdated()) == []
            assert await walk(run.behind()) == [A]
            assert await update(run) == Updating(0)
        assert await events.tell(Profile(A, T2, NEW)) is Absorbed.OLDER

    @pytest.mark.usefixtures("events")
    async def test_who_is_listed_twice_counts_as_he_was_listed_later(self, premises: MappedPremises) -> None:
        await premises.add_row(PROFILE, A)
        await premises.set_values(A, *NEW)
        async with premises.store.begin_run(LABEL) as run:
            assert await observe(run, Profile(A, T1, OLD), Profile(A, T2, NEW)) == 0
            assert await walk(run.behind()) == []

    @pytest.mark.usefixtures("events")
    async def test_a_buried_user_is_not_outdated(self, premises: MappedPremises) -> None:
        await premises.add_row(DATA, A)
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, Profile(B, T1, OLD))
            await run.remove_users([proof(premises, A)], TERMS)
        await premises.add_row(PROFILE, A)
        async with premises.store.begin_run(LABEL) as run:
            assert await observe(run, Profile(A, T1, OLD)) == 0

    @pytest.mark.usefixtures("events")
    async def test_all_rows_of_a_user_are_brought_in_step(self, premises: MappedPremises) -> None:
        await premises.add_row(PROFILE, A)
        await premises.set_values(A, *OLD)
        await premises.add_row(PROFILE, A)
        async with premises.store.begin_run(LABEL) as run:
            assert await observe(run, Profile(A, T1, OLD)) == 1
            assert await update(run) == Updating(1)
        assert await premises.values(A) == [OLD, OLD]

    @pytest.mark.usefixtures("events")
    async def test_who_was_removed_since_the_listing_is_neither_inserted_nor_written(
        self, premises: MappedPremises
    ) -> None:
        for user_id in (A, C):
            await premises.add_row(PROFILE, user_id)
        async with premises.store.begin_run(LABEL) as run:
            assert await observe(run, Profile(A, T1, NEW), Profile(B, T1, NEW), Profile(C, T1, NEW)) == 2
            assert await run.remove_users([proof(premises, A), proof(premises, B)], TERMS) == Removal(users=2, rows=1)
            await premises.add_row(PROFILE, A)
            assert await run.create_profiles([B]) == 0
            assert await update(run) == Updating(1)
        assert (await premises.values(A), await premises.values(B)) == ([NOTHING], [])
        assert await premises.values(C) == [NEW]

    async def test_a_row_that_the_application_inserted_meanwhile_is_of_no_known_version(
        self, premises: MappedPremises, events: Events
    ) -> None:
        async with premises.store.begin_run(LABEL) as run:
            await observe(run, Profile(A, T2, NEW))
            await premises.add_row(PROFILE, A)
            assert await run.create_profiles([A]) == 0
        assert await events.tell(Profile(A, T1, OLD)) is Absorbed.DOUBTED
