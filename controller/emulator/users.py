"""The users of an emulated instance: who exists, in which order, and which of them a query means.

Pure state: it opens no socket and reads no clock but the one given. A million users fit: of each only the
id and the time of creation are kept, and what else Clerk would tell is made up from the id when asked.
"""

from __future__ import annotations

import base64
import random
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

DEFAULT_LIMIT = 10
MAX_LIMIT = 500
"""Clerk's OpenAPI description, `LimitParameter`."""

ORDERINGS = frozenset(
    {
        "created_at",
        "updated_at",
        "email_address",
        "web3wallet",
        "first_name",
        "last_name",
        "phone_number",
        "username",
        "last_active_at",
        "last_sign_in_at",
    }
)
"""Clerk's OpenAPI description, `order_by` of `GET /users`."""

EDITABLE = frozenset(
    {
        "banned",
        "created_at",
        "email_address",
        "external_id",
        "first_name",
        "image_url",
        "last_name",
        "locked",
        "phone_number",
        "private_metadata",
        "public_metadata",
        "unsafe_metadata",
        "updated_at",
        "username",
    }
)

BULK_FROM = 1_672_531_200_000
BULK_UNTIL = 1_735_689_600_000
"""Milliseconds: users made in bulk signed up in the years 2023 and 2024, whenever the emulator runs."""

_FIRST_NAMES = ("Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Grace", "Hiro", "İpek", "João", "Kim")
_LAST_NAMES = ("Abebe", "Brown", "Çelik", "Duarte", "Eriksson", "Fischer", "García", "Hopper", "Ito")
_LETTERS_OF_BASE64 = bytes.maketrans(b"+/", b"xy")
_BYTES_PER_ID = 21
_CHARACTERS_PER_ID = 28

_SAME_FOR_ALL: dict[str, Any] = {
    "id": "",
    "object": "user",
    "external_id": None,
    "primary_email_address_id": None,
    "primary_phone_number_id": None,
    "primary_web3_wallet_id": None,
    "username": None,
    "first_name": None,
    "last_name": None,
    "profile_image_url": "https://img.example.com/default.png",
    "image_url": "https://img.example.com/default.png",
    "has_image": False,
    "public_metadata": {},
    "private_metadata": {},
    "unsafe_metadata": {},
    "email_addresses": [],
    "phone_numbers": [],
    "web3_wallets": [],
    "passkeys": [],
    "password_enabled": True,
    "two_factor_enabled": False,
    "totp_enabled": False,
    "backup_code_enabled": False,
    "mfa_enabled_at": None,
    "mfa_disabled_at": None,
    "external_accounts": [],
    "saml_accounts": [],
    "enterprise_accounts": [],
    "last_sign_in_at": None,
    "banned": False,
    "locked": False,
    "lockout_expires_in_seconds": None,
    "verification_attempts_remaining": 100,
    "created_at": 0,
    "updated_at": 0,
    "delete_self_enabled": True,
    "create_organization_enabled": True,
    "last_active_at": None,
    "legal_accepted_at": None,
}


@dataclass(frozen=True, slots=True)
class UserQuery:
    """What `GET /users` asks for; times in milliseconds, both bounds exclusive.

    `included` is None without a `user_id` filter that includes; empty means nobody.
    """

    limit: int = DEFAULT_LIMIT
    offset: int = 0
    order_by: str = "created_at"
    descending: bool = True
    starting_after: str | None = None
    created_before: int | None = None
    created_after: int | None = None
    included: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()


class Users:
    """The population, ordered by creation and, within a millisecond, by id."""

    def __init__(self, *, seed: int, now: Callable[[], int]) -> None:
        """`now` gives milliseconds; the same seed and the same calls give the same ids."""
        self._random = random.Random(seed)
        self._now = now
        self._created: dict[str, int] = {}
        self._order: list[str] = []
        self._edits: dict[str, dict[str, Any]] = {}
        self._gone: dict[str, int] = {}

    def __len__(self) -> int:
        """Count the living."""
        return len(self._order)

    def __contains__(self, user_id: object) -> bool:
        """Whether the user lives."""
        return user_id in self._created

    def __iter__(self) -> Iterator[str]:
        """Yield the ids, oldest user first."""
        return iter(self._order)

    def add(self, count: int, *, created_from: int = BULK_FROM, created_until: int = BULK_UNTIL) -> list[str]:
        """Add `count` users, created evenly over the given milliseconds; return their ids, oldest first.

        Equal bounds give them all the same millisecond, as an import does.
        """
        ids = self._new_ids(count)
        span = created_until - created_from
        times = [created_from + index * span // count for index in range(count)]
        if span < count:
            # Within one millisecond the order is that of the ids.
            pairs = sorted(zip(times, ids, strict=True))
            ids = [user_id for _, user_id in pairs]
        in_order = not self._order or self._key(self._order[-1]) < (created_from, "")
        self._created.update(zip(ids, times, strict=True))
        self._order.extend(ids)
        if not in_order:
            self._order.sort(key=self._key)
        return ids

    def sign_up(self, user_id: str | None = None, *, created_at: int | None = None) -> str:
        """Add one user, created now unless told otherwise.

        Raises:
            ValueError: a living user has that id.
        """
        chosen = self._new_ids(1)[0] if user_id is None else user_id
        if chosen in self._created:
            message = f"{chosen} has signed up already"
            raise ValueError(message)
        self._created[chosen] = self._now() if created_at is None else created_at
        insort(self._order, chosen, key=self._key)
        return chosen

    def edit(self, user_id: str, changes: Mapping[str, Any]) -> None:
        """Set fields of `EDITABLE`; `updated_at` becomes now, unless it is among them.

        Raises:
            LookupError: no such user.
            ValueError: a field that cannot be set.
        """
        if user_id not in self._created:
            raise LookupError(user_id)
        if unknown := set(changes) - EDITABLE:
            message = f"cannot be set: {', '.join(sorted(unknown))}"
            raise ValueError(message)
        kept = dict(changes)
        if "created_at" in kept:
            self._order.pop(self._place(user_id))
            self._created[user_id] = kept.pop("created_at")
            insort(self._order, user_id, key=self._key)
        self._edits[user_id] = {**self._edits.get(user_id, {}), "updated_at": self._now()} | kept

    def delete(self, user_ids: Iterable[str]) -> list[str]:
        """Remove those of the users who live; return their ids."""
        leaving = [user_id for user_id in dict.fromkeys(user_ids) if user_id in self._created]
        if len(leaving) == 1:
            self._order.pop(self._place(leaving[0]))
        elif leaving:
            gone = set(leaving)
            self._order = [user_id for user_id in self._order if user_id not in gone]
        for user_id in leaving:
            self._gone[user_id] = self._created.pop(user_id)
            self._edits.pop(user_id, None)
        return leaving

    def cursor_known(self, user_id: str, *, gone_too: bool) -> bool:
        """Whether a page can start after that user."""
        return user_id in self._created or (gone_too and user_id in self._gone)

    def page(self, query: UserQuery, hidden: Collection[str] = frozenset()) -> list[str]:
        """Return the ids of one page, without the hidden users."""
        order, low, high = self._matching(query)
        if query.starting_after is not None:
            cursor = (self._created_ever(query.starting_after), query.starting_after)
            if query.descending:
                high = min(high, bisect_left(order, cursor, key=self._key))
            else:
                low = max(low, bisect_right(order, cursor, key=self._key))
        places = range(high - 1, low - 1, -1) if query.descending else range(low, high)
        skipped = query.excluded.union(hidden)
        if not skipped:
            return [order[place] for place in places[query.offset : query.offset + query.limit]]
        seen = (order[place] for place in places if order[place] not in skipped)
        return list(islice(seen, query.offset, query.offset + query.limit))

    def count(self, query: UserQuery, hidden: Collection[str] = frozenset()) -> int:
        """Count the users whom the filters of the query mean, whatever its limit, offset or cursor."""
        order, low, high = self._matching(query)
        skipped = query.excluded.union(hidden)
        return high - low - sum(1 for user_id in skipped if self._is_among(user_id, order, low, high))

    def describe(self, user_id: str) -> dict[str, Any]:
        """Return Clerk's `User` object.

        Raises:
            LookupError: no such user.
        """
        created_at = self._created.get(user_id)
        if created_at is None:
            raise LookupError(user_id)
        chance = crc32(user_id.encode())
        first_name = _FIRST_NAMES[chance % len(_FIRST_NAMES)]
        last_name = _LAST_NAMES[chance // 16 % len(_LAST_NAMES)]
        described = {
            **_SAME_FOR_ALL,
            "id": user_id,
            "first_name": first_name,
            "last_name": last_name,
            "last_sign_in_at": created_at,
            "last_active_at": created_at,
            "created_at": created_at,
            "updated_at": created_at,
        }
        edits = self._edits.get(user_id)
        address: str | None = f"user.{chance:08x}@example.com"
        if edits is not None:
            described.update(edits)
            address = described.pop("email_address", address)
            if (number := described.pop("phone_number", None)) is not None:
                phone = _phone_number(user_id, number, created_at)
                described["phone_numbers"] = [phone]
                described["primary_phone_number_id"] = phone["id"]
        if address is not None:
            email = _email_address(user_id, address, created_at)
            described["email_addresses"] = [email]
            described["primary_email_address_id"] = email["id"]
        return described

    def _new_ids(self, count: int) -> list[str]:
        letters = base64.b64encode(self._random.randbytes(_BYTES_PER_ID * count))
        text = letters.translate(_LETTERS_OF_BASE64).decode("ascii")
        starts = range(0, len(text), _CHARACTERS_PER_ID)
        return [f"user_2{text[start : start + _CHARACTERS_PER_ID - 2]}" for start in starts]

    def _key(self, user_id: str) -> tuple[int, str]:
        return self._created[user_id], user_id

    def _created_ever(self, user_id: str) -> int:
        created_at = self._created.get(user_id)
        return self._gone[user_id] if created_at is None else created_at

    def _place(self, user_id: str) -> int:
        return bisect_left(self._order, self._key(user_id), key=self._key)

    def _matching(self, query: UserQuery) -> tuple[Sequence[str], int, int]:
        """Return an order and the slice of it that the filters leave."""
        order: list[str] = self._order
        if query.included is not None:
            order = sorted((each for each in query.included if each in self._created), key=self._key)
        low, high = 0, len(order)
        if query.created_after is not None:
            low = bisect_right(order, query.created_after, key=self._created.__getitem__)
        if query.created_before is not None:
            high = max(low, bisect_left(order, query.created_before, key=self._created.__getitem__))
        if query.order_by != "created_at":
            order = sorted(order[low:high], key=lambda each: self._other_key(each, query.order_by))
            low, high = 0, len(order)
        return order, low, high

    def _other_key(self, user_id: str, field: str) -> tuple[bool, Any]:
        described = self.describe(user_id)
        addresses = described["email_addresses"]
        described["email_address"] = addresses[0]["email_address"] if addresses else None
        value = described.get(field)
        return value is not None, value if value is not None else 0

    def _is_among(self, user_id: str, order: Sequence[str], low: int, high: int) -> bool:
        if user_id not in self._created:
            return False
        place = bisect_left(order, self._key(user_id), low, high, key=self._key)
        return place < high and order[place] == user_id


def _phone_number(user_id: str, number: str, created_at: int) -> dict[str, Any]:
    return {
        "id": f"idn_2phone{user_id.removeprefix('user_')}",
        "object": "phone_number",
        "phone_number": number,
        "reserved_for_second_factor": False,
        "default_second_factor": False,
        "reserved": False,
        "verification": {
            "object": "verification_otp",
            "status": "verified",
            "strategy": "phone_code",
            "attempts": 1,
            "expire_at": created_at + 600_000,
        },
        "linked_to": [],
        "backup_codes": None,
        "created_at": created_at,
        "updated_at": created_at,
    }


def _email_address(user_id: str, address: str, created_at: int) -> dict[str, Any]:
    return {
        "id": f"idn_{user_id.removeprefix('user_')}",
        "object": "email_address",
        "email_address": address,
        "reserved": False,
        "verification": {
            "object": "verification_otp",
            "status": "verified",
            "strategy": "email_code",
            "attempts": 1,
            "expire_at": created_at + 600_000,
        },
        "linked_to": [],
        "matches_sso_connection": False,
        "created_at": created_at,
        "updated_at": created_at,
    }
