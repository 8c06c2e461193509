"""What queries and commands do with the rows of any tenant's table: fetch, compare, add."""

from collections.abc import Collection
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import SQLModel, col

from aforo.sdk.errors import Conflict
from aforo.storage.scope import Scope
from aforo.storage.tables import TenantTable

_UNIQUE_VIOLATION = "23505"

T = TypeVar("T", bound=TenantTable)


async def rows_by_id(scope: Scope, table: type[T], ids: Collection[UUID]) -> dict[UUID, T]:
    """The rows with these ids; an id that is not the tenant's is absent."""
    if not ids:
        return {}
    found = await scope.db.scalars(sa.select(table).where(col(table.id).in_(ids)))
    return {row.id: row for row in found}


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
