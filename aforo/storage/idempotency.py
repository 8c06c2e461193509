"""Answers kept under the caller's key, in the transaction of the change that they tell of."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Field, col

from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime, Scope
from aforo.storage.secrets import Place
from aforo.storage.tables import TenantRow, moment

KEPT = timedelta(hours=24)
ANSWER_BYTES_MAX = 1024 * 1024
FORGOTTEN_AT_ONCE = 5_000
_TRIES_MAX = 5


class IdempotentAnswer(TenantRow, table=True):
    """The first answer to a request that carried a key; without one while it is being made."""

    __tablename__ = "idempotent_answer"
    is_audited: ClassVar[bool] = False
    __table_args__ = (sa.Index("idempotent_answer_age", "created_at"),)

    caller_id: UUID = Field(primary_key=True)
    key_hash: bytes = Field(primary_key=True)
    request_hash: bytes
    created_at: datetime = moment()
    status: int | None = None
    body: bytes | None = None
    """Sealed: it may show a secret that is stored nowhere else."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A request under the key that its sender chose; the same key of another caller is another."""

    tenant_id: TenantId
    caller_id: UUID
    key_hash: bytes
    request_hash: bytes

    @property
    def place(self) -> tuple[UUID, UUID, bytes]:
        """What only one request at a time may hold."""
        return self.tenant_id, self.caller_id, self.key_hash

    @property
    def sealed_at(self) -> Place:
        """Where its answer is stored, and can be read."""
        row = sha256(self.caller_id.bytes + self.key_hash).digest()
        return Place("idempotent_answer", "body", UUID(bytes=row[:16]))


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it was first given."""

    status: int
    body: bytes = field(repr=False)


class KeyReused(Exception):
    """The key stands for another request."""


async def claim(scope: Scope, wanted: Claim) -> Kept | None:
    """Take the key for this transaction: None; or the answer that is kept under it.

    Waits for a transaction that holds the key. Raises: `KeyReused`.
    """
    fresh = {
        "request_hash": wanted.request_hash,
        "created_at": scope.now,
        "status": None,
        "body": None,
    }
    taking = (
        insert(IdempotentAnswer)
        .values(caller_id=wanted.caller_id, key_hash=wanted.key_hash, **fresh)
        .on_conflict_do_update(
            index_elements=["tenant_id", "caller_id", "key_hash"],
            set_=fresh,
            where=col(IdempotentAnswer.created_at) <= scope.now - KEPT,
        )
        .returning(col(IdempotentAnswer.key_hash))
    )
    for _ in range(_TRIES_MAX):
        if (await scope.db.execute(taking)).first() is not None:
            return None
        found: IdempotentAnswer | None = await scope.db.scalar(
            sa.select(IdempotentAnswer).where(*_is(wanted))
        )
        if found is not None:  # Else it was forgotten between the two statements.
            if found.request_hash != wanted.request_hash:
                raise KeyReused
            assert found.status is not None, "a key is committed together with its answer"
            assert found.body is not None, "a key is committed together with its answer"
            data_key = await scope.data_key()
            return Kept(found.status, data_key.unseal(found.body, wanted.sealed_at))
    raise AssertionError("an answer is not forgotten as often as it is looked for")


async def keep(scope: Scope, taken: Claim, answer: Kept) -> None:
    """Store the answer in the transaction that claimed its key."""
    assert len(answer.body) <= ANSWER_BYTES_MAX, "the caller bounds the answer"
    data_key = await scope.data_key()
    sealed = data_key.seal(answer.body, taken.sealed_at)
    await scope.db.execute(
        sa.update(IdempotentAnswer).where(*_is(taken)).values(status=answer.status, body=sealed)
    )


async def forget_old(runtime: Runtime) -> int:
    """Delete the answers that are older than a day; how many there were."""
    forgotten = 0
    place = (
        col(IdempotentAnswer.tenant_id),
        col(IdempotentAnswer.caller_id),
        col(IdempotentAnswer.key_hash),
    )
    old = (
        sa.select(*place)
        .where(col(IdempotentAnswer.created_at) <= runtime.clock.now() - KEPT)
        .limit(FORGOTTEN_AT_ONCE)
    )
    while True:
        async with runtime.system("forget old answers") as db:
            gone = await db.execute(
                sa.delete(IdempotentAnswer)
                .where(sa.tuple_(*place).in_(old))
                .returning(col(IdempotentAnswer.created_at))
            )
            count = len(gone.all())
        forgotten += count
        if count < FORGOTTEN_AT_ONCE:
            return forgotten


def _is(wanted: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        col(IdempotentAnswer.caller_id) == wanted.caller_id,
        col(IdempotentAnswer.key_hash) == wanted.key_hash,
    )
