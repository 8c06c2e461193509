"""The audit log: who did what, with what was before and after, in the transaction of the change."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel

from aforo.storage.actors import Actor, ActorKind
from aforo.storage.tables import NOW_DEFAULT, TenantRow, TenantTable, choice, moment, new_id
from aforo.storage.trail import Change, trail_of
from aforo.storage.values import cut, shown

CHANGES_CHARACTERS_MAX = 64 * 1024
LABEL_CHARACTERS_MAX = 200
_encode = msgspec.json.Encoder(order="sorted").encode


class Outcome(StrEnum):
    """How it ended."""

    DONE = "done"
    REFUSED = "refused"


class AuditEntry(TenantTable, table=True):
    """One thing that was done, or refused. Never changed but by the sealer, who adds its place."""

    __tablename__ = "audit_entry"
    __table_args__ = (
        sa.Index("audit_entry_by_time", "tenant_id", "created_at", "id"),
        sa.Index("audit_entry_by_actor", "tenant_id", "actor_id", "created_at", "id"),
        sa.Index("audit_entry_by_action", "tenant_id", "action", "created_at", "id"),
        sa.Index("audit_entry_position", "tenant_id", "position", unique=True),
        sa.Index("audit_entry_unsealed", "seq", postgresql_where=sa.text("position IS NULL")),
    )
    is_audited: ClassVar[bool] = False

    seq: int = Field(
        default=None, sa_type=sa.BigInteger, sa_column_args=(sa.Identity(always=True),)
    )
    xid: int = Field(
        default=None,
        sa_type=sa.BigInteger,
        sa_column_kwargs={"server_default": sa.text("pg_current_xact_id()::text::bigint")},
    )
    """Of the transaction that wrote it: it is sealed once every older one has ended."""
    action: str
    """A mutation, or what else was done, such as `signIn`."""
    outcome: Outcome = choice(Outcome)
    reason: str | None = None
    """The code of a refusal."""
    actor_kind: ActorKind = choice(ActorKind)
    actor_id: UUID | None = None
    actor_label: str
    request_id: str | None = None
    address: str | None = None
    user_agent: str | None = None
    changes: str
    """JSON, kept as the text that was hashed."""
    omitted: int = 0
    """Rows that were changed and are not in `changes`, because there were too many."""
    position: int | None = Field(default=None, sa_type=sa.BigInteger)
    """Its place in the tenant's chain, from 1 on; None until it is sealed."""
    previous_hash: bytes | None = None
    hash: bytes | None = None


class AuditObject(TenantRow, table=True):
    """That an entry is about an object: an index, and no part of the record."""

    __tablename__ = "audit_object"
    is_audited: ClassVar[bool] = False

    object_id: UUID = Field(primary_key=True)
    created_at: datetime = moment(
        default=None, primary_key=True, sa_column_kwargs={"server_default": NOW_DEFAULT}
    )
    entry_id: UUID = Field(primary_key=True)


@dataclass(frozen=True, slots=True)
class Thing:
    """What an entry is about, where no row tells of it by itself."""

    kind: str
    """The name of its class, such as `Member`."""
    id: UUID | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = field(default=None)


async def record(
    db: AsyncSession,
    by: Actor,
    action: str,
    *things: Thing,
    outcome: Outcome = Outcome.DONE,
    reason: str | None = None,
) -> None:
    """Write an entry about something that is no mutation, such as a sign-in; a secret must not be
    among the values. `db` is a scope's session, and the entry is part of its transaction."""
    changes = [
        Change(thing.kind, (thing.id,), _plain(thing.before), _plain(thing.after))
        for thing in things
    ]
    await _insert(db, by, action, changes, omitted=0, outcome=outcome, reason=reason)


async def write_trail(db: AsyncSession) -> None:
    """Write the entry of what a scope has changed, if it is followed and has changed anything."""
    if (trail := trail_of(db.sync_session)) is None:
        return
    await db.flush()
    changes, omitted = trail.taken()
    if changes:
        assert trail.actor.operation is not None, "only a named operation is followed"
        await _insert(db, trail.actor, trail.actor.operation, changes, omitted=omitted)


async def _insert(
    db: AsyncSession,
    by: Actor,
    action: str,
    changes: Sequence[Change],
    *,
    omitted: int,
    outcome: Outcome = Outcome.DONE,
    reason: str | None = None,
) -> None:
    """One statement: the entry, and what it is about."""
    kept, left_out = _bounded(changes)
    entries, objects = _table(AuditEntry), _table(AuditObject)
    entry = (
        sa.insert(entries)
        .values(
            id=new_id(),
            action=cut(action, LABEL_CHARACTERS_MAX),
            outcome=outcome,
            reason=reason,
            actor_kind=by.kind,
            actor_id=by.id,
            actor_label=cut(by.label, LABEL_CHARACTERS_MAX),
            request_id=by.request_id,
            address=by.address,
            user_agent=None if by.user_agent is None else cut(by.user_agent, LABEL_CHARACTERS_MAX),
            changes=kept,
            omitted=omitted + left_out,
        )
        .returning(entries.c.id, entries.c.created_at)
        .cte("entry")
    )
    ids = sorted({change.id for change in changes if change.id is not None})
    about = sa.func.unnest(sa.literal(ids, ARRAY(sa.Uuid)))
    connection = await db.connection()
    await connection.execute(
        sa.insert(objects).from_select(
            ["object_id", "created_at", "entry_id"],
            sa.select(about, entry.c.created_at, entry.c.id),
        )
    )


def _bounded(changes: Iterable[Change]) -> tuple[str, int]:
    """The changes as JSON of a bounded length, and how many did not fit."""
    parts: list[str] = []
    length = left_out = 0
    for change in changes:
        text = _encode(
            {
                "type": change.kind,
                "id": None if change.id is None else str(change.id),
                "before": change.before,
                "after": change.after,
            }
        ).decode()
        if length + len(text) > CHANGES_CHARACTERS_MAX:
            left_out += 1
            continue
        parts.append(text)
        length += len(text)
    return f"[{','.join(parts)}]", left_out


def _plain(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if values is None else {name: shown(value) for name, value in values.items()}


def _table(kind: type[SQLModel]) -> sa.Table:
    table: sa.Table = kind.__table__  # type: ignore[attr-defined]
    return table
