"""A user's own request to be deleted: first in Clerk, then here, and for good.

Decides that no row goes before Clerk has deleted the user and proves him gone, and when a request is lifted again:
when Clerk refuses it for good and nothing has been done yet, in Clerk neither. The claim was stored before Clerk is
asked, so whoever takes it over, in whichever process, does all of it again, which is harmless. Used by `web`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from controller.core.absorbing import remove, retry_delay
from controller.core.outcomes import Settled
from controller.core.proving import prove_absence
from controller.core.targets import Deletion, DeletionPolicy
from controller.errors import ClerkRefused, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.claims import Claim
    from controller.core.ports import Clock, Directory, Inbox
    from controller.core.users import UserId

OWN_REQUEST: Final = "own request"
"""On whose request, in receipts."""
FOR_GOOD: Final = Deletion(policy=DeletionPolicy.ERASE)
"""Whatever the resource says; the limits do not apply."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The public half of an RSA key that signs session tokens; `id` is what a token names as its `kid`."""

    id: str
    modulus: int
    exponent: int


class Accounts(Protocol):
    """Clerk, as users end their accounts through it; runs and commands have no such thing."""

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return the keys that the instance's session tokens are signed with at present."""

    async def delete_user(self, user_id: UserId) -> None:
        """Delete a user; one who is gone already is deleted.

        Raises:
            ClerkRefused: Clerk will not, now or later: the key may not, or the user cannot be deleted.
        """


async def settle_request(claim: Claim, accounts: Accounts, directory: Directory, inbox: Inbox, clock: Clock) -> Settled:
    """Delete the claim's user in Clerk, ask whether he is gone, and erase him here.

    Raises:
        RequestRefused: Clerk refuses it for good; the request is lifted, and nothing was done.
        TransientError, PermanentError: no usable answer; the caller postpones by `retry_delay`.
    """
    try:
        await accounts.delete_user(claim.user_id)
    except ClerkRefused as refused:
        # Whom Clerk has deleted, or who is buried, is gone, whatever the key may do today: his request stands.
        if not await inbox.lift_request(claim):
            raise
        message = f"Nothing was deleted, and the request is lifted: {refused}"
        raise RequestRefused(message) from refused
    # before anything else can fail: refused the next time, he would be told that nothing was deleted
    await inbox.keep_request(claim)
    proof = await prove_absence(directory, clock, claim.user_id)
    if proof is None:
        await inbox.postpone_claim(claim, retry_delay(claim), answered_present=False)
        return Settled.POSTPONED
    return await remove(claim, proof, FOR_GOOD, inbox)
