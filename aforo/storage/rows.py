"""What queries and commands do with the rows of any tenant's table: fetch, page, add."""

from collections.abc import Collection
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import SQLModel, col

from aforo.sdk.errors import Conflict
from aforo.storage.scope import Scope
from aforo.storage.tables import TenantTable

PAGE_MAX = 100
_UNIQUE_VIOLATION = "23505"

T = TypeVar("T", bound=TenantTable)


async def rows_by_id(scope: Scope, table: type[T], ids: Collection[UUID]) -> dict[UUID, T]:
    """The rows with these ids; an id that is not the tenant's is absent."""
    if not ids:
        return {}
    found = await scope.db.scalars(sa.select(table).where(col(table.id).in_(ids)))
    return {row.id: row for row in found}


async def page_of_rows(
    scope: Scope,
    table: type[T],
    *where: sa.ColumnElement[bool],
    after: UUID | None,
    first: int,
) -> list[T]:
    """At most `first` rows past the id `after`, in the order in which they were made.

    `first` is at most one more than `PAGE_MAX`: the one more tells that another page follows.
    """
    assert 0 < first <= PAGE_MAX + 1, "the caller bounds the page"
    query = sa.select(table).where(*where).order_by(col(table.id)).limit(first)
    if after is not None:
        query = query.where(col(table.id) > after)
    return list(await scope.db.scalars(query))


async def pages_of_children(
    scope: Scope,
    table: type[T],
    parent: Any,
    parent_ids: Collection[UUID],
    *,
    after: UUID | None,
    first: int,
) -> dict[UUID, list[T]]:
    """A page of each parent's rows, by the column `parent` that names it; one statement.

    Order and bounds are those of `page_of_rows`; a parent without rows has an empty page.
    """
    assert 0 < first <= PAGE_MAX + 1, "the caller bounds the page"
    if not parent_ids:
        return {}
    place = sa.func.row_number().over(partition_by=parent, order_by=col(table.id))
    numbered = sa.select(col(table.id), place.label("place")).where(parent.in_(parent_ids))
    if after is not None:
        numbered = numbered.where(col(table.id) > after)
    kept = numbered.subquery()
    rows = await scope.db.execute(
        sa.select(table, parent)
        .join(kept, col(table.id) == kept.c.id)
        .where(kept.c.place <= first)
        .order_by(col(table.id))
    )
    pages: dict[UUID, list[T]] = {parent_id: [] for parent_id in parent_ids}
    for row, parent_id in rows:
        pages[parent_id].append(row)
    return pages


def one_of(column: Any, ids: Collection[UUID]) -> sa.ColumnElement[bool]:
    """Whether a column of ids has one of these; for more of them than `in_` can take.

    They are one array and not one parameter each, of which a statement takes 32,767.
    """
    return col(column) == sa.any_(sa.literal(list(ids), ARRAY(sa.Uuid)))


async def add_unique(scope: Scope, row: SQLModel, *, taken: Conflict) -> None:
    """Insert a row; raises `taken` where another row holds what must be unique.

    The transaction is over then: let the error leave the scope.
    """
    scope.db.add(row)
    try:
        await scope.db.flush()
    except sa.exc.IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) != _UNIQUE_VIOLATION:
            raise
        raise taken from error
