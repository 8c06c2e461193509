"""API keys and portal tokens: how they are made, read, and checked without their secret."""

import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from hashlib import sha256

from aforo.tenants.models import Environment

PUBLIC_ID_BYTES = 8
SECRET_BYTES = 24
"""192 random bits: no guess, and no table of hashes, comes near."""

_PORTAL = "portal"
_TOKEN = re.compile(
    rf"afo_(?P<word>live|test|portal)_(?P<public_id>[0-9a-f]{{{2 * PUBLIC_ID_BYTES}}})"
    rf"_(?P<secret>[0-9a-f]{{{2 * SECRET_BYTES}}})_(?P<checksum>[0-9a-f]{{8}})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Token:
    """The parts of a well-formed token `afo_{live|test|portal}_{public_id}_{secret}_{checksum}`."""

    environment: Environment | None
    """Of an API key; None for a portal token."""
    public_id: str
    """May be shown; finds the row."""
    secret: str

    def __str__(self) -> str:
        """The token as its owner sends it: shown once, never stored."""
        spoken = self._spoken()
        return f"{spoken}_{_checksum(spoken)}"

    def __repr__(self) -> str:
        # A secret must not reach a log by way of a traceback.
        return f"Token({self.public_id})"

    def hashed(self, pepper: str) -> bytes:
        """What is stored: 32 bytes that are useless without the pepper."""
        return hmac.digest(pepper.encode(), self._spoken().encode(), sha256)

    def matches(self, stored: bytes, pepper: str) -> bool:
        """Whether this is the token behind a stored hash, in a time that tells nothing."""
        return hmac.compare_digest(self.hashed(pepper), stored)

    def _spoken(self) -> str:
        word = self.environment.value if self.environment else _PORTAL
        return f"afo_{word}_{self.public_id}_{self.secret}"


def make_token(environment: Environment | None, *, public_id: str | None = None) -> Token:
    """A new random token; for a portal without an environment.

    With the public id of another one it takes that one's place.
    """
    return Token(
        environment,
        public_id or secrets.token_hex(PUBLIC_ID_BYTES),
        secrets.token_hex(SECRET_BYTES),
    )


def parse_token(text: str) -> Token | None:
    """The token that a text is, or None: wrong shape, or a typo that the checksum gives away.

    So a mistyped key is refused without a look-up.
    """
    found = _TOKEN.fullmatch(text)
    if found is None:
        return None
    environment = None if found["word"] == _PORTAL else Environment(found["word"])
    token = Token(environment, found["public_id"], found["secret"])
    return token if str(token) == text else None


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
