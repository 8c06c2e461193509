"""Reads of policies and persisted documents."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.callers.models import ApiPolicy, PersistedDocument
from aforo.storage.listing import AgeOrder, Listing
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Scope

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a caller may send. None where nothing was set: then the installation's numbers hold."""

    points_per_second: int | None = None
    events_per_second: int | None = None
    only_persisted: bool | None = None

    @classmethod
    def of(cls, row: ApiPolicy | None) -> Self:
        if row is None:
            return cls()
        return cls(row.points_per_second, row.events_per_second, row.only_persisted)

    def or_else(self, other: "Policy") -> "Policy":
        """What is set here, and for the rest what is set there."""
        return Policy(
            _first(self.points_per_second, other.points_per_second),
            _first(self.events_per_second, other.events_per_second),
            _first(self.only_persisted, other.only_persisted),
        )


async def policy(scope: Scope, caller_id: UUID) -> Policy:
    """What holds for a caller: its own settings, and where it has none the tenant's."""
    found = await policies(scope, [caller_id, scope.tenant_id])
    return found[caller_id].or_else(found[scope.tenant_id])


async def policies(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Policy]:
    """What was set for each of these keys, or for the tenant itself by its own id."""
    rows = await scope.db.scalars(sa.select(ApiPolicy).where(col(ApiPolicy.id).in_(ids)))
    found = {row.id: row for row in rows}
    return {id_: Policy.of(found.get(id_)) for id_ in ids}


async def persisted_text(scope: Scope, document_id: str) -> str | None:
    """The text of a persisted document; None if the tenant has none of this id."""
    query = sa.select(col(PersistedDocument.text))
    found: str | None = await scope.db.scalar(
        query.where(col(PersistedDocument.document_id) == document_id)
    )
    return found


async def persisted_documents_by_id(
    scope: Scope, ids: Collection[UUID]
) -> dict[UUID, PersistedDocument]:
    return await rows_by_id(scope, PersistedDocument, ids)


def persisted_documents(*, order: AgeOrder = AgeOrder.OLDEST_FIRST) -> Listing[PersistedDocument]:
    """The tenant's persisted documents."""
    return Listing(PersistedDocument, order=order)


def _first(one: V | None, other: V | None) -> V | None:
    return other if one is None else one
