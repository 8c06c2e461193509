"""The executor that reads attributes directly, compared with the framework's own."""

import asyncio
import dataclasses
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import anyio.to_thread
import pytest
import strawberry
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLField,
    GraphQLID,
    GraphQLSchema,
    execute,
    get_named_type,
    get_nullable_type,
    is_list_type,
    is_required_argument,
    parse,
    print_ast,
    subscribe,
    validate,
)
from graphql.execution import Executor
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from strawberry.utils.await_maybe import await_maybe

from aforo.api.parts.context import Context
from aforo.api.protocol import direct
from aforo.api.protocol.direct import DirectExecutor, Plans
from aforo.api.protocol.documents import Documents, Request
from aforo.api.schema import schema as served
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.tenants.commands import NewTenant
from aforo.tenants.queries import authenticate
from tests.api import odd
from tests.api.made_up import Argument, Writer, variables
from tests.api.walk import SAMPLES, kind_of
from tests.api.world import World, make_world
from tests.conftest import NOW

# The executor itself leaves coroutines behind where an error ends a list early; so do both here.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SEEDS = st.integers(min_value=0, max_value=2**48)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What is left behind goes here, and in no other test."""
    yield
    gc.collect()


def _executor(schema: strawberry.Schema, plans: Plans | None) -> dict[str, Any]:
    """The direct executor if there are plans, else the stock one."""
    executor: type[Executor] = DirectExecutor if plans else schema.execution_context_class
    return {"executor_class": executor, "hide_suggestions": True} | (
        {"plans": plans} if plans else {}
    )


async def _result(
    schema: strawberry.Schema,
    document: DocumentNode,
    values: dict[str, Any],
    plans: Plans | None,
    context: object,
) -> ExecutionResult:
    options = _executor(schema, plans)
    result = execute(
        schema._schema, document, variable_values=values, context_value=context, **options
    )
    found: ExecutionResult = await await_maybe(result)
    return found


def _written(result: ExecutionResult) -> str:
    """Everything that a client could see of a result, and which exceptions are behind it."""
    causes = [repr(error.original_error) for error in result.errors or ()]
    return json.dumps([result.formatted, causes], default=repr)


def _seeded(random: Random, _field: GraphQLField, argument: str) -> str | None:
    return str(random.randint(0, 500)) if argument == "seed" or random.random() < 0.5 else None


def _document(
    schema: GraphQLSchema, random: Random, operation: str, argument: Argument
) -> tuple[DocumentNode, dict[str, Any]] | None:
    """A valid document with its variables; None if what was made up is not valid."""
    writer = Writer(schema, random, argument)
    roots = {
        "query": schema.query_type,
        "mutation": schema.mutation_type,
        "subscription": schema.subscription_type,
    }
    root = roots[operation]
    assert root is not None
    document = parse(writer.operation(operation, root, depth=4))
    return None if validate(schema, document) else (document, variables(writer))


async def test_made_up_documents_over_odd_shapes_get_the_stock_answer() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=600, database=None, phases=[Phase.generate])
    @given(seed=SEEDS)
    def compare(seed: int) -> None:
        seen.update(asyncio.run(_compare(seed)))

    await anyio.to_thread.run_sync(compare)
    assert seen["documents"] >= 500
    assert seen["with errors"] > 100
    assert seen["without"] > 100
    assert seen["mutations"] > 33


async def _compare(seed: int) -> list[str]:
    random = Random(seed)
    operation = random.choices(["query", "mutation"], [0.85, 0.15])[0]
    made = _document(odd.schema._schema, random, operation, _seeded)
    if made is None:
        return []
    document, values = made
    changes: list[list[int]] = [[], [], []]
    stock = await _result(odd.schema, document, values, None, changes[0])
    plans = Plans(document)
    for number in (1, 2):  # The second time with everything worked out already.
        ours = await _result(odd.schema, document, values, plans, changes[number])
        assert _written(ours) == _written(stock), print_ast(document)
        assert changes[number] == changes[0]
    return ["documents", "with errors" if stock.errors else "without", f"{operation}s"]


async def test_made_up_subscriptions_get_the_stock_answers() -> None:
    compared = 0
    for seed in range(150):
        made = _document(odd.schema._schema, Random(seed), "subscription", _seeded)
        if made is None:
            continue
        stock, ours = [
            [_written(result) async for result in _answers(*made, plans)]
            for plans in (None, Plans(made[0]))
        ]
        assert ours == stock, print_ast(made[0])
        compared += 1
    assert compared > 100


async def _answers(
    document: DocumentNode, values: dict[str, Any], plans: Plans | None
) -> AsyncIterator[ExecutionResult]:
    options = _executor(odd.schema, plans)
    started = subscribe(odd.schema._schema, document, variable_values=values, **options)
    answers = await await_maybe(started)
    if isinstance(answers, ExecutionResult):
        yield answers
        return
    async for answer in answers:
        yield answer


@pytest.fixture(scope="module")
async def world(shared_runtime: Runtime) -> AsyncIterator[World]:
    runtime = dataclasses.replace(shared_runtime, clock=MovableClock(NOW))
    made = await make_world(runtime, f"direct-{new_id().hex[-8:]}")
    yield made
    await made.client.aclose()


async def test_made_up_queries_of_the_schema_that_is_served_get_the_stock_answer(
    runtime: Runtime, world: World
) -> None:
    def argument(random: Random, field: GraphQLField, name: str) -> str | None:
        definition = field.args[name]
        if not is_required_argument(definition) and random.random() < 0.7:
            return None
        if get_named_type(definition.type) is GraphQLID:
            id_ = json.dumps(world.ids.get(kind_of(name), "nonsense"))
            return f"[{id_}]" if is_list_type(get_nullable_type(definition.type)) else id_
        sample = SAMPLES.get(name)
        return None if sample is None or name in {"state", "kind"} else json.dumps(sample)

    caller = await authenticate(runtime, world.tenant.key.token)
    assert caller is not None
    compared = 0
    for seed in range(120):
        made = _document(served._schema, Random(seed), "query", argument)
        if made is None:
            continue
        plans = Plans(made[0])
        stock, ours, again = [
            _written(await _result(served, *made, each, Context(runtime, caller, "a request")))
            for each in (None, plans, plans)
        ]
        assert ours == stock, print_ast(made[0])
        assert again == stock, print_ast(made[0])
        compared += 1
    assert compared > 80


@pytest.mark.parametrize(
    ("document", "is_constant"),
    [
        ("{ __typename }", True),
        ("query Q { a: __typename __typename b: __typename a: __typename }", True),
        ("{ __typename @skip(if: true) }", False),
        ("{ ...F } fragment F on Query { __typename }", False),
        ("query($b: Boolean = true) { __typename @include(if: $b) }", False),
        ("mutation { __typename }", False),
    ],
)
async def test_what_is_known_beforehand_is_what_the_stock_executor_says(
    runtime: Runtime, tenant: NewTenant, document: str, is_constant: bool
) -> None:
    caller = await authenticate(runtime, tenant.key.token)
    assert caller is not None
    documents = Documents(odd.schema, introspection=True)
    operation = documents.prepare(Request(document, {}, None))
    assert (operation.constant is not None) == is_constant
    ours = await documents.execute(operation, Context(runtime, caller, "a request"))
    assert _written(ours) == _written(await _result(odd.schema, parse(document), {}, None, []))


CUSTOMERS = """query($first: Int) { customers(first: $first) { edges { cursor node {
  id externalId name email currency timeZone country region segment createdAt
} } pageInfo { hasNextPage endCursor } } }"""


async def test_of_a_connection_only_the_root_field_goes_the_stock_way(
    runtime: Runtime, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[str] = []
    execute_field = DirectExecutor.execute_field

    def noted(self: Any, parent_type: Any, source: Any, details: Any, *rest: Any) -> Any:
        executed.append(details[0].node.name.value)
        return execute_field(self, parent_type, source, details, *rest)

    monkeypatch.setattr(DirectExecutor, "execute_field", noted)
    caller = await authenticate(runtime, world.tenant.key.token)
    assert caller is not None
    document = parse(CUSTOMERS)
    context = Context(runtime, caller, "a request")
    result = await _result(served, document, {"first": 2}, Plans(document), context)
    assert result.errors is None
    assert len(result.data["customers"]["edges"]) == 2
    assert executed == ["customers"]


async def test_what_is_kept_of_an_operation_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    switches = [f"s{number}" for number in range(5)]
    declared = ", ".join(f"${name}: Boolean!" for name in switches)
    fields = " ".join(f"{name}: name @skip(if: ${name})" for name in switches)
    document = parse(f"query({declared}) {{ plain(seed: 1) {{ number {fields} }} }}")
    plans = Plans(document)
    for number in range(2 ** len(switches)):
        values = {name: bool(number >> bit & 1) for bit, name in enumerate(switches)}
        stock, ours = [
            _written(await _result(odd.schema, document, values, each, []))
            for each in (None, plans)
        ]
        assert ours == stock
    assert len(plans._variants) == direct.VARIANTS_MAX
    monkeypatch.setattr(direct, "FIELDS_MAX", 3)
    nested = parse("{ plain(seed: 1) { name twin { name others { name words number } } } }")
    stock, ours = [
        _written(await _result(odd.schema, nested, {}, each, [])) for each in (None, Plans(nested))
    ]
    assert ours == stock
