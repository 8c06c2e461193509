"""Connections: a page of one of the tenant's lists, or of the rows below a thing."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, TypeVar
from uuid import UUID

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Context
from aforo.api.parts.cursors import cursor_of, position_of
from aforo.api.parts.fields import publish_enum
from aforo.api.parts.relay import Connection, Page
from aforo.storage.listing import AgeOrder, Children, Listing
from aforo.storage.scope import Scope

T = TypeVar("T")

OLDEST_FIRST = "By age, the oldest first."
NEWEST_FIRST = "By age, the newest first."


def publish_order(kind: type[Enum], description: str, **values: str) -> None:
    """Make an enumeration of orders part of the schema; all of them order by age, too."""
    publish_enum(kind, description, OLDEST_FIRST=OLDEST_FIRST, NEWEST_FIRST=NEWEST_FIRST, **values)


publish_order(AgeOrder, "Orders by age.")
ByAge = Annotated[AgeOrder, strawberry.argument(description="In what order they are listed.")]


async def rows_in_pages(
    context: Context,
    listing: Listing[Any],
    *,
    first: int | None,
    after: str | None,
    of: Callable[[Any], T],
) -> Connection[T]:
    """A page of a list, each row wrapped by `of`. Raises `Invalid` for a bad page."""
    page = relay.page(first, after)
    position = None if after is None else position_of(after, listing)
    async with context.scope() as scope:
        rows = await listing.page(scope, after=position, first=page.rows)

    async def count() -> int:
        async with context.scope() as scope:
            return await listing.count(scope)

    return relay.connection(rows, page, of, cursor=lambda row: cursor_of(row, listing), count=count)


async def children_in_pages(
    context: Context,
    children: Children[Any],
    parent_id: UUID,
    *,
    first: int | None,
    after: str | None,
    of: Callable[[Any], T],
) -> Connection[T]:
    """A page of a parent's rows, each wrapped by `of`. Raises `Invalid` for a bad page.

    Parents that ask for the same page at the same time share one statement, and so do those that
    ask how many there are.
    """
    page = relay.page(first, after)
    by_age = Listing(children.table)
    after_id = None if after is None else position_of(after, by_age).id
    rows = await context.load(_PageOfEach(children, page, after_id), parent_id)

    async def count() -> int:
        return await context.load(_CountOfEach(children), parent_id) or 0

    return relay.connection(
        rows or (), page, of, cursor=lambda row: cursor_of(row, by_age), count=count
    )


@dataclass(frozen=True, slots=True)
class _PageOfEach:
    """A batch query; equal ones share a loader, because a loader is known by its query."""

    children: Children[Any]
    page: Page
    after: UUID | None

    async def __call__(
        self, scope: Scope, parent_ids: Collection[UUID]
    ) -> Mapping[UUID, Sequence[Any]]:
        return await self.children.pages(scope, parent_ids, after=self.after, first=self.page.rows)


@dataclass(frozen=True, slots=True)
class _CountOfEach:
    """A batch query of counts, equal by what it counts."""

    children: Children[Any]

    async def __call__(self, scope: Scope, parent_ids: Collection[UUID]) -> Mapping[UUID, int]:
        return await self.children.counts(scope, parent_ids)
