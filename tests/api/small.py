"""A small schema whose fields do what the real one's must not: fail, hang, repeat, count."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from uuid import UUID

import strawberry
from strawberry.schema.config import StrawberryConfig

from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.permissions import NEEDS
from aforo.api.parts.scalars import JSON, SCALARS
from aforo.sdk import multiply
from aforo.sdk.errors import Conflict, Forbidden, Unavailable
from aforo.tenants.permissions import Permission

FLOOD_BYTES = 100_000
SECRET = "the password is hunter2"


@strawberry.type
class Item:
    name: str = "item"

    @strawberry.field
    def item(self) -> "Item":
        return Item()


@strawberry.type
class ItemEdge:
    node: Item


@strawberry.type
class ItemConnection:
    edges: list[ItemEdge]


@strawberry.type
class Query:
    @field("A greeting.", needs=Permission.CATALOG_READ)
    def hello(self, name: str = "you") -> str:
        return f"hello {name}"

    @strawberry.field
    def item(self) -> Item:
        return Item()

    @strawberry.field
    def items(self, first: int | None = 20) -> ItemConnection:
        return ItemConnection(edges=[ItemEdge(node=Item()) for _ in range(first or 0)])

    @strawberry.field
    def bug(self) -> str | None:
        raise ValueError(SECRET)

    @strawberry.field
    def fatal_bug(self) -> str:
        raise KeyError(SECRET)

    @strawberry.field
    def broken_scalar(self) -> Decimal | None:
        return float("nan")  # type: ignore[return-value]

    @strawberry.field
    def conflict(self) -> str | None:
        raise Conflict("the code is taken", code="CODE_TAKEN", field="code")

    @strawberry.field
    def forbidden(self) -> str | None:
        raise Forbidden("not yours")

    @strawberry.field
    def down(self) -> str | None:
        raise Unavailable("PostgreSQL cannot be reached", retry_after_seconds=7)

    @strawberry.field
    async def slow(self) -> str | None:
        WATCH.closed.clear()
        try:
            await asyncio.Event().wait()
        finally:
            WATCH.closed.set()
        return None

    @strawberry.field
    def echo(self, value: JSON) -> JSON:
        return value

    @strawberry.field
    def kind(self, value: JSON) -> str:
        return type(value).__name__

    @strawberry.field
    def twice(self, value: Decimal) -> Decimal:
        return multiply(Decimal(2), value)

    @strawberry.field
    async def loaded(self, info: Info, key: strawberry.ID) -> int | None:
        return await info.context.load(count_keys, UUID(key))


async def count_keys(_scope: object, keys: list[UUID]) -> dict[UUID, int]:
    """A batch query that says how large its batch was."""
    return dict.fromkeys(keys, len(keys))


@strawberry.type
class Mutation:
    @strawberry.mutation(metadata={NEEDS: Permission.CATALOG_WRITE})
    def change(self) -> str:
        return "changed"


class Watch:
    """What became of the streams that were opened."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = asyncio.Event()


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @strawberry.subscription
    async def forever(self) -> AsyncIterator[str]:
        WATCH.opened += 1
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            WATCH.closed.set()

    @strawberry.subscription
    async def stubborn(self) -> AsyncIterator[str]:
        try:
            yield "first"
            with suppress(asyncio.CancelledError):  # One is lost, as the driver of Redis does it.
                await asyncio.Event().wait()
            await asyncio.Event().wait()
        finally:
            WATCH.closed.set()

    @strawberry.subscription
    async def flood(self) -> AsyncIterator[str]:
        try:
            while True:
                Flood.sent += 1
                yield secrets.token_hex(FLOOD_BYTES // 2)  # Nothing that compression could shrink.
        finally:
            Flood.ended.set()

    @strawberry.subscription
    async def breaks(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError(SECRET)

    @strawberry.subscription
    async def ticks(self) -> AsyncIterator[Item]:
        for _ in range(3):
            yield Item()


class Flood:
    """Counts what the subscription `flood` was asked for."""

    sent = 0
    ended = asyncio.Event()

    def __init__(self) -> None:
        Flood.sent = 0
        Flood.ended.clear()

    async def until_it_stands(self) -> int:
        """Wait until nothing more is asked for; how many there were."""
        before = -1
        while Flood.sent != before:
            before = Flood.sent
            await asyncio.sleep(0.3)
        return before


WATCH = Watch()

schema = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(scalar_map=SCALARS),
)
