"""Reads of the audit log: what a tenant's people, keys and jobs did."""

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.storage.audit import AuditEntry, AuditObject
from aforo.storage.listing import Listing, equal
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Scope


class AuditOrder(StrEnum):
    """In what order entries are listed."""

    NEWEST_FIRST = "created_at desc"
    OLDEST_FIRST = "created_at"


def audit_entries(
    *,
    actor_id: UUID | None = None,
    action: str | None = None,
    object_id: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    order: AuditOrder = AuditOrder.NEWEST_FIRST,
) -> Listing[AuditEntry]:
    """The entries that meet all conditions; `until` is the first moment that is too late."""
    moment = col(AuditEntry.created_at)
    where = [*equal(AuditEntry.actor_id, actor_id), *equal(AuditEntry.action, action)]
    if object_id is not None:
        about = sa.select(col(AuditObject.entry_id)).where(col(AuditObject.object_id) == object_id)
        where.append(col(AuditEntry.id).in_(about))
    if since is not None:
        where.append(moment >= since)
    if until is not None:
        where.append(moment < until)
    return Listing(AuditEntry, tuple(where), order)


async def audit_entries_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, AuditEntry]:
    return await rows_by_id(scope, AuditEntry, ids)
