"""Stage 6, aggregation: a meter as SQL over the event log, the same for usage and lineage."""

from dataclasses import dataclass
from typing import Any

from aforo.catalog.models import Aggregation
from aforo.metering.projection import stored_texts
from aforo.metering.validate import MeterRule

EVENTS = "events_of(tenant = {tenant:UUID}, payer = {payer:UUID}, watermark = {watermark:UInt64})"
"""The table expression of a tenant's events that count as of a watermark: those of the log up to
it, without voids and without what was superseded by then."""

WHOLE_LOG = "log_of(tenant = {tenant:UUID}, payer = {payer:UUID}, watermark = {watermark:UInt64})"
"""The table expression of a tenant's whole log up to a watermark, whether events count or not."""

CORRECTIONS = (
    "corrections_of(tenant = {tenant:UUID}, payer = {payer:UUID}, watermark = {watermark:UInt64})"
)
"""The table expression of what was superseded in a tenant's log up to a watermark."""

NEWEST_ALONE = "SETTINGS use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0"
"""For reading some confirmed segments: parts that hold none of them are skipped. Else those would
be looked through for earlier copies of the same events, and there are none: the sealer confirms a
segment only where it finds every event of it."""

# Decimal256: the sum of a Decimal128 wraps around without a word.
_UNITS = "Decimal(76, 12)"
_TOTALS = {
    Aggregation.SUM: "sum({value})",
    Aggregation.MAX: "max({value})",
    # Of events of one moment the last in the log.
    Aggregation.LATEST: "argMax({value}, (occurred_at, segment_id, position))",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """SQL over the columns of `events_of`, with its parameters."""

    condition: str
    """Which events the meter counts."""
    value: str
    """What one counted event brings, Decimal(76, 12)."""
    text: str
    """The counted property as it is stored; '' for COUNT."""
    quantity: str
    """Aggregate expression: the billable units of the counted events, Decimal(76, 12)."""
    is_distinct: bool
    """Whether different texts are counted, and not events."""
    parameters: dict[str, Any]


def selection(meter: MeterRule, prefix: str = "m") -> Selection:
    """The meter as SQL. `prefix` keeps the parameters of several meters apart in one query."""
    parameters: dict[str, Any] = {f"{prefix}_type": meter.event_type}
    conditions = [f"type = {{{prefix}_type:String}}"]
    for number, (name, values) in enumerate(meter.filters):
        parameters[f"{prefix}_filter{number}"] = name
        parameters[f"{prefix}_values{number}"] = sorted(set().union(*map(stored_texts, values)))
        conditions.append(
            f"property_texts[{{{prefix}_filter{number}:String}}] "
            f"IN {{{prefix}_values{number}:Array(String)}}"
        )
    text = f"property_texts[{{{prefix}_property:String}}]"
    if meter.property is not None:
        parameters[f"{prefix}_property"] = meter.property
        conditions.append(f"{text} NOT IN ('', 'null')")
    match meter.aggregation:
        case Aggregation.COUNT:
            value, quantity = f"toDecimal256(1, 12)::{_UNITS}", f"count()::{_UNITS}"
        case Aggregation.UNIQUE:
            value, quantity = f"toDecimal256(1, 12)::{_UNITS}", f"uniqExact({text})::{_UNITS}"
        case Aggregation.SUM | Aggregation.MAX | Aggregation.LATEST:
            minus = "-?" if meter.allows_negative else ""
            # A meter published later meets events whose property nobody has checked for it.
            conditions.append(f"match({text}, '^\"?{minus}[0-9]{{1,15}}([.][0-9]{{1,12}})?$')")
            value = f"toDecimal256OrZero(replaceOne({text}, '\"', ''), 12)"
            quantity = _TOTALS[meter.aggregation].format(value=value)
    return Selection(
        condition=" AND ".join(conditions),
        value=value,
        text="''" if meter.property is None else text,
        quantity=quantity,
        is_distinct=meter.aggregation is Aggregation.UNIQUE,
        parameters=parameters,
    )
