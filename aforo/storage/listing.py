"""Lists of a tenant's rows: which of them, in what order, a page at a time, and how many.

Pages are cut by position, never by number: rows that are added meanwhile move nothing. Orders and
conditions compare plain columns, because row security lets an index serve only what cannot leak,
and functions such as `lower` can.

The rows of pages are plain tuples with the names of the columns: a page takes a third of the time
that objects would take. They can be looked at, and that is all: they follow no change, take none
and have none of the table's methods. What a command changes, it reads as objects by id.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.storage.scope import Scope
from aforo.storage.tables import TenantTable

PAGE_MAX = 100
PAGE_DEFAULT = 20
PREFIX_END = "\U0010ffff"

T = TypeVar("T", bound=TenantTable)


class AgeOrder(StrEnum):
    """Orders by age, which is the order of ids. The values of every order name a column that is
    never null; ties fall to the id."""

    OLDEST_FIRST = "id"
    NEWEST_FIRST = "id desc"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a row stands in a list: the value by which it is ordered, if not its id, and its id."""

    value: str | datetime | None
    id: UUID


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A tenant's rows of one table that meet conditions, in an order that an index gives."""

    table: type[T]
    where: tuple[sa.ColumnElement[bool], ...] = ()
    order: StrEnum = AgeOrder.OLDEST_FIRST

    @property
    def column(self) -> str:
        """By which column the rows are ordered."""
        return self.order.value.partition(" ")[0]

    @property
    def descending(self) -> bool:
        return self.order.value.endswith(" desc")

    @property
    def holds_moments(self) -> bool:
        """Whether the values of positions are moments."""
        return isinstance(getattr(self.table, self.column).type, sa.DateTime)

    def position(self, row: T) -> Position:
        """Where a row of the list stands."""
        return Position(None if self.column == "id" else getattr(row, self.column), row.id)

    async def page(
        self, scope: Scope, *, after: Position | UUID | None = None, first: int
    ) -> list[T]:
        """At most `first` rows past a position.

        `first` is at most one more than `PAGE_MAX`: the one more tells that another page follows.
        """
        assert 0 < first <= PAGE_MAX + 1, "the caller bounds the page"
        query = sa.select(*_columns(self.table)).where(*self.where).limit(first)
        by = [col(self.table.id)]
        if self.column != "id":
            by.insert(0, col(getattr(self.table, self.column)))
        query = query.order_by(*(each.desc() if self.descending else each.asc() for each in by))
        if after is not None:
            query = query.where(self._past(by, after))
        return _owned(scope, self.table, (await scope.db.execute(query)).all())

    async def count(self, scope: Scope) -> int:
        """How many rows there are on all pages."""
        query = sa.select(sa.func.count()).select_from(self.table).where(*self.where)
        return await scope.db.scalar(query) or 0

    def _past(self, by: list[Any], after: Position | UUID) -> sa.ColumnElement[bool]:
        at = Position(None, after) if isinstance(after, UUID) else after
        values: tuple[Any, ...] = (at.id,) if len(by) == 1 else (at.value, at.id)
        # Compared as one row, so that one index serves the comparison and the order.
        place = sa.tuple_(*by) if len(by) > 1 else by[0]
        bound = sa.tuple_(*map(_bound, by, values)) if len(by) > 1 else values[0]
        past: sa.ColumnElement[bool] = place < bound if self.descending else place > bound
        return past


@dataclass(frozen=True, slots=True)
class Children(Generic[T]):
    """The rows of one table below each row of another, the oldest first."""

    table: type[T]
    parent: str
    """The column that names the row above."""

    async def pages(
        self, scope: Scope, parent_ids: Collection[UUID], *, after: UUID | None = None, first: int
    ) -> dict[UUID, list[T]]:
        """A page of each parent's rows, in one statement; a parent without rows has an empty one.

        Bounds are those of `Listing.page`.
        """
        assert 0 < first <= PAGE_MAX + 1, "the caller bounds the page"
        if not parent_ids:
            return {}
        parent = col(getattr(self.table, self.parent))
        place = sa.func.row_number().over(partition_by=parent, order_by=col(self.table.id))
        numbered = sa.select(col(self.table.id), place.label("place")).where(parent.in_(parent_ids))
        if after is not None:
            numbered = numbered.where(col(self.table.id) > after)
        kept = numbered.subquery()
        rows = await scope.db.execute(
            sa.select(*_columns(self.table))
            .join(kept, col(self.table.id) == kept.c.id)
            .where(kept.c.place <= first)
            .order_by(col(self.table.id))
        )
        pages: dict[UUID, list[T]] = {parent_id: [] for parent_id in parent_ids}
        for row in _owned(scope, self.table, rows.all()):
            pages[getattr(row, self.parent)].append(row)
        return pages

    async def counts(self, scope: Scope, parent_ids: Collection[UUID]) -> dict[UUID, int]:
        """How many rows each parent has, in one statement."""
        parent = col(getattr(self.table, self.parent))
        rows = await scope.db.execute(
            sa.select(parent, sa.func.count()).where(parent.in_(parent_ids)).group_by(parent)
        )
        return dict.fromkeys(parent_ids, 0) | {row[0]: row[1] for row in rows}


def equal(column: Any, value: object) -> tuple[sa.ColumnElement[bool], ...]:
    """The condition that a column has a value; none where no value was asked for."""
    return () if value is None else (col(column) == value,)


def begins(column: Any, prefix: str | None) -> tuple[sa.ColumnElement[bool], ...]:
    """The condition that a column in the collation "C" begins with a text; none without one."""
    if not prefix:
        return ()
    return (col(column) >= prefix, col(column) < prefix + PREFIX_END)


def _columns(table: type[TenantTable]) -> list[Any]:
    return [getattr(table, each.key) for each in sa.inspect(table).column_attrs]


def _owned(scope: Scope, table: type[T], rows: Sequence[Any]) -> list[T]:
    """The last wall, as it stands around rows that are objects."""
    if any(row.tenant_id != scope.tenant_id for row in rows):
        raise AssertionError(f"a {table.__name__} of another tenant in a tenant's list")
    return cast("list[T]", list(rows))


def _bound(column: Any, value: Any) -> Any:
    return sa.literal(value, column.type)
