"""Tokens of people: sessions and invitations, which are stored hashed, and short-lived signed ones.

A token says whose tenant (or account) it is about, so that it is looked up behind that wall.
"""

import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Self
from uuid import UUID

SECRET_BYTES = 24
"""192 random bits: no guess, and no table of hashes, comes near."""

_TOKEN = re.compile(r"afo_([a-z]+)_([0-9a-f]{32})_([0-9a-f]{48})", re.ASCII)
_SIGNED = re.compile(
    r"afo_([a-z]+)_([0-9a-f]{32})_([0-9]{1,12})_([a-z0-9]{1,64})_([0-9a-f]{64})", re.ASCII
)


class Purpose(StrEnum):
    """What a token is for; none is taken for another."""

    SESSION = "session"
    INVITATION = "invitation"
    CHALLENGE = "challenge"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class PersonalToken:
    """A random token of one tenant: `afo_{purpose}_{tenant}_{secret}`."""

    purpose: Purpose
    tenant_id: UUID
    _secret: str = field(repr=False)

    @classmethod
    def new(cls, purpose: Purpose, tenant_id: UUID) -> Self:
        return cls(purpose, tenant_id, secrets.token_hex(SECRET_BYTES))

    @classmethod
    def read(cls, purpose: Purpose, text: str) -> Self | None:
        """The token that a text is, or None where it is none for this purpose."""
        found = _TOKEN.fullmatch(text)
        if found is None or found[1] != purpose:
            return None
        return cls(purpose, UUID(found[2]), found[3])

    def __str__(self) -> str:
        """The token as its owner sends it: shown once, never stored."""
        return f"afo_{self.purpose}_{self.tenant_id.hex}_{self._secret}"

    def hashed(self, pepper: str) -> bytes:
        """What is stored, and looked up: 32 bytes that are useless without the pepper."""
        return hmac.digest(pepper.encode(), str(self).encode(), sha256)

    def csrf(self, pepper: str) -> str:
        """What a page shows to prove that it may act in this session."""
        return hmac.digest(pepper.encode(), f"csrf|{self}".encode(), sha256).hex()


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token that nothing is stored of: it says itself what it is about, and until when.

    It is bound to a state of its account that changes once it was used, and to the pepper.
    """

    purpose: Purpose
    account_id: UUID
    expires_at: datetime
    note: str
    """What else it says: small letters and digits."""
    _signature: str = field(default="", repr=False)

    @classmethod
    def read(cls, purpose: Purpose, text: str) -> Self | None:
        """What a text claims, or None where it is no token for this purpose; not yet to be
        believed: that is what `is_genuine` says."""
        found = _SIGNED.fullmatch(text)
        if found is None or found[1] != purpose:
            return None
        expires_at = datetime.fromtimestamp(min(int(found[3]), _FOREVER), UTC)
        return cls(purpose, UUID(found[2]), expires_at, found[4], found[5])

    def signed(self, *, state: str, pepper: str) -> str:
        """The token as its owner sends it."""
        return f"{self._spoken()}_{self._signature_for(state, pepper)}"

    def is_genuine(self, *, state: str, pepper: str, now: datetime) -> bool:
        """Whether we signed it, over the account's state of now, and it has not expired."""
        expected = self._signature_for(state, pepper)
        return hmac.compare_digest(expected, self._signature) and now < self.expires_at

    def _spoken(self) -> str:
        until = int(self.expires_at.timestamp())
        return f"afo_{self.purpose}_{self.account_id.hex}_{until}_{self.note}"

    def _signature_for(self, state: str, pepper: str) -> str:
        return hmac.digest(pepper.encode(), f"{self._spoken()}|{state}".encode(), sha256).hex()


_FOREVER = 253_402_300_799  # The last second of the year 9999.
