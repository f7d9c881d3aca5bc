"""What a `Directory` has to say about mapped columns where none is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.users import Profile, UserId


class Unmapped:
    """To be inherited by a `Directory`."""

    __slots__ = ()

    @property
    def maps(self) -> bool:
        return False

    async def profiles(self, user_ids: Sequence[UserId]) -> Sequence[Profile]:
        raise NotImplementedError(len(user_ids))

    async def profile(self, user_id: UserId) -> Profile | None:
        raise NotImplementedError(user_id)
