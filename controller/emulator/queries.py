"""Reads the query of `GET /users` and `GET /users/count` as Clerk does, refusals included.

Pure. Facts: Clerk's OpenAPI description of 2026-05-12; a limit above 500 falls back to 10 silently, as
reported in clerk/clerk-sdk-python issue 166. Where the description is silent (which code a refusal
carries, what a cursor at a deleted user does) the choice is ours, and always the stricter one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.emulator.refusals import Refusal
from controller.emulator.users import DEFAULT_LIMIT, MAX_LIMIT, ORDERINGS, UserQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multidict import MultiMapping

MAX_USER_IDS = 100
VERSION_PARAMETER = "__clerk_api_version"

_KNOWN = frozenset(
    {
        "created_at_after",
        "created_at_before",
        "limit",
        "offset",
        "order_by",
        "starting_after",
        "user_id",
        VERSION_PARAMETER,
    }
)


def read_query(parameters: MultiMapping[str], *, counting: bool = False) -> UserQuery:
    """Return what the parameters of a listing (or of a count, which has no pages) ask.

    Raises:
        Refusal: 422, or 501 for a parameter that Clerk knows and the emulator does not.
    """
    if unknown := sorted(set(parameters) - _KNOWN):
        raise Refusal.not_emulated(unknown[0])
    included, excluded = _user_ids(parameters.getall("user_id", ()))
    created_before = _integer(parameters, "created_at_before")
    created_after = _integer(parameters, "created_at_after")
    if counting:
        return UserQuery(
            created_before=created_before,
            created_after=created_after,
            included=included,
            excluded=excluded,
        )
    descending, order_by = _ordering(parameters.getall("order_by", ["-created_at"])[0])
    query = UserQuery(
        limit=_limit(parameters),
        offset=_integer(parameters, "offset", least=0) or 0,
        order_by=order_by,
        descending=descending,
        starting_after=parameters.get("starting_after"),
        created_before=created_before,
        created_after=created_after,
        included=included,
        excluded=excluded,
    )
    _refuse_bad_cursor(query)
    return query


def _limit(parameters: MultiMapping[str]) -> int:
    limit = _integer(parameters, "limit", least=1)
    if limit is None or limit > MAX_LIMIT:
        return DEFAULT_LIMIT
    return limit


def _integer(parameters: MultiMapping[str], name: str, *, least: int | None = None) -> int | None:
    text = parameters.get(name)
    if text is None:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise Refusal.bad_parameter(name=name, demand="must be an integer", code="form_param_format_invalid")
    value = int(text)
    if least is not None and value < least:
        raise Refusal.bad_parameter(name=name, demand=f"must be at least {least}")
    return value


def _ordering(text: str) -> tuple[bool, str]:
    # A `+` that was not written as %2B arrives as a space.
    descending = text.startswith("-")
    name = text.removeprefix("-") if descending else text.removeprefix("+").removeprefix(" ")
    if name not in ORDERINGS:
        raise Refusal.bad_parameter(name="order_by", demand=f"must be one of {', '.join(sorted(ORDERINGS))}")
    return descending, name


def _user_ids(texts: Sequence[str]) -> tuple[frozenset[str] | None, frozenset[str]]:
    if len(texts) > MAX_USER_IDS:
        raise Refusal.bad_parameter(name="user_id", demand=f"must be given at most {MAX_USER_IDS} times")
    excluded = {text.removeprefix("-") for text in texts if text.startswith("-")}
    # A `+` that was not written as %2B arrives as a space: an id that nobody has.
    included = {text.removeprefix("+") for text in texts if not text.startswith("-")}
    return (frozenset(included) if included else None), frozenset(excluded)


def _refuse_bad_cursor(query: UserQuery) -> None:
    if query.starting_after is None:
        return
    if query.order_by != "created_at":
        raise Refusal.bad_parameter(name="starting_after", demand="requires ordering by created_at")
    if query.offset:
        raise Refusal.bad_parameter(name="starting_after", demand="cannot be combined with a non-zero offset")
