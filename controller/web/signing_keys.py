"""The keys of one instance's session tokens, as Clerk named them last.

Decides when they are fetched again: at intervals, and sooner when a token fits no known key, since Clerk keeps the
name of a key when it changes the key; but never as often as strangers like. Made by `endpoints`, with the secret key
of that instance.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from controller.errors import ClerkUnavailable, UserSyncError
from controller.web.refusals import RefusalKind, Refused
from controller.web.sessions import read_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.leaving import Accounts, SigningKey
    from controller.core.targets import AccountDeletion
    from controller.web.sessions import Session

log = structlog.get_logger(__name__)

STRANGERS_AT_ONCE: Final = 5
"""Tokens that fit no known key and wait for newer ones: anybody can make them, and they take the places of users."""


@dataclass(frozen=True, slots=True)
class KeyRhythm:
    """How often keys are fetched: at most every `refetch`, and by the first token after `refresh`.

    A key that Clerk has taken away is believed for `refresh`; while Clerk cannot be asked, for `oldest` at most.
    """

    refetch: timedelta = timedelta(seconds=5)
    refresh: timedelta = timedelta(minutes=5)
    oldest: timedelta = timedelta(hours=1)
    patience: timedelta = timedelta(seconds=4)


@dataclass(slots=True)
class SigningKeys:
    """The keys of the instance `instance_id`, and of no other, whatever Clerk names beside them."""

    accounts: Accounts
    instance_id: str
    rhythm: KeyRhythm = field(default_factory=KeyRhythm)
    _keys: Sequence[SigningKey] | None = field(default=None, init=False)
    _fetched_at: float = field(default=float("-inf"), init=False)
    _tried_at: float = field(default=float("-inf"), init=False)
    _strangers: int = field(default=0, init=False)
    _fetching: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def read(self, token: str, terms: AccountDeletion) -> Session:
        """Verify a token; one that fits no known key lets the keys be fetched again.

        Raises:
            Refused: it is not to be believed, or not enough to end an account; `BUSY` where too many wait for keys.
            TransientError, PermanentError: the keys cannot be had, so nobody can tell.
        """
        known = self._keys
        if known is None or self._age() > self.rhythm.oldest.total_seconds():
            known = await self._current()
        try:
            session = read_session(token, self.instance_id, known, terms)
        except Refused as refused:
            if refused.kind is not RefusalKind.SIGNATURE:
                raise
            newer = await self._newer_than(known)
            if newer == known:
                raise
            return read_session(token, self.instance_id, newer, terms)
        current = await self._current()
        return session if current == known else read_session(token, self.instance_id, current, terms)

    async def _current(self) -> Sequence[SigningKey]:
        if self._keys is not None and self._age() < self.rhythm.refresh.total_seconds():
            return self._keys
        async with self._fetching:
            # somebody may have fetched them while this one waited
            if self._keys is not None and self._age() < self.rhythm.refresh.total_seconds():
                return self._keys
            return await self._fetch_if_due()

    async def _newer_than(self, known: Sequence[SigningKey]) -> Sequence[SigningKey]:
        if self._strangers >= STRANGERS_AT_ONCE:
            raise Refused(RefusalKind.BUSY, "The keys that tokens are verified with are being fetched; ask again.")
        self._strangers += 1
        try:
            async with self._fetching:
                if self._keys is not None and self._keys != known:
                    return self._keys
                return await self._fetch_if_due()
        finally:
            self._strangers -= 1

    async def _fetch_if_due(self) -> Sequence[SigningKey]:
        """Fetch the keys unless that was tried just now; fall back on those that are known and not too old."""
        now = asyncio.get_running_loop().time()
        if now - self._tried_at >= self.rhythm.refetch.total_seconds():
            self._tried_at = now
            try:
                async with asyncio.timeout(self.rhythm.patience.total_seconds()):
                    self._keys = await self.accounts.signing_keys()
                self._fetched_at = now
            except (UserSyncError, TimeoutError) as error:
                # the reason's word and the sentence of ours: neither holds a key
                log.warning("signing_keys_not_fetched", instance=self.instance_id, error=str(error) or "timeout")
        if self._keys is None or self._age() > self.rhythm.oldest.total_seconds():
            message = "Clerk's signing keys cannot be had at the moment, so no token can be verified."
            raise ClerkUnavailable(message, retry_after=self.rhythm.refetch)
        return self._keys

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._fetched_at
