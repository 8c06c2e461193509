"""Relay: global ids, `node` and `nodes`, and connections."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar
from uuid import UUID

import strawberry

from aforo.api.parts.context import Context
from aforo.api.parts.fields import field
from aforo.api.parts.loaders import BatchQuery
from aforo.api.parts.permissions import READ
from aforo.api.parts.portal import FOUND_BY_ID
from aforo.sdk import ids
from aforo.sdk.encoding import decoded
from aforo.sdk.errors import Forbidden, Invalid
from aforo.storage.listing import PAGE_DEFAULT, PAGE_MAX
from aforo.tenants.queries import Caller, CallerKind

NODES_MAX = 100
ID_CHARACTERS_MAX = 200

First = Annotated[
    int | None,
    strawberry.argument(description=f"Size of the page: 0 to {PAGE_MAX}, else {PAGE_DEFAULT}."),
]
After = Annotated[
    str | None,
    strawberry.argument(description="The `endCursor` of the page before this one."),
]


@strawberry.interface(description="A thing with an id that is unique over all types.")
class Node:
    id: strawberry.ID = strawberry.field(description="The global id.")


@strawberry.type(description="Where a page stands among the others.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether there is more after this page.")
    has_previous_page: bool = strawberry.field(
        description="Whether this page was asked for with a cursor."
    )
    start_cursor: str | None = strawberry.field(description="Cursor of the first item.")
    end_cursor: str | None = strawberry.field(
        description="Cursor of the last item; give it as `after` to get the next page."
    )


T = TypeVar("T")
Row = TypeVar("Row")


@strawberry.type(description="An item and its cursor.")
class Edge(Generic[T]):
    cursor: str = strawberry.field(description="Where the item stands; opaque.")
    node: T = strawberry.field(description="The item.")


@strawberry.type(description="A page of items.")
class Connection(Generic[T]):
    count: strawberry.Private[Callable[[], Awaitable[int]]]
    edges: list[Edge[T]] = strawberry.field(description="The items with their cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page stands.")

    @field("How many items there are on all pages; counted only where it is asked for.")
    async def total_count(self) -> int:
        return await self.count()


class FromRow(Protocol):
    """A GraphQL type that is made from a row."""

    @classmethod
    def from_row(cls, row: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Page:
    """The page a caller asked for: so many rows past a position."""

    first: int
    after: str | None

    @property
    def rows(self) -> int:
        """How many rows to read: one more than the page, which tells whether there is more."""
        return self.first + 1


def page(first: int | None, after: str | None) -> Page:
    """Check a connection's arguments. Raises `Invalid`, code `BAD_PAGE`."""
    size = PAGE_DEFAULT if first is None else first
    if not 0 <= size <= PAGE_MAX:
        raise Invalid(f"first is 0 to {PAGE_MAX}, not {size}", code="BAD_PAGE", field="first")
    return Page(size, after)


def connection(
    rows: Sequence[Row],
    page: Page,
    of: Callable[[Row], T],
    *,
    cursor: Callable[[Row], str],
    count: Callable[[], Awaitable[int]],
) -> Connection[T]:
    """Wrap the `page.rows` rows that were read; `count` is called where all are to be counted."""
    shown = rows[: page.first]
    edges = [Edge(cursor=cursor(row), node=of(row)) for row in shown]
    return Connection(
        count=count,
        edges=edges,
        page_info=PageInfo(
            has_next_page=len(rows) > page.first,
            has_previous_page=page.after is not None,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )


def global_id(kind: str, id_: UUID) -> strawberry.ID:
    """The global id of a thing: opaque to clients, base64url of `Type:uuid`."""
    return strawberry.ID(ids.global_id(kind, id_))


def local_id(kind: str, id_: strawberry.ID, *, field: str | None = None) -> UUID:
    """The id of a thing of this kind, whether it exists or not.

    Raises `Invalid`, code `BAD_ID`, if the text is no id, or of another kind of thing.
    """
    found, uuid = _parsed(id_, field=field)
    if found != kind:
        raise Invalid(f"this is the id of a {found}, not of a {kind}", code="BAD_ID", field=field)
    return uuid


def optional_id(kind: str, id_: strawberry.ID | None, *, field: str | None = None) -> UUID | None:
    """Like `local_id`; None stays None."""
    return None if id_ is None else local_id(kind, id_, field=field)


def any_id(id_: strawberry.ID | None, *, field: str | None = None) -> UUID | None:
    """The id of a thing of any kind; None stays None. Raises `Invalid`, code `BAD_ID`."""
    return None if id_ is None else _parsed(id_, field=field)[1]


_FETCHED: dict[str, tuple[BatchQuery[UUID, Any], type[FromRow]]] = {}


def fetched_by(query: BatchQuery[UUID, Any]) -> Callable[[type[T]], type[T]]:
    """Let `node` find things of this type: `query` gives their rows, `from_row` wraps them.

    Goes above `@strawberry.type` on the class.
    """

    def register(kind: type[T]) -> type[T]:
        _FETCHED[kind.__name__] = (query, kind)  # type: ignore[assignment]
        return kind

    return register


def node_types() -> tuple[type, ...]:
    """Every type that `node` can find."""
    return tuple(kind for _, kind in _FETCHED.values())


async def fetch(context: Context, id_: strawberry.ID) -> Node | None:
    """The thing with this id; None if the caller's tenant has none.

    Raises `Invalid`; `Forbidden` where the caller may not read things of this kind.
    """
    kind, uuid = _parsed(id_, field="id")
    if kind not in _FETCHED:
        raise Invalid("this is no id of a thing that can be read", code="BAD_ID", field="id")
    _demand_kind(context.caller, kind)
    query, wrapper = _FETCHED[kind]
    row = await context.load(query, uuid)
    node: Node | None = None if row is None else wrapper.from_row(row)
    return node


async def fetch_all(context: Context, ids: Sequence[strawberry.ID]) -> list[Node | None]:
    """The things with these ids in order, one query per kind. Raises `Invalid`."""
    if len(ids) > NODES_MAX:
        raise Invalid(f"at most {NODES_MAX} ids, not {len(ids)}", code="BAD_PAGE", field="ids")
    return await asyncio.gather(*(fetch(context, id_) for id_ in ids))


def _demand_kind(caller: Caller, kind: str) -> None:
    # Before the look-up: whether there is such a thing is nothing that the caller may know.
    needed = READ.get(kind)
    if needed is not None and needed not in caller.permissions:
        raise Forbidden(f"{caller.named} lacks the permission {needed.name}", field="id")
    if caller.kind is CallerKind.PORTAL and kind not in FOUND_BY_ID:
        raise Forbidden(f"a {kind} is not to be had with a portal token", field="id")


def _parsed(id_: str, *, field: str | None) -> tuple[str, UUID]:
    try:
        text = decoded(id_, characters_max=ID_CHARACTERS_MAX).decode("ascii")
        kind, _, uuid = text.partition(":")
        parsed = UUID(uuid)
    except ValueError as error:
        raise Invalid("this is no id that the API gave", code="BAD_ID", field=field) from error
    if not kind.isalpha() or str(parsed) != uuid:
        raise Invalid("this is no id that the API gave", code="BAD_ID", field=field)
    return kind, parsed
