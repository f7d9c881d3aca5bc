"""Session tokens of an emulated instance, and the key set that they are verified with.

Decides what a token says unless told otherwise: what Clerk's says a moment after its user signed in. The key is made
when it is first needed, as that takes a while; it is the one thing of an instance that does not follow from the seed.
Used by tests and the demo.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

LIFETIME_SECONDS = 60
"""Clerk's documentation, "How Clerk works"."""


class Sessions:
    """The signing key of one instance, whose id is the `kid`, as Clerk's is."""

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id
        self._key: RSAPrivateKey | None = None
        self.issuer = f"https://{instance_id.removeprefix('ins_').lower()}.clerk.accounts.dev"

    @property
    def key(self) -> RSAPrivateKey:
        """The key that signs at present."""
        if self._key is None:
            self._key = generate_private_key(public_exponent=65537, key_size=2048)
        return self._key

    @property
    def public_key(self) -> RSAPublicKey:
        """What everybody may know of it."""
        return self.key.public_key()

    def rotate(self) -> None:
        """Sign with a new key from now on; the key set names it alone, under the same `kid`."""
        self._key = None

    def key_set(self) -> dict[str, Any]:
        """Return what `GET /jwks` answers."""
        public = RSAAlgorithm.to_jwk(self.public_key, as_dict=True)
        return {
            "keys": [
                {
                    "use": "sig",
                    "kty": "RSA",
                    "kid": self._instance_id,
                    "alg": "RS256",
                    "n": public["n"],
                    "e": public["e"],
                }
            ]
        }

    def token(self, user_id: str, origin: str, **claims: Any) -> str:
        """Return a session token of the user, made for the page at `origin`; a claim of None is left out."""
        return jwt.encode(
            self.claims(user_id, origin, **claims),
            self.key,
            algorithm="RS256",
            headers={"kid": self._instance_id, "cat": "cl_B7d4PD111AAA"},
        )

    def claims(self, user_id: str, origin: str, **changed: Any) -> dict[str, Any]:
        """Return what such a token says: version 2, both factors verified just now as far as there are two."""
        now = int(time.time())
        said = {
            "azp": origin,
            "exp": now + LIFETIME_SECONDS,
            "fva": [0, -1],
            "iat": now,
            "iss": self.issuer,
            "jti": secrets.token_hex(10),
            "nbf": now - 10,
            "sid": f"sess_2{secrets.token_hex(13)}",
            "sts": "active",
            "sub": user_id,
            "v": 2,
        } | changed
        return {name: value for name, value in said.items() if value is not None}
