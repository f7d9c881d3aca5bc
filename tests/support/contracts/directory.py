"""The contract of `controller.core.ports.Directory`, for the fake and for the real client alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import pytest

from controller.core.mapping import Field, MappedColumn
from controller.core.users import Instance, Presence, Profile, UserId
from controller.errors import ClerkAnswerOdd, ClerkRefused, ListingIncomplete

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.leaving import Accounts
    from controller.core.ports import Directory
    from controller.core.users import ListedUser

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
MAPPING = (MappedColumn("email", Field(("primaryEmailAddress",))), MappedColumn("name", Field(("firstName",))))
UPDATED = 1_750_000_000_123


class Population(Protocol):
    """The instance behind a directory, as a test changes it."""

    directory: Directory
    accounts: Accounts
    instance: Instance

    def sign_up(self, count: int, since: datetime) -> list[UserId]:
        """Let users sign up, a second apart; return their ids, oldest first."""

    def delete(self, user_ids: Sequence[UserId]) -> None:
        """Delete living users."""

    def hide_from_filter(self, user_id: UserId) -> None:
        """Let the filter leave out a living user."""

    def cut_listing_short(self) -> None:
        """Let the listing end before all users are listed."""

    def refuse_deletion(self) -> None:
        """Let Clerk refuse to delete anybody."""

    def answer_oddly(self, user_id: UserId) -> None:
        """Let a look-up of the user answer with something else."""


class MappedPopulation(Population, Protocol):
    """One whose directory maps MAPPING."""

    def edit(self, user_id: UserId, updated_at: int, address: str | None, name: str | None) -> None:
        """Change what is mapped of a user."""


async def listing(directory: Directory) -> list[ListedUser]:
    """Return all users, in the order they came."""
    return [user async for page in directory.list_users() for user in page]


class DirectoryContract:
    """Inherit it, with a fixture `population`."""

    async def test_the_instance_is_the_one_of_the_key(self, population: Population) -> None:
        assert await population.directory.instance() == population.instance

    async def test_an_empty_instance_lists_no_page(self, population: Population) -> None:
        assert [page async for page in population.directory.list_users()] == []

    @pytest.mark.parametrize("count", [1, 499, 500, 501, 1000, 1234])
    async def test_every_user_is_listed_once(self, population: Population, count: int) -> None:
        ids = population.sign_up(count, FIRST)

        listed = await listing(population.directory)

        assert sorted(user.id for user in listed) == sorted(ids)

    async def test_a_listed_user_has_the_time_of_creation(self, population: Population) -> None:
        ids = population.sign_up(2, FIRST)

        listed = await listing(population.directory)

        assert {user.id: user.created_at for user in listed} == {ids[0]: FIRST, ids[1]: FIRST + timedelta(seconds=1)}

    async def test_a_deleted_user_is_not_listed(self, population: Population) -> None:
        ids = population.sign_up(3, FIRST)
        population.delete(ids[1:2])

        assert {user.id for user in await listing(population.directory)} == {ids[0], ids[2]}

    async def test_a_listing_cut_short_is_incomplete(self, population: Population) -> None:
        population.sign_up(20, FIRST)
        population.cut_listing_short()

        with pytest.raises(ListingIncomplete):
            await listing(population.directory)

    async def test_find_returns_those_who_exist_with_the_time_of_creation(self, population: Population) -> None:
        ids = population.sign_up(3, FIRST)
        population.delete(ids[2:])

        found = await population.directory.find([*ids, UserId("user_2nobody")])

        assert found == {ids[0]: FIRST, ids[1]: FIRST + timedelta(seconds=1)}

    @pytest.mark.parametrize("count", [11, 100, 101, 950])
    async def test_find_takes_any_number_of_users(self, population: Population, count: int) -> None:
        ids = population.sign_up(count, FIRST)

        assert set(await population.directory.find(ids)) == set(ids)

    async def test_find_of_nobody_finds_nobody(self, population: Population) -> None:
        population.sign_up(1, FIRST)

        assert await population.directory.find([]) == {}

    async def test_find_leaves_out_whom_the_filter_hides(self, population: Population) -> None:
        ids = population.sign_up(2, FIRST)
        population.hide_from_filter(ids[0])

        assert set(await population.directory.find(ids)) == {ids[1]}

    async def test_a_living_user_is_present(self, population: Population) -> None:
        ids = population.sign_up(1, FIRST)

        assert await population.directory.look_up(ids[0]) is Presence.PRESENT

    async def test_a_deleted_user_is_absent(self, population: Population) -> None:
        ids = population.sign_up(1, FIRST)
        population.delete(ids)

        assert await population.directory.look_up(ids[0]) is Presence.ABSENT

    async def test_an_odd_answer_to_a_look_up_is_neither(self, population: Population) -> None:
        ids = population.sign_up(1, FIRST)
        population.answer_oddly(ids[0])

        with pytest.raises(ClerkAnswerOdd):
            await population.directory.look_up(ids[0])

    async def test_a_user_is_deleted_and_absent_then(self, population: Population) -> None:
        ids = population.sign_up(2, FIRST)

        await population.accounts.delete_user(ids[0])

        assert await population.directory.look_up(ids[0]) is Presence.ABSENT
        assert await population.directory.look_up(ids[1]) is Presence.PRESENT

    async def test_who_is_gone_already_is_deleted(self, population: Population) -> None:
        ids = population.sign_up(1, FIRST)
        population.delete(ids)

        await population.accounts.delete_user(ids[0])

        assert await population.directory.look_up(ids[0]) is Presence.ABSENT

    async def test_a_refused_deletion_deletes_nobody(self, population: Population) -> None:
        ids = population.sign_up(1, FIRST)
        population.refuse_deletion()

        with pytest.raises(ClerkRefused):
            await population.accounts.delete_user(ids[0])

        assert await population.directory.look_up(ids[0]) is Presence.PRESENT

    async def test_the_signing_keys_are_named_after_the_instance(self, population: Population) -> None:
        assert {key.id for key in await population.accounts.signing_keys()} == {population.instance.id}


class MappedDirectoryContract:
    """Inherit it, with a fixture `population` that is mapped."""

    async def test_a_listed_user_has_what_is_mapped(self, population: MappedPopulation) -> None:
        ids = population.sign_up(2, FIRST)
        population.edit(ids[0], UPDATED, "ada@example.com", "Ada")
        population.edit(ids[1], UPDATED + 1, None, None)

        listed = await listing(population.directory)

        assert population.directory.maps
        assert {user.id: user.profile for user in listed} == {
            ids[0]: Profile(ids[0], UPDATED, ("ada@example.com", "Ada")),
            ids[1]: Profile(ids[1], UPDATED + 1, (None, None)),
        }

    @pytest.mark.parametrize("count", [1, 101])
    async def test_profiles_are_found_of_those_who_exist(self, population: MappedPopulation, count: int) -> None:
        gone, *ids = population.sign_up(count + 1, FIRST)
        for number, user_id in enumerate(ids):
            population.edit(user_id, UPDATED + number, None, f"name {number}")
        population.delete([gone])

        found = await population.directory.profiles([gone, *ids])

        assert {profile.user_id: profile for profile in found} == {
            user_id: Profile(user_id, UPDATED + number, (None, f"name {number}")) for number, user_id in enumerate(ids)
        }

    async def test_the_profile_of_one_user_is_found_or_he_is_absent(self, population: MappedPopulation) -> None:
        ids = population.sign_up(2, FIRST)
        population.edit(ids[0], UPDATED, "ada@example.com", None)
        population.delete(ids[1:])

        assert await population.directory.profile(ids[0]) == Profile(ids[0], UPDATED, ("ada@example.com", None))
        assert await population.directory.profile(ids[1]) is None

    async def test_an_odd_answer_about_a_profile_is_neither(self, population: MappedPopulation) -> None:
        ids = population.sign_up(1, FIRST)
        population.answer_oddly(ids[0])

        with pytest.raises(ClerkAnswerOdd):
            await population.directory.profile(ids[0])
