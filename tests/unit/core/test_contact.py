"""First contact, and every later one."""

from __future__ import annotations

import pytest

from controller.core.contact import SAMPLE, establish
from controller.errors import ClerkUnavailable, UnknownPopulation, WrongInstance
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.directory import INSTANCE, FakeDirectory, user
from tests.support.fakes.store import FakeStore


@pytest.fixture
def directory() -> FakeDirectory:
    return FakeDirectory()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore(FakeClock())


async def test_an_empty_database_is_pinned(directory: FakeDirectory, store: FakeStore) -> None:
    assert await establish(directory, store) == INSTANCE
    assert store.pinned == INSTANCE.id


@pytest.mark.parametrize("known", [5, 6, 10])
async def test_a_database_of_which_half_is_known_is_pinned(
    directory: FakeDirectory, store: FakeStore, known: int
) -> None:
    store.add_users(*map(user, range(10)))
    directory.sign_up(*map(user, range(known)))

    await establish(directory, store)

    assert store.pinned == INSTANCE.id


@pytest.mark.parametrize("known", [0, 1, 4])
async def test_a_database_of_strangers_is_not_pinned(directory: FakeDirectory, store: FakeStore, known: int) -> None:
    store.add_users(*map(user, range(10)))
    directory.sign_up(*map(user, range(known)))

    with pytest.raises(UnknownPopulation, match=f"instanceId: {INSTANCE.id}"):
        await establish(directory, store)

    assert store.pinned is None


async def test_foreign_values_have_no_say_at_first_contact(directory: FakeDirectory, store: FakeStore) -> None:
    store.add_row("tasks", "0b9f3a52-1111-2222-3333-444455556666")

    await establish(directory, store)

    assert store.pinned == INSTANCE.id


async def test_the_sample_is_bounded(directory: FakeDirectory, store: FakeStore) -> None:
    ids = [user(number) for number in range(1000)]
    store.add_users(*ids)
    directory.sign_up(*ids)

    await establish(directory, store)

    assert len(directory.asked["find"]) <= SAMPLE


async def test_an_instance_named_by_a_person_settles_first_contact(directory: FakeDirectory, store: FakeStore) -> None:
    store.add_users(*map(user, range(10)))

    await establish(directory, store, named=INSTANCE.id)

    assert store.pinned == INSTANCE.id


async def test_another_instance_than_the_one_named_is_refused(directory: FakeDirectory, store: FakeStore) -> None:
    with pytest.raises(WrongInstance, match="ins_2another"):
        await establish(directory, store, named="ins_2another")

    assert store.pinned is None


@pytest.mark.parametrize("named", [None, INSTANCE.id])
async def test_another_instance_than_the_pinned_one_is_refused(
    directory: FakeDirectory, store: FakeStore, named: str | None
) -> None:
    store.pinned = "ins_2another"

    with pytest.raises(WrongInstance, match="ins_2another"):
        await establish(directory, store, named=named)

    assert store.pinned == "ins_2another"


async def test_a_pinned_database_is_not_sampled_again(directory: FakeDirectory, store: FakeStore) -> None:
    store.pinned = INSTANCE.id
    store.add_users(*map(user, range(10)))

    await establish(directory, store)

    assert directory.calls["find"] == 0


async def test_nothing_is_pinned_while_clerk_is_away(directory: FakeDirectory, store: FakeStore) -> None:
    store.add_users(user(1))
    directory.errors["find"] = ClerkUnavailable("away")

    with pytest.raises(ClerkUnavailable):
        await establish(directory, store)

    assert store.pinned is None
