"""Whom a person may have put back or erased, by what Clerk says."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.requests import Erased, Restored, RestoreTerms, erase, restore
from controller.errors import (
    ClerkAnswerOdd,
    ClerkRefused,
    ClerkUnavailable,
    RequestRefused,
    UserSyncError,
    WrongInstance,
)
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.directory import INSTANCE, LONG_AGO, FakeDirectory, user

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from controller.core.proofs import Proof
    from controller.core.users import UserId

USER = user(1)
TERMS = RestoreTerms("somebody")
DAY = timedelta(days=1)
NO_ANSWERS = [ClerkUnavailable("away"), ClerkRefused("no"), ClerkAnswerOdd("odd")]


@dataclass
class FakeArchive:
    """Does what it is asked, and notes it."""

    pinned: str | None = INSTANCE.id
    restored: list[UserId] = field(default_factory=list)
    erased: list[Proof] = field(default_factory=list)
    lives: bool | None = None
    parts: int = 1

    async def pinned_instance(self) -> str | None:
        return self.pinned

    async def restore(self, user_id: UserId, terms: RestoreTerms) -> Restored:
        assert replace(terms, lives=False) == TERMS
        self.lives = terms.lives
        self.restored.append(user_id)
        return Restored({"tasks": 1}, {}, {}, tombstone_lifted=True)

    @asynccontextmanager
    async def erasing(self, requested_by: str) -> AsyncGenerator[FakeArchive, None]:
        assert requested_by == "somebody"
        yield self

    async def remove(self, proof: Proof) -> Erased:
        self.erased.append(proof)
        return Erased({"tasks": len(self.erased)}, 0, finished=len(self.erased) == self.parts)


class Ticking(FakeClock):
    """A second later each time that it is asked."""

    def elapsed(self) -> float:
        self.advance(timedelta(seconds=1))
        return super().elapsed()


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive()


@pytest.fixture
def directory() -> FakeDirectory:
    return FakeDirectory({USER: LONG_AGO})


async def test_a_user_whom_clerk_knows_is_put_back_without_a_warning(
    directory: FakeDirectory, archive: FakeArchive
) -> None:
    restored = await restore(USER, TERMS, directory, archive, grace_period=None)
    assert (archive.restored, restored.warnings) == ([USER], ())
    assert archive.lives


async def test_a_user_whom_clerk_does_not_know_is_not_put_back(directory: FakeDirectory, archive: FakeArchive) -> None:
    directory.users.clear()
    with pytest.raises(RequestRefused, match=r"Clerk .* does not know the user"):
        await restore(USER, TERMS, directory, archive, grace_period=None)
    assert archive.restored == []


async def test_a_forced_user_is_put_back_and_the_grace_period_is_told(
    directory: FakeDirectory, archive: FakeArchive
) -> None:
    directory.users.clear()
    restored = await restore(USER, TERMS, directory, archive, grace_period=DAY)
    assert archive.restored == [USER]
    assert archive.lives is False
    (warning,) = restored.warnings
    assert "orphaned again" in warning
    assert "24 h" in warning


@pytest.mark.parametrize("method", ["instance", "look_up"])
@pytest.mark.parametrize("error", NO_ANSWERS, ids=lambda error: error.reason)
async def test_where_clerk_cannot_be_asked_nobody_is_put_back_but_by_force(
    directory: FakeDirectory, archive: FakeArchive, method: str, error: UserSyncError
) -> None:
    directory.errors[method] = error
    with pytest.raises(RequestRefused, match=r"could not be asked.*--force"):
        await restore(USER, TERMS, directory, archive, grace_period=None)
    assert archive.restored == []
    restored = await restore(USER, TERMS, directory, archive, grace_period=DAY)
    assert archive.restored == [USER]
    assert archive.lives is False
    assert "could not be asked" in restored.warnings[0]


@pytest.mark.parametrize("grace_period", [None, DAY], ids=["asked", "forced"])
async def test_the_key_of_another_instance_puts_nobody_back(
    directory: FakeDirectory, grace_period: timedelta | None
) -> None:
    archive = FakeArchive(pinned="ins_other")
    with pytest.raises(WrongInstance):
        await restore(USER, TERMS, directory, archive, grace_period=grace_period)
    assert archive.restored == []


async def test_a_database_that_was_never_worked_on_has_nobody_to_put_back_or_erase(directory: FakeDirectory) -> None:
    archive = FakeArchive(pinned=None)
    with pytest.raises(RequestRefused, match="never been worked on"):
        await restore(USER, TERMS, directory, archive, grace_period=DAY)
    with pytest.raises(RequestRefused, match="never been worked on"):
        await erase(USER, "somebody", directory, archive, FakeClock())


async def test_a_user_whom_clerk_proves_gone_is_erased_on_that_proof(
    directory: FakeDirectory, archive: FakeArchive
) -> None:
    directory.users.clear()
    await erase(USER, "somebody", directory, archive, FakeClock())
    (proof,) = archive.erased
    assert (proof.user_id, proof.instance_id) == (USER, INSTANCE.id)


async def test_each_part_of_very_many_rows_is_erased_on_a_proof_of_its_own(directory: FakeDirectory) -> None:
    directory.users.clear()
    archive, clock = FakeArchive(parts=3), Ticking()
    assert (await erase(USER, "somebody", directory, archive, clock)).rows == {"tasks": 3}
    assert [proof.asked_at for proof in archive.erased] == sorted({proof.asked_at for proof in archive.erased})


async def test_a_user_who_lives_again_keeps_what_is_left_of_his_rows(directory: FakeDirectory) -> None:
    directory.users.clear()

    class Returning(FakeArchive):
        async def remove(self, proof: Proof) -> Erased:
            directory.users[USER] = LONG_AGO
            return await super().remove(proof)

    archive = Returning(parts=3)
    with pytest.raises(RequestRefused, match=r"lives at Clerk .* again"):
        await erase(USER, "somebody", directory, archive, FakeClock())
    assert len(archive.erased) == 1


async def test_a_living_user_is_not_erased(directory: FakeDirectory, archive: FakeArchive) -> None:
    with pytest.raises(RequestRefused, match=r"lives at Clerk.*Delete him there first"):
        await erase(USER, "somebody", directory, archive, FakeClock())
    assert archive.erased == []


@pytest.mark.parametrize("error", NO_ANSWERS, ids=lambda error: error.reason)
async def test_without_a_usable_answer_nobody_is_erased(
    directory: FakeDirectory, archive: FakeArchive, error: UserSyncError
) -> None:
    directory.errors["look_up"] = error
    with pytest.raises(type(error)):
        await erase(USER, "somebody", directory, archive, FakeClock())
    assert archive.erased == []


async def test_the_key_of_another_instance_erases_nobody(directory: FakeDirectory) -> None:
    directory.users.clear()
    archive = FakeArchive(pinned="ins_other")
    with pytest.raises(WrongInstance):
        await erase(USER, "somebody", directory, archive, FakeClock())
    assert archive.erased == []
