"""Roll-ups of a meter as SQL: how they are made from events, and how they are added up again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

from aforo.catalog.models import Aggregation
from aforo.metering.aggregate import CORRECTIONS, NEWEST_ALONE, selection
from aforo.metering.cuts import counted_events
from aforo.metering.steps import Bucket
from aforo.metering.validate import MeterRule
from aforo.sdk.period import Period

SPAN_SEGMENTS_MAX = 10_000
ROLLUPS = "usage_rollup_of(tenant = {tenant:UUID}, payer = {payer:UUID})"
"""The table expression of a tenant's roll-ups, of spans that count and others."""


class Level(IntEnum):
    """What the rows of a roll-up tell apart beside the customer."""

    DETAILED_DAYS = 0
    """Days of UTC, team, agent, key, subscription and dimensions."""
    DAYS = 1
    DETAILED_QUARTERS = 2
    QUARTERS = 3


@dataclass(frozen=True, slots=True)
class Sums:
    """How an aggregation is carried from events over roll-ups to a quantity.

    Each of the first two gives columns that the next takes: `u` units, `l` the place of the latest
    event, `d` the distinct texts, as far as the aggregation needs them, beside `e`, the events.
    """

    of_events: str
    """Over the rows of `event_rows`."""
    of_rollups: str
    """Over the rows of the table."""
    quantity: str
    """Decimal(76, 12)."""
    stored: str
    """Over the rows of `event_rows`: the columns `units`, `latest` and `texts` of the table."""


_NO_UNITS = "toDecimal256(0, 12)"
_NO_PLACE = "(toDateTime64(0, 6, 'UTC'), toUInt64(0), toUInt32(0))"
_NO_TEXTS = "arrayReduce('uniqExactState', emptyArrayString())"
SUMS = {
    Aggregation.SUM: Sums(
        "sum(value) AS u", "sum(units) AS u", "sum(u)", f"sum(value), {_NO_PLACE}, {_NO_TEXTS}"
    ),
    Aggregation.COUNT: Sums(
        "", "", "toDecimal256(sum(e), 12)", f"{_NO_UNITS}, {_NO_PLACE}, {_NO_TEXTS}"
    ),
    Aggregation.MAX: Sums(
        "max(value) AS u", "max(units) AS u", "max(u)", f"max(value), {_NO_PLACE}, {_NO_TEXTS}"
    ),
    Aggregation.UNIQUE: Sums(
        "uniqExactState(text) AS d",
        "uniqExactMergeState(texts) AS d",
        "toDecimal256(uniqExactMerge(d), 12)",
        f"{_NO_UNITS}, {_NO_PLACE}, uniqExactState(text)",
    ),
    Aggregation.LATEST: Sums(
        "argMax(value, place) AS u, max(place) AS l",
        "argMax(units, latest) AS u, max(latest) AS l",
        "argMax(u, l)",
        f"argMax(value, place), max(place), {_NO_TEXTS}",
    ),
}


def event_rows(meter: MeterRule, where: str) -> str:
    """A query of the events that a meter counts, of those that are asked for: one row each, in the
    columns of the table, with `at`, `value`, `text` and `place`."""
    return rows_from(meter, counted_events(selection(meter), where, ()))


def rows_from(meter: MeterRule, events: str) -> str:
    """The same of the events of a table expression."""
    counted = selection(meter)
    dimensions = ", ".join(
        _PLAIN.format(text=f"property_texts[{{dimension{number}:String}}]")
        for number in range(len(meter.dimensions))
    )
    return (
        "SELECT customer_id, occurred_at AS at, team_id, agent_id, customer_key_id, "
        "toNullable(subscription_id) AS subscription_id, "
        f"CAST([{dimensions}], 'Array(String)') AS dimensions, key_xor, {counted.value} AS value, "
        f"{counted.text} AS text, (occurred_at, segment_id, position) AS place "
        f"FROM {events}"
    )


def event_parameters(meter: MeterRule) -> dict[str, Any]:
    """The parameters of `event_rows`, but for `tenant`, `payer` and `watermark`."""
    names = {f"dimension{number}": name for number, name in enumerate(meter.dimensions)}
    return selection(meter).parameters | names


def build(meter: MeterRule) -> str:
    """The statement that inserts the rows of one span, on all levels. It takes `meter`, `span`,
    `after`, `watermark` and the parameters of the meter's events."""
    rows = event_rows(meter, OF_SPAN)
    return (
        "INSERT INTO usage_rollup (tenant_id, meter_id, span_id, level, bucket, "
        f"customer_id, {_DETAILS}, events, xor, units, latest, texts) "
        "SELECT {tenant:UUID}, {meter:UUID}, {span:UInt64}, "
        "grouping(day) * 2 + grouping(subscription_id), if(grouping(day) = 0, day, quarter), "
        f"customer_id, {_DETAILS}, count(), groupBitXor(key_xor), {SUMS[meter.aggregation].stored} "
        f"FROM (SELECT *, {_DAY.format('at')} AS day, {_QUARTER.format('at')} AS quarter "
        f"FROM ({rows})) "
        "GROUP BY GROUPING SETS ("
        f"(customer_id, day, {_DETAILS}), (customer_id, day), "
        f"(customer_id, quarter, {_DETAILS}), (customer_id, quarter)) {NEWEST_ALONE}"
    )


def superseded_since(level: Level) -> str:
    """A query of the customers and buckets of which an event was rolled up, and superseded in a
    segment behind its span. It takes `through` and `ends`, the last segments of all spans, beside
    the parameters of the meter's events."""
    return (
        f"SELECT customer_id, {_BUCKETS[level]} FROM {CORRECTIONS} "
        "WHERE type = {m_type:String} AND superseded_segment <= {through:UInt64} "
        "AND segment_id > arrayFirst(last -> last >= superseded_segment, {ends:Array(UInt64)})"
    )


def place_of(level: Level) -> str:
    """The columns of an event that `superseded_since` has."""
    return f"(customer_id, {_BUCKETS[level]})"


def cut(segments: Sequence[tuple[int, int]], span_events: int) -> int | None:
    """The last segment of the next span; None while there are too few events for one.

    `segments` are ids and numbers of events, in order, at most `SPAN_SEGMENTS_MAX`.
    """
    total = 0
    for segment_id, events in segments:
        total += events
        if total >= span_events:
            return segment_id
    return segments[-1][0] if len(segments) >= SPAN_SEGMENTS_MAX else None


def in_periods(column: str, periods: Sequence[Period]) -> str:
    """A condition: in one of the periods. Seconds are exact at quarters of an hour; the edges of a
    period are finer."""
    micros = [(_microseconds(period.start), _microseconds(period.end)) for period in periods]
    found = " OR ".join(
        f"({column} >= fromUnixTimestamp64Micro({start}, 'UTC') "
        f"AND {column} < fromUnixTimestamp64Micro({end}, 'UTC'))"
        for start, end in micros
    )
    return f"({found})"


def _microseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


ROLLED = "segment_id <= {through:UInt64} AND backfill_id = ''"
LEFT_OUT = "segment_id <= {through:UInt64} AND backfill_id != ''"
"""Of the segments that are rolled up, the events that are and those that are not: backfills begin
and cease to count long after they came."""
OF_SPAN = "segment_id > {after:UInt64} AND backfill_id = ''"
"""With the watermark at the last segment of a span: its events."""
_DAY = "toDateTime(toStartOfDay({}, 'UTC'), 'UTC')"
_QUARTER = "toDateTime(toStartOfFifteenMinutes({}), 'UTC')"
_BUCKETS = {
    level: (_DAY if level in {Level.DAYS, Level.DETAILED_DAYS} else _QUARTER).format("occurred_at")
    for level in Level
}
STEPS = {
    Bucket.QUARTER_HOUR: "toUnixTimestamp(toStartOfFifteenMinutes({at}, {{zone:String}}))",
    Bucket.HOUR: "toUnixTimestamp(toStartOfHour({at}, {{zone:String}}))",
    Bucket.DAY: "toUnixTimestamp(toStartOfDay({at}, {{zone:String}}))",
    Bucket.WEEK: (
        "toUnixTimestamp(toDateTime(toStartOfWeek({at}, 1, {{zone:String}}), {{zone:String}}))"
    ),
    Bucket.MONTH: (
        "toUnixTimestamp(toDateTime(toStartOfMonth({at}, {{zone:String}}), {{zone:String}}))"
    ),
}
"""The start of the step of a series, in seconds, by the time `{at}`."""
_DETAILS = "team_id, agent_id, customer_key_id, subscription_id, dimensions"
# As filters read it: a number and a text of the same characters are one value; no property is ''.
_PLAIN = (
    "multiIf({text} IN ('', 'null'), '', startsWith({text}, '\"'), {text}, concat('\"', {text}))"
)
