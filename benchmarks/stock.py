"""Stock Strawberry from memory, with the caches that its manual names: parsing and validation."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import strawberry
import uvicorn
from strawberry.asgi import GraphQL
from strawberry.extensions import ParserCache, ValidationCache

from benchmarks.ports import free_port, wait_for_port

ROWS = 100


@strawberry.type
class Customer:
    id: strawberry.ID
    external_id: str
    name: str
    email: str | None
    currency: str
    time_zone: str
    country: str | None
    region: str | None
    segment: str | None
    created_at: datetime


@strawberry.type
class CustomerEdge:
    cursor: str
    node: Customer


@strawberry.type
class PageInfo:
    has_next_page: bool
    end_cursor: str | None


@strawberry.type
class CustomerConnection:
    edges: list[CustomerEdge]
    page_info: PageInfo


def _customer(number: int) -> Customer:
    return Customer(
        id=strawberry.ID(uuid4().hex),
        external_id=f"customer-{number}",
        name=f"Customer {number}",
        email=f"billing@customer-{number}.example",
        currency="USD",
        time_zone="UTC",
        country="DE",
        region=None,
        segment="bench",
        created_at=datetime.now(UTC),
    )


PAGE = CustomerConnection(
    edges=[CustomerEdge(cursor=uuid4().hex, node=_customer(number)) for number in range(ROWS)],
    page_info=PageInfo(has_next_page=False, end_cursor=None),
)


@strawberry.type
class Query:
    @strawberry.field
    async def customers(self, first: int | None = 20) -> CustomerConnection:
        assert first == ROWS, "the page is made for that size"
        return PAGE


@contextmanager
def stock_server() -> Iterator[str]:
    """Serve the page over HTTP as `aforo serve` serves its own; the origin."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,))
    process.start()
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join()


def _serve(port: int) -> None:
    schema = strawberry.Schema(query=Query, extensions=[ParserCache, ValidationCache])
    uvicorn.run(
        GraphQL(schema, graphql_ide=None),
        host="127.0.0.1",
        port=port,
        log_level="error",
        access_log=False,
    )
