"""Whose session token is this, and may it end his account? Verified by PyJWT, read strictly.

Decides that only a session token of a signed-in, present user counts, made for a page that the resource names: not
one of a machine, of somebody who acts in the user's place, or of a session that still owes something. The claims and
their meaning are Clerk's ("Session tokens", "Manual JWT verification"); how recently the user must have proved who he
is follows its configuration `strict`. Used by `signing_keys` and `account_deletion`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from controller.core.users import parse_user_id
from controller.web.refusals import RefusalKind, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controller.core.leaving import SigningKey
    from controller.core.targets import AccountDeletion
    from controller.core.users import UserId

ALGORITHM: Final = "RS256"
LEEWAY: Final = timedelta(seconds=5)
"""As Clerk's own libraries have it."""
MACHINE_PREFIXES: Final = ("ak_", "oat_", "m2m_", "mt_", "sk_")
"""API keys, OAuth and machine tokens; and what should never have left a server."""
REQUIRED: Final = ["azp", "exp", "iat", "iss", "nbf", "sid", "sub"]
"""`sid` tells a session token from one of a JWT template, which an application hands to others."""
_KID = re.compile("ins_[A-Za-z0-9]+", re.ASCII)
_SID = re.compile("sess_[A-Za-z0-9]+", re.ASCII)
_FACTORS = 2
_NEVER = -1
"""The age of a factor that the user does not have."""


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in user, and the origin of the page that his token was made for."""

    user_id: UserId
    origin: str


class NotReverified(Refused):
    """The user is signed in, but has not proved who he is for too long; his front-end can have him do it."""

    def __init__(self, within: timedelta) -> None:
        message = "Prove once more who you are, and ask again."
        super().__init__(RefusalKind.REVERIFICATION, message)
        self.within = within


def instance_of(token: str) -> str:
    """Return the instance that a token says it is of, before anything about it is believed.

    Raises:
        Refused: it is no session token of any instance.
    """
    import jwt  # noqa: PLC0415 - not for who serves no account deletion: 10 MB

    if token.startswith(MACHINE_PREFIXES):
        raise Refused(RefusalKind.MACHINE, "A machine's token ends nobody's account; send a session token.")
    try:
        header = jwt.get_unverified_header(token)
    # bytes of a header that are no text cannot be encoded again
    except (jwt.PyJWTError, UnicodeEncodeError) as error:
        raise _no_token() from error
    # an OAuth access token is "at+jwt"
    if header.get("alg") != ALGORITHM or header.get("typ", "JWT") != "JWT":
        raise _no_token()
    kid = header.get("kid")
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise _no_token()
    return kid


def read_session(token: str, instance_id: str, keys: Sequence[SigningKey], terms: AccountDeletion) -> Session:
    """Verify a token against the instance's keys and the resource's terms.

    Raises:
        Refused: it is not to be believed, or not enough to end an account; `SIGNATURE` where no key fits.
        NotReverified: the user has to prove who he is once more.
    """
    claims = _verified(token, [key for key in keys if key.id == instance_id], terms.issuer)
    user_id, origin = parse_user_id(claims["sub"]), claims["azp"]
    session_id = claims["sid"]
    if user_id is None or not (isinstance(session_id, str) and _SID.fullmatch(session_id)):
        raise _no_token()
    if origin not in terms.authorized_parties:
        message = "The token was made for a page that is not among spec.accountDeletion.authorizedParties."
        raise Refused(RefusalKind.AUTHORIZED_PARTY, message)
    if claims.get("sts", "active") != "active":
        raise Refused(RefusalKind.PENDING_SESSION, "The session is pending: its user has not finished signing in.")
    if claims.get("act") is not None:
        raise Refused(RefusalKind.IMPERSONATED, "Somebody acts in this user's place; only he himself may do this.")
    if terms.reverify_within and not _is_recent(claims.get("fva"), minutes_of(terms.reverify_within)):
        raise NotReverified(terms.reverify_within)
    return Session(user_id, origin)


def minutes_of(within: timedelta) -> int:
    """Return whole minutes, rounded up: Clerk counts the age of a factor in whole minutes."""
    return -(-within // timedelta(minutes=1))


def _verified(token: str, keys: Sequence[SigningKey], issuer: str | None) -> Mapping[str, Any]:
    import jwt  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers  # noqa: PLC0415 - as above

    for key in keys:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                RSAPublicNumbers(key.exponent, key.modulus).public_key(),
                algorithms=[ALGORITHM],
                leeway=LEEWAY,
                issuer=issuer,
                # an application may give its tokens an audience of its own
                options={"require": REQUIRED, "verify_aud": False},
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.ExpiredSignatureError as error:
            raise Refused(RefusalKind.EXPIRED, "The token has expired; take a fresh one.") from error
        except jwt.ImmatureSignatureError as error:
            message = "The token is of the future; compare the clocks."
            raise Refused(RefusalKind.TIMESTAMP, message) from error
        except jwt.InvalidIssuerError as error:
            raise Refused(RefusalKind.ISSUER, "The token is of another issuer.") from error
        except (jwt.PyJWTError, OverflowError) as error:
            raise _no_token() from error
        return claims
    raise Refused(RefusalKind.SIGNATURE, "The token is not signed with a key of its instance.")


def _is_recent(ages: object, minutes: int) -> bool:
    """Whether the factors were verified recently enough, as Clerk's level `second_factor` has it.

    Who has a second factor must have used that one; who has none, the first. Ages are in minutes.
    """
    if not isinstance(ages, list) or len(ages) != _FACTORS or not all(type(age) is int for age in ages):
        return False
    first, second = ages
    deciding: int = first if second == _NEVER else second
    return 0 <= deciding < minutes


def _no_token() -> Refused:
    return Refused(RefusalKind.NOT_A_SESSION, "This is not a session token of Clerk's, signed by RS256.")
