"""GraphQL of a whole server beside stock Strawberry that reads no database, in one run."""

import statistics
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.client import Client
from benchmarks.load import one, rate
from benchmarks.stock import ROWS, stock_server

ROUNDS = 5
SECONDS = 1.5
CREATED_AT_ONCE = 10

TYPENAME = {"query": "{ __typename }"}
PAGE = {
    "query": "query Page($first: Int) { customers(first: $first) { edges { cursor node { "
    "id externalId name email currency timeZone country region segment createdAt "
    "} } pageInfo { hasNextPage endCursor } } }",
    "variables": {"first": ROWS},
}


class Compared(NamedTuple):
    """Requests per second of Aforo and of stock Strawberry, medians of rounds taken in turn."""

    name: str
    ours: float
    stock: float


def compare(url: str, api_key: str) -> Iterator[Compared]:
    """Measure an Aforo at this address whose tenant has at least 100 customers."""
    ours = {"Authorization": f"Bearer {api_key}"}
    with stock_server() as stock:
        for name, body in (
            ("GraphQL `{ __typename }`", TYPENAME),
            (f"GraphQL {ROWS} rows × 10 fields, from PostgreSQL", PAGE),
        ):
            _check(one(url, body, ours), one(stock, body, {}))
            rates = [
                (rate(url, body, ours, SECONDS), rate(stock, body, {}, SECONDS))
                for _ in range(ROUNDS)
            ]
            yield Compared(name, *(statistics.median(each) for each in zip(*rates, strict=True)))


def open_customers(client: Client) -> None:
    """Make the customers of the page."""
    for start in range(0, ROWS, CREATED_AT_ONCE):
        fields = " ".join(
            f'c{number}: createCustomer(input: {{externalId: "page-{number}", name: "Customer '
            f'{number}", email: "billing@page-{number}.example", currency: "USD", country: "DE", '
            f'segment: "bench"}}) {{ __typename }}'
            for number in range(start, start + CREATED_AT_ONCE)
        )
        made = client.graphql(f"mutation {{ {fields} }}")
        assert {each["__typename"] for each in made.values()} == {"Customer"}, made


def _check(ours: dict[str, object], stock: dict[str, object]) -> None:
    """Both must have answered the same shape, or nothing is compared."""
    shapes = [_shape(answer["data"]) for answer in (ours, stock)]
    assert shapes[0] == shapes[1], "the answers differ in shape"


def _shape(value: object) -> object:
    match value:
        case dict():
            return {name: _shape(each) for name, each in value.items()}
        case list():
            return [_shape(each) for each in value]
    return None
