"""What is mapped of a user, read from Clerk's description of him: of a listing, of a look-up, or of an event.

Decides which fields are decoded, and only those are; private and unsafe metadata never are. Facts: the object `User`
of Clerk's OpenAPI description. Used by `answers`, and by `web` for events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from controller.core.mapping import PUBLIC_METADATA, Constant, Field, MappedColumn
from controller.core.users import Profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.core.users import UserId

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800_000)]
"""Since 1970, before the year 10000: what a `datetime` can hold."""


class MinimalUser(msgspec.Struct):
    """What is read of every user."""

    object: str
    id: str
    created_at: Milliseconds


class _EmailAddress(msgspec.Struct):
    email_address: str
    id: str | None = None


class _PhoneNumber(msgspec.Struct):
    phone_number: str
    id: str | None = None


_TYPES: Final[dict[str, tuple[Any, Any]]] = {
    "external_id": (str | None, None),
    "username": (str | None, None),
    "first_name": (str | None, None),
    "last_name": (str | None, None),
    "image_url": (str | None, None),
    "primary_email_address_id": (str | None, None),
    "email_addresses": (list[_EmailAddress], ()),
    "primary_phone_number_id": (str | None, None),
    "phone_numbers": (list[_PhoneNumber], ()),
    "public_metadata": (dict[str, Any] | None, None),
}
"""Type and default of each attribute that may be read."""

_NAMES: Final = {
    "externalId": "external_id",
    "username": "username",
    "firstName": "first_name",
    "lastName": "last_name",
    "imageUrl": "image_url",
}
_ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "fullName": ("first_name", "last_name"),
    "primaryEmailAddress": ("primary_email_address_id", "email_addresses"),
    "primaryPhoneNumber": ("primary_phone_number_id", "phone_numbers"),
    PUBLIC_METADATA: ("public_metadata",),
    **{name: (attribute,) for name, attribute in _NAMES.items()},
}
"""Attributes that a field is made of, beyond those that are read always."""


@dataclass(frozen=True, slots=True)
class ProfileReader:
    """Reads what is mapped; `type` is what to decode a user as."""

    type: Any
    getters: tuple[Callable[[Any], Any], ...]

    def read(self, user: Any, user_id: UserId) -> Profile:
        """Return what is mapped of a user decoded as `type`."""
        return Profile(user_id, user.updated_at, tuple([get(user) for get in self.getters]))

    def decode(self, data: bytes | msgspec.Raw) -> Any | None:
        """Decode one user, or return None: it is none, or lacks what is to be read."""
        try:
            return msgspec.json.decode(data, type=self.type)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


@lru_cache(maxsize=64)
def profile_reader(mapping: tuple[MappedColumn, ...]) -> ProfileReader:
    """Return the reader for these columns; it decodes no more than they need."""
    names = [column.source.path[0] for column in mapping if isinstance(column.source, Field)]
    attributes = dict.fromkeys(attribute for name in names for attribute in _ATTRIBUTES.get(name, ()))
    fields: list[str | tuple[str, Any] | tuple[str, Any, Any]] = [("updated_at", Milliseconds)]
    fields += [(name, *_TYPES[name]) for name in attributes]
    decoded = msgspec.defstruct("MappedUser", fields, bases=(MinimalUser,))
    return ProfileReader(decoded, tuple(_getter(column.source) for column in mapping))


def _getter(source: Field | Constant) -> Callable[[Any], Any]:
    if isinstance(source, Constant):
        value = source.value
        return lambda _user: value
    name = source.path[0]
    if name == PUBLIC_METADATA:
        return _stepping(source.path[1:])
    if name in _NAMES:
        attribute = _NAMES[name]
        return lambda user: getattr(user, attribute)
    return _GETTERS[name]


def _stepping(steps: tuple[str, ...]) -> Callable[[Any], Any]:
    def get(user: Any) -> Any:
        value = user.public_metadata
        for step in steps:
            value = value.get(step) if isinstance(value, dict) else None
        return value

    return get


def _full_name(user: Any) -> str | None:
    return " ".join(filter(None, (user.first_name, user.last_name))) or None


def _primary_email_address(user: Any) -> str | None:
    chosen = user.primary_email_address_id
    return None if chosen is None else next((e.email_address for e in user.email_addresses if e.id == chosen), None)


def _primary_phone_number(user: Any) -> str | None:
    chosen = user.primary_phone_number_id
    return None if chosen is None else next((e.phone_number for e in user.phone_numbers if e.id == chosen), None)


_GETTERS: Final[dict[str, Callable[[Any], Any]]] = {
    "id": lambda user: user.id,
    "fullName": _full_name,
    "primaryEmailAddress": _primary_email_address,
    "primaryPhoneNumber": _primary_phone_number,
    "createdAt": lambda user: EPOCH + timedelta(milliseconds=user.created_at),
    "updatedAt": lambda user: EPOCH + timedelta(milliseconds=user.updated_at),
}
