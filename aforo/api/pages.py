"""Connections in order of id: a page of the tenant's rows, or of the rows below a thing."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

from aforo.api import relay
from aforo.api.context import Context
from aforo.api.relay import Connection, Page
from aforo.storage.scope import Scope

T = TypeVar("T")


class PageQuery(Protocol):
    """A query for a page of rows, in order of id."""

    async def __call__(
        self, scope: Scope, /, *, after: UUID | None, first: int
    ) -> Sequence[Any]: ...


class ChildrenQuery(Protocol):
    """A query for a page of each parent's rows, in order of id."""

    async def __call__(
        self, scope: Scope, parent_ids: Collection[UUID], /, *, after: UUID | None, first: int
    ) -> Mapping[UUID, Sequence[Any]]: ...


async def rows_in_pages(
    context: Context,
    query: PageQuery,
    *,
    first: int | None,
    after: str | None,
    of: Callable[[Any], T],
) -> Connection[T]:
    """A page of the tenant's rows, each wrapped by `of`. Raises `Invalid` for a bad page."""
    page = relay.page(first, after)
    async with context.scope() as scope:
        rows = await query(scope, after=page.after_id, first=page.rows)
    return relay.connection(rows, page, of)


async def children_in_pages(
    context: Context,
    query: ChildrenQuery,
    parent_id: UUID,
    *,
    first: int | None,
    after: str | None,
    of: Callable[[Any], T],
) -> Connection[T]:
    """A page of a parent's rows, each wrapped by `of`. Raises `Invalid` for a bad page.

    Parents that ask for the same page at the same time share one statement.
    """
    page = relay.page(first, after)
    rows = await context.load(_PageOfEach(query, page), parent_id)
    return relay.connection(rows or (), page, of)


@dataclass(frozen=True, slots=True)
class _PageOfEach:
    """A batch query; equal ones share a loader, because a loader is known by its query."""

    query: ChildrenQuery
    page: Page

    async def __call__(
        self, scope: Scope, parent_ids: Collection[UUID]
    ) -> Mapping[UUID, Sequence[Any]]:
        return await self.query(scope, parent_ids, after=self.page.after_id, first=self.page.rows)
