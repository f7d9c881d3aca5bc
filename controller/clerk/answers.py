"""What Clerk's answers say: decoded strictly, and only the fields that are used.

Decides what is a user, a refusal, an instance; everything else is odd and raises. Pure. Facts: Clerk's
OpenAPI description of the Backend API, version 2026-05-12. Used by `client`, `listing` and `transport`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import msgspec

from controller.clerk.profiles import EPOCH, MinimalUser
from controller.core.leaving import SigningKey
from controller.core.users import Environment, Instance, ListedUser, parse_user_id
from controller.errors import ClerkAnswerOdd

if TYPE_CHECKING:
    from datetime import datetime

    from controller.clerk.profiles import ProfileReader

RESOURCE_NOT_FOUND = "resource_not_found"
"""The code of a 404 that means: there is no such user."""

MODULUS_BITS = range(2048, 8193)
EXPONENT_BITS = range(2, 33)
"""Clerk's have 2048 and 17; much longer ones would make each verification slow."""

_T = TypeVar("_T")

_INSTANCE_ID = re.compile("ins_[A-Za-z0-9]+", re.ASCII)
_CODE = re.compile("[a-z0-9_]{1,80}", re.ASCII)
_BASE64URL = re.compile("[A-Za-z0-9_-]{2,2000}", re.ASCII)
_TRACE = re.compile("[A-Za-z0-9-]{1,80}", re.ASCII)


class _TotalCount(msgspec.Struct):
    object: str
    total_count: Annotated[int, msgspec.Meta(ge=0)]


class _Instance(msgspec.Struct):
    object: str
    id: str
    environment_type: str


class _Deleted(msgspec.Struct):
    object: str
    deleted: bool
    id: str | None = None


class _Key(msgspec.Struct):
    """Some of what a key may say of itself; by RFC 7517 there may be more, and keys of other kinds."""

    kty: str = ""
    kid: str = ""
    use: str = "sig"
    alg: str = "RS256"
    n: str = ""
    e: str = ""


class _Keys(msgspec.Struct):
    keys: Annotated[list[_Key], msgspec.Meta(max_length=100)]


class _Error(msgspec.Struct):
    code: str


class _Errors(msgspec.Struct):
    errors: Annotated[list[_Error], msgspec.Meta(min_length=1)]
    clerk_trace_id: str | None = None


_USER = msgspec.json.Decoder(MinimalUser)
_USERS = msgspec.json.Decoder(list[MinimalUser])
_TOTAL_COUNT = msgspec.json.Decoder(_TotalCount)
_INSTANCE = msgspec.json.Decoder(_Instance)
_DELETED = msgspec.json.Decoder(_Deleted)
_KEYS = msgspec.json.Decoder(_Keys)
_ERRORS = msgspec.json.Decoder(_Errors)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole: `status`, the body without its encoding, Clerk's or Cloudflare's trace id, and its date.

    `asked` is the request in words that may be logged: method and path without ids.
    """

    asked: str
    status: int
    body: bytes
    ray: str | None = None
    date: datetime | None = None

    def reject(self, how: str, cause: Exception | None = None) -> NoReturn:
        """Raise the error that says what is wrong with this answer, without any of its text.

        Raises:
            ClerkAnswerOdd: always.
        """
        message = f"Clerk answered {self.asked} with {self.status}{self.details()}: {how}."
        raise ClerkAnswerOdd(message) from cause

    def codes(self) -> tuple[str, ...]:
        """Return the codes of all errors in the body; none if it is not of Clerk's form."""
        errors = self._errors()
        return () if errors is None else tuple(error.code for error in errors.errors)

    def details(self) -> str:
        """Return code and trace id in brackets, for messages; only what looks like one, as it goes to logs."""
        errors = self._errors() if self.status >= HTTPStatus.BAD_REQUEST else None
        code = _CODE.fullmatch(errors.errors[0].code) if errors else None
        trace = _TRACE.fullmatch((errors and errors.clerk_trace_id) or self.ray or "")
        details = [code[0]] if code else []
        if trace:
            details.append(f"trace {trace[0]}")
        return f" ({', '.join(details)})" if details else ""

    def _errors(self) -> _Errors | None:
        try:
            return _ERRORS.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


def read_user(answer: Answer, reader: ProfileReader | None = None) -> ListedUser:
    """Return the one user of the body, with what is mapped of him if there is a `reader`.

    Raises:
        ClerkAnswerOdd: it is anything else.
    """
    decoder = _USER if reader is None else _decoder(reader.type)
    return _listed(answer, _decode(answer, decoder, "a user"), reader)


def read_users(answer: Answer, reader: ProfileReader | None = None) -> list[ListedUser]:
    """Return the users of the bare array in the body, as many as there are.

    Raises:
        ClerkAnswerOdd: not an array, or something in it is not a user of Clerk's form.
    """
    decoder = _USERS if reader is None else _decoder(list[reader.type])  # type: ignore[name-defined]  # made at run time
    return [_listed(answer, user, reader) for user in _decode(answer, decoder, "a list of users")]


def read_total_count(answer: Answer) -> int:
    """Return the number in the body.

    Raises:
        ClerkAnswerOdd: it is anything else.
    """
    count = _decode(answer, _TOTAL_COUNT, "a count")
    if count.object != "total_count":
        answer.reject("the object is not a total_count")
    return count.total_count


def read_instance(answer: Answer) -> Instance:
    """Return the instance in the body.

    Raises:
        ClerkAnswerOdd: it is anything else, or of an environment that has no known rate limit.
    """
    found = _decode(answer, _INSTANCE, "an instance")
    if found.object != "instance" or not _INSTANCE_ID.fullmatch(found.id):
        answer.reject("the object is not an instance with an id of the form ins_...")
    try:
        return Instance(found.id, Environment(found.environment_type))
    except ValueError as error:
        answer.reject("the environment is neither production nor development", error)


def read_deleted(answer: Answer) -> str | None:
    """Return the id of the user who was deleted, if the body says so much; Clerk's description leaves it out at will.

    Raises:
        ClerkAnswerOdd: it does not say that a user was deleted.
    """
    found = _decode(answer, _DELETED, "a deleted user")
    if found.object != "user" or not found.deleted:
        answer.reject("it does not say that a user was deleted")
    return found.id


def read_signing_keys(answer: Answer) -> list[SigningKey]:
    """Return the RSA keys of the body that sign by RS256; keys for anything else are passed over.

    Raises:
        ClerkAnswerOdd: no set of keys, or an RSA key that is none.
    """
    keys = []
    for key in _decode(answer, _KEYS, "a set of keys").keys:
        if (key.kty, key.use, key.alg) != ("RSA", "sig", "RS256") or not key.kid:
            continue
        modulus, exponent = _number(answer, key.n), _number(answer, key.e)
        if modulus.bit_length() not in MODULUS_BITS or exponent.bit_length() not in EXPONENT_BITS:
            answer.reject("a key in it is too short or too long for RSA")
        keys.append(SigningKey(key.kid, modulus, exponent))
    return keys


def _number(answer: Answer, text: str) -> int:
    """Read a number as JSON Web Keys write it: base64url of its bytes, without padding."""
    if not _BASE64URL.fullmatch(text):
        answer.reject("a key in it is not base64url")
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def milliseconds(moment: datetime) -> int:
    """Return a moment as Clerk writes it."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _decode(answer: Answer, decoder: msgspec.json.Decoder[_T], expected: str) -> _T:
    if answer.status != HTTPStatus.OK:
        answer.reject(f"expected 200 and {expected}")
    try:
        return decoder.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        answer.reject(f"the body is not {expected}", error)


@lru_cache(maxsize=64)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _listed(answer: Answer, user: MinimalUser, reader: ProfileReader | None) -> ListedUser:
    user_id = parse_user_id(user.id)
    if user.object != "user" or user_id is None:
        answer.reject("an object in it is not a user with an id of the form user_...")
    profile = None if reader is None else reader.read(user, user_id)
    return ListedUser(user_id, EPOCH + timedelta(milliseconds=user.created_at), profile)
