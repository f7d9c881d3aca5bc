"""Users as Clerk knows them, as far as usersync needs to know them.

Decides which values of a `user_id` column can be a Clerk user at all; everything else is *foreign*
and is never touched. Used by every layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NewType

if TYPE_CHECKING:
    from datetime import datetime

UserId = NewType("UserId", str)
"""A value of Clerk's form; make one with `parse_user_id`."""

CLERK_ID_PATTERN = "^user_[A-Za-z0-9]+$"
"""Clerk's form of a user id, as a regular expression that PostgreSQL and Python read alike."""

CLERK_ID_LENGTH_MAX = 255
"""Clerk's ids have 32 characters; what is much longer can be in no index of PostgreSQL. Beside the pattern, as a bound
within it costs a hundred times as much."""

_CLERK_ID = re.compile(CLERK_ID_PATTERN.removeprefix("^").removesuffix("$"), re.ASCII)


def parse_user_id(value: object) -> UserId | None:
    """Return the value as a `UserId`, or None if it is foreign (a uuid, `system`, empty, not text)."""
    if isinstance(value, str) and len(value) <= CLERK_ID_LENGTH_MAX and _CLERK_ID.fullmatch(value):
        return UserId(value)
    return None


class Environment(Enum):
    """What an instance is for; Clerk's rate limit depends on it."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"


@dataclass(frozen=True, slots=True)
class Instance:
    """One Clerk instance: `id` is `ins_...`; ids of users are unknown outside their instance."""

    id: str
    environment: Environment


@dataclass(frozen=True, slots=True)
class Profile:
    """What Clerk says of one user, as far as it is mapped.

    `updated_at` in milliseconds, by Clerk's clock. `values`: one for each mapped column, in their order: a text, a
    number, a boolean, a `datetime`, or what JSON makes of an array or object; None where the user has none.
    """

    user_id: UserId
    updated_at: int
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ListedUser:
    """One entry of a listing; `profile` where columns are mapped."""

    id: UserId
    created_at: datetime
    profile: Profile | None = None


class Presence(Enum):
    """What Clerk says of one user, asked by id.

    `ABSENT` is 404 with the code `resource_not_found` and nothing else; any other answer that is not
    a user of that id raises.
    """

    PRESENT = "present"
    ABSENT = "absent"
