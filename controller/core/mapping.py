"""Columns of the profile table that hold what Clerk knows of a user, and which of two versions of it is the later.

Decides what a column may be filled from, and whether values may be written over others: never older ones over newer
ones, and where that cannot be told, Clerk is asked again. Knows neither Clerk's JSON nor types of columns. Used by
`targets`, and by the adapters on both sides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

PUBLIC_METADATA: Final = "publicMetadata"
FIELDS: Final = (
    "id",
    "externalId",
    "username",
    "firstName",
    "lastName",
    "fullName",
    "primaryEmailAddress",
    "primaryPhoneNumber",
    "imageUrl",
    "createdAt",
    "updatedAt",
)
"""Fields of a user that change with `updated_at` alone: what else changes has no version to be guarded by."""
PATH_PATTERN: Final = r"(\.[^.]+){1,8}"
FIELD_PATTERN: Final = f"^({'|'.join(FIELDS)}|{PUBLIC_METADATA}{PATH_PATTERN})$"

_FIELD = re.compile(FIELD_PATTERN.removeprefix("^").removesuffix("$"))


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the user; `path` is one name of `FIELDS`, or `publicMetadata` and the steps into it."""

    path: tuple[str, ...]

    def __str__(self) -> str:
        """As a person writes it."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Constant:
    """The same for every user; as text, or a whole number."""

    value: str | int

    def __str__(self) -> str:
        """As a person writes it."""
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class MappedColumn:
    """A column of the profile table, and what it holds."""

    column: str
    source: Field | Constant


def parse_field(text: str) -> Field | None:
    """Return the field that `text` names, or None if there is none of that name."""
    return Field(tuple(text.split("."))) if _FIELD.fullmatch(text) else None


class Verdict(Enum):
    """What may be done with values that arrive."""

    WRITE = "write"
    IN_STEP = "in_step"
    """The row holds them."""
    OLDER = "older"
    """The row holds later ones."""
    DOUBT = "doubt"
    """It cannot be told; Clerk has to be asked by id."""


def judge(updated_at: int, known: int | None, *, differs: bool | None, confirmed: bool) -> Verdict:
    """Decide what may be done with values of `updated_at`.

    `known`: of which the row's are, None if nobody noted it; `differs`: whether they are others, None if there is no
    row. `confirmed`: they were read from Clerk after everything of that millisecond had happened, which an event
    cannot claim.
    """
    if known is not None and updated_at < known:
        return Verdict.OLDER if differs is not None else _unless_in_doubt(confirmed=confirmed)
    if differs is False:
        return Verdict.IN_STEP
    later = known is not None and updated_at > known
    new = known is None and differs is None
    return Verdict.WRITE if later or new else _unless_in_doubt(confirmed=confirmed)


def _unless_in_doubt(*, confirmed: bool) -> Verdict:
    return Verdict.WRITE if confirmed else Verdict.DOUBT
