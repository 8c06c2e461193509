"""Secrets at rest: sealed with a key per owner, which itself is wrapped by the master key.

AES-256-GCM both times. What is sealed is bound to its place: moved to another row, column, table
or owner it cannot be opened, so whoever can write to the database gains nothing by copying.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import ClassVar
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from aforo.settings import Settings
from aforo.storage.tables import NOW_DEFAULT, TenantRow, moment

KEY_BYTES = 32
NONCE_BYTES = 12
KEY_ID_BYTES = 8
FORM = b"\x01"
"""Of all that is stored here; another algorithm would be another form."""


class SecretUnreadable(Exception):
    """A secret cannot be opened: the master key is another one, or the row was tampered with.

    No caller can act on it, so it is answered as a failure of ours, and logged.
    """


class WrappedKey(TenantRow, table=True):
    """A tenant's data key, useless without the master key."""

    __tablename__ = "data_key"
    is_audited: ClassVar[bool] = False

    wrapped: bytes
    created_at: datetime = moment(default=None, sa_column_kwargs={"server_default": NOW_DEFAULT})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed secret is stored."""

    table: str
    column: str
    row: UUID


@dataclass(frozen=True, slots=True)
class DataKey:
    """The key under which the secrets of one owner (a tenant, an account) are sealed."""

    owner: UUID
    _key: bytes = field(repr=False)

    def seal(self, secret: str | bytes, place: Place) -> bytes:
        """What to store: it can be opened in this place alone, and no two are alike."""
        plain = secret.encode() if isinstance(secret, str) else secret
        nonce = secrets.token_bytes(NONCE_BYTES)
        return FORM + nonce + AESGCM(self._key).encrypt(nonce, plain, self._bound_to(place))

    def unseal(self, sealed: bytes, place: Place) -> bytes:
        """The secret. Raises `SecretUnreadable`."""
        return _opened(self._key, sealed, self._bound_to(place))

    def _bound_to(self, place: Place) -> bytes:
        parts = (self.owner.bytes, place.table.encode(), place.column.encode(), place.row.bytes)
        # With lengths: no two places are the same bytes.
        return b"".join(len(part).to_bytes(2) + part for part in parts)


@dataclass(frozen=True, slots=True)
class MasterKey:
    """Wraps data keys. It is never stored: each process is told it."""

    _key: bytes = field(repr=False)

    @classmethod
    def of(cls, settings: Settings) -> "MasterKey":
        """From AFORO_MASTER_KEY, or, where that is not set, from AFORO_KEY_PEPPER."""
        source = settings.master_key or settings.key_pepper
        # Two uses of one secret must not share a key: HKDF gives each its own.
        derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"aforo master key")
        return cls(derived.derive(source.encode()))

    def new_wrapped(self, owner: UUID) -> bytes:
        """A new random data key of an owner, wrapped for the database."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        fresh = secrets.token_bytes(KEY_BYTES)
        return FORM + self._id() + nonce + AESGCM(self._key).encrypt(nonce, fresh, owner.bytes)

    def unwrap(self, wrapped: bytes, owner: UUID) -> DataKey:
        """The data key. Raises `SecretUnreadable`."""
        used, rest = wrapped[1 : 1 + KEY_ID_BYTES], wrapped[1 + KEY_ID_BYTES :]
        if not hmac.compare_digest(used, self._id()):
            raise SecretUnreadable(
                "this data key was wrapped by another master key: set AFORO_MASTER_KEY "
                "(or, without it, AFORO_KEY_PEPPER) to what it was"
            )
        return DataKey(owner, _opened(self._key, wrapped[:1] + rest, owner.bytes))

    def _id(self) -> bytes:
        """Tells one master key from another, and nothing about it."""
        return hmac.digest(self._key, b"id", sha256)[:KEY_ID_BYTES]


def _opened(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    if sealed[:1] != FORM:
        raise SecretUnreadable("a secret is stored in a form that this release does not know")
    nonce, rest = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, rest, bound_to)
    except (InvalidTag, ValueError) as error:
        raise SecretUnreadable("a secret was changed, or moved from its place") from error
