"""Stage 6 on ClickHouse against a plain model of the same events in Python."""

from datetime import UTC
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aforo.catalog.models import Aggregation, Meter
from aforo.metering import queries
from aforo.metering.aggregate import EVENTS, selection
from aforo.metering.canonical import canonical
from aforo.metering.projection import stored_texts, texts_of, xor_of
from aforo.metering.queries import MeterUsage
from aforo.sdk.money import exact
from aforo.sdk.period import Period
from aforo.storage.scope import Runtime
from tests.metering.model import (
    BIG,
    CUSTOMERS,
    END,
    START,
    TICK,
    Log,
    Sent,
    counted,
    key_of,
    meter_of,
    summing,
    total_of,
    value_of,
)

quantities = st.decimals(-BIG, BIG, places=12) | st.decimals(-1000, 1000, places=3)
TEXTS = [
    *("", "null", "true", "NaN", "1e5", "1_000", " 1", "1\n", "\t", "٣", "+1", "5.", ".5", "-0"),
    *("007", "1" * 15, "1" * 16, "0." + "1" * 12, "0." + "1" * 13, "-1", "0", "1", "1.50"),
    *('"', '"1', '"x', 'say "x"', "\\", "\\'", "'; --", "{}", "[1]", "x", "X", "ünï😀"),
]
OTHERS = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        Decimal("1.0"),
        Decimal("-0.0"),
        Decimal("1.50"),
        Decimal("1E+2"),
    ),
    *(10**15 - 1, 10**15, -(10**15), 10**60, BIG, -BIG, Decimal("1e-12"), Decimal("1e-13")),
    *(Decimal("1e400"), Decimal("1e-60"), [], [1, Decimal("2.50")], {}, {"a": "x", "b": [None]}),
]
values = (
    quantities
    | quantities.map(lambda quantity: format(quantity, "f"))
    | st.integers(-(10**15), 10**15)
    | st.sampled_from(TEXTS)
    | st.sampled_from(OTHERS)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
names = st.sampled_from(["v", "v", "a.b", "ünï \"q'\\", "1"])
moments = st.sampled_from([START, START - TICK, START + TICK, END - TICK, END]) | st.datetimes(
    START.replace(tzinfo=None), END.replace(tzinfo=None), timezones=st.just(UTC)
)
sent_events = st.lists(
    st.builds(
        Sent,
        st.dictionaries(names, values, max_size=3),
        st.sampled_from(CUSTOMERS),
        moments,
        st.sampled_from(["call", "call", "call", "other"]),
    ),
    max_size=25,
)
texts = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)


@st.composite
def meters(draw: st.DrawFn) -> Meter:
    aggregation = draw(st.sampled_from(Aggregation))
    return meter_of(
        aggregation,
        None if aggregation is Aggregation.COUNT else draw(names),
        allows_negative=aggregation is Aggregation.SUM and draw(st.booleans()),
        filters=[
            {"property": name, "values": draw(st.lists(texts, min_size=1, max_size=4))}
            for name in draw(st.lists(names, max_size=1))
        ],
    )


async def test_every_odd_value_is_counted_or_left_out_by_every_kind_of_meter(
    shared_runtime: Runtime,
) -> None:
    # Each value is an event of a customer of its own, so that no sum can hide it.
    sent = [
        Sent({"v": value}, UUID(int=number)) for number, value in enumerate([*TEXTS, *OTHERS], 1)
    ]
    log = await Log.write(shared_runtime, [*sent, Sent({}, UUID(int=1000))])
    kinds = [one for one in Aggregation if one is not Aggregation.COUNT]
    counting = [meter_of(kind, "v") for kind in kinds]
    counting.append(meter_of(Aggregation.SUM, "v", allows_negative=True))
    filtering = [
        meter_of(Aggregation.COUNT, filters=[{"property": "v", "values": [text]}])
        for text in [*TEXTS, "false", "100", "[]", "[1,2.5]", '{"a":"x","b":[null]}', "missing"]
    ]
    for meter in [*counting, *filtering]:
        expected = {who: total_of(meter, events) for who, events in counted(meter, sent).items()}
        assert await log.usage(meter, Period(START, END)) == expected, meter


@settings(max_examples=25)
@given(sent_events, st.lists(meters(), min_size=3, max_size=3), st.integers(0, 25))
async def test_usage_is_what_a_plain_model_of_the_same_events_says(
    shared_runtime: Runtime, sent: list[Sent], meters: list[Meter], cut: int
) -> None:
    log = await Log.write(shared_runtime, sent[:cut], sent[cut:])
    period = Period(START, END)
    for meter in meters:
        expected = {
            customer: total_of(meter, events)
            for customer, events in counted(meter, log.events).items()
        }
        assert await log.usage(meter, period) == expected
        among = await log.usage(meter, period, customer_ids=CUSTOMERS[:2])
        assert among == {who: use for who, use in expected.items() if who in CUSTOMERS[:2]}
        for customer in expected:
            assert await log.values(meter, period, customer) == tuple(
                value_of(meter, event) for event in counted(meter, log.events)[customer]
            )


@settings(max_examples=8)
@given(sent_events, st.integers(0, 25))
async def test_however_a_batch_is_split_into_segments_and_periods_the_sum_is_the_same(
    shared_runtime: Runtime, sent: list[Sent], cut: int
) -> None:
    meter = meter_of(Aggregation.SUM, "v", allows_negative=True)
    log = await Log.write(shared_runtime, sent[:cut], sent[cut:])
    together = await Log.write(shared_runtime, sent)
    middle = START + (END - START) / 3
    for customer in CUSTOMERS:
        parts = [
            await log.values(meter, part, customer)
            for part in (Period(START, middle), Period(middle, END))
        ]
        whole = await together.values(meter, Period(START, END), customer)
        with exact():
            assert sum(map(sum, parts)) == sum(whole)
        before = await together.usage(meter, Period(START, END))
        assert await log.usage(meter, Period(START, END)) == before


async def test_distinct_values_are_told_apart_exactly(shared_runtime: Runtime) -> None:
    sent = [Sent({"v": value}) for value in [*TEXTS, *OTHERS, *TEXTS, *OTHERS]]
    log = await Log.write(shared_runtime, sent)
    meter = meter_of(Aggregation.UNIQUE, "v")
    expected = total_of(meter, counted(meter, sent)[CUSTOMERS[0]])
    assert await log.usage(meter, Period(START, END)) == {CUSTOMERS[0]: expected}


async def test_a_watermark_hides_every_later_segment(shared_runtime: Runtime) -> None:
    log = await Log.write(shared_runtime, [Sent({"v": 1})], [Sent({"v": 2})], [Sent({"v": 4})])
    quantities = []
    for watermark in range(5):
        usage = await log.usage(summing("v"), Period(START, END), watermark=watermark)
        quantities.append(usage[CUSTOMERS[0]].quantity if usage else None)
    assert quantities == [None, 1, 3, 7, 7]


async def test_sums_of_the_largest_quantities_are_exact_in_256_bits(
    shared_runtime: Runtime,
) -> None:
    log = await Log.write(shared_runtime, [Sent({"v": BIG})] * 1000)
    usage = await log.usage(summing("v"), Period(START, END))
    assert usage[CUSTOMERS[0]].quantity == Decimal("999999999999999999.999999999000")
    async with shared_runtime.scope(log.tenant_id) as scope:
        counting = selection(queries.rule_of(summing("v")))
        found = await scope.events.query(
            f"SELECT toTypeName({counting.quantity}) AS type FROM {EVENTS}",
            **counting.parameters,
            watermark=1,
        )
    assert found == [{"type": "Decimal(76, 12)"}]


@pytest.mark.parametrize("spoiler", ["1e400", "1e-400", "123456789012345678901234567890"])
async def test_a_number_that_no_double_holds_hides_nothing_else_of_its_event(
    shared_runtime: Runtime, spoiler: str
) -> None:
    log = await Log.write(shared_runtime, [Sent({"v": 5, "w": Decimal(spoiler)})])
    usage = await log.usage(summing("v"), Period(START, END))
    assert usage[CUSTOMERS[0]].quantity == 5


async def test_corrections_reduce_a_sum_but_never_below_zero(shared_runtime: Runtime) -> None:
    log = await Log.write(
        shared_runtime,
        [
            Sent({"v": 5}),
            Sent({"v": "-1.5"}),
            Sent({"v": 5}, CUSTOMERS[1]),
            Sent({"v": -9}, CUSTOMERS[1]),
        ],
    )
    meter = summing("v", allows_negative=True)
    usage = await log.usage(meter, Period(START, END))
    assert [usage[one].quantity for one in CUSTOMERS[:2]] == [Decimal("3.5"), 0]
    assert await log.values(meter, Period(START, END), CUSTOMERS[1]) == (Decimal(5), Decimal(-9))


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([[(0, 5)], [(1, 3)]], 3),
        ([[(1, 3)], [(0, 5)]], 3),  # What happened last, not what arrived last.
        ([[(1, 3), (1, 4)]], 4),  # Of one moment: the later place,
        ([[(1, 4)], [(1, 3)]], 3),  # and the later segment.
        ([[(1, 4)], [(2, None)]], 4),  # Without the property an event is not counted.
        ([[(1, 4)], [(2, -1)]], 4),  # Nor is one that was below 0 before the meter was there.
        ([[(1, 4)], [(2, 0)]], 0),
    ],
)
async def test_the_latest_value_is_that_of_the_event_that_happened_last(
    shared_runtime: Runtime, segments: list[list[tuple[int, int | None]]], expected: int
) -> None:
    log = await Log.write(
        shared_runtime,
        *(
            [Sent({"v": value}, occurred_at=START + TICK * at) for at, value in segment]
            for segment in segments
        ),
    )
    usage = await log.usage(meter_of(Aggregation.LATEST, "v"), Period(START, END))
    assert usage[CUSTOMERS[0]].quantity == expected


@given(st.dictionaries(names, values))
def test_the_texts_of_an_event_tell_a_string_from_anything_else(
    properties: dict[str, Any],
) -> None:
    found = texts_of(canonical(properties))
    assert found.keys() == properties.keys()
    for name, value in properties.items():
        is_string = isinstance(value, str)
        assert found[name] == ('"' + value if is_string else canonical(value))
        assert (found[name] in stored_texts(found[name].removeprefix('"'))) is (value is not None)


async def test_the_xor_is_over_the_counted_events_alone(shared_runtime: Runtime) -> None:
    log = await Log.write(
        shared_runtime, [Sent({"v": 1}), Sent({}), Sent({"v": 2}), Sent({"v": 3}, CUSTOMERS[1])]
    )
    async with shared_runtime.scope(log.tenant_id) as scope:
        usage = await queries.usage_by_customer(
            scope, summing("v"), Period(START, END), watermark=1
        )
    assert usage == {
        CUSTOMERS[0]: MeterUsage(Decimal(3), 2, xor_of([key_of(1, 0), key_of(1, 2)])),
        CUSTOMERS[1]: MeterUsage(Decimal(3), 1, xor_of([key_of(1, 3)])),
    }
