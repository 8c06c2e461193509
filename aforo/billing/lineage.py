"""The lineage index: which events each invoice line stands on, built before it is final."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from aforo.billing.accounts import few
from aforo.catalog.models import Meter
from aforo.metering.aggregate import selection
from aforo.metering.cuts import counted_events
from aforo.metering.limits import blocked
from aforo.metering.queries import IN_PERIOD, moment, rule_of
from aforo.sdk import Period
from aforo.storage.failpoints import reached
from aforo.storage.scope import Scope

LINES_PER_INSERT = 1_000
_INDEX, _STAGING = "bill_run_event_index", "bill_run_event_index_staging"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """An invoice line with the events that aggregation counted for it."""

    line_id: UUID
    customer_id: UUID
    meter: Meter
    period: Period
    events: int
    xor: int


async def index_lines(
    scope: Scope, bill_run_id: UUID, lines: Sequence[UsageLine], *, watermark: int
) -> dict[UUID, str]:
    """Link the lines of a bill run to their events, and replace what the run had linked before.

    One INSERT per meter and thousand lines, into a staging partition that becomes the run's as a
    whole: a run that was killed half-way begins anew. Returns the lines whose index differs from
    what aggregation counted, with the reason; these must not be billed.
    """
    # A UUID's own text: partitions cannot be named by a parameter everywhere.
    partition = f"'{UUID(str(bill_run_id))}'"
    await scope.events.command(f"ALTER TABLE {_STAGING} DROP PARTITION {partition}")
    for meter, some in _batches(lines):
        await _stage(scope, bill_run_id, meter, some, watermark=watermark)
    staged = await _staged(scope, bill_run_id)
    reached("bill.staged")
    if staged:
        await scope.events.command(
            f"ALTER TABLE {_INDEX} REPLACE PARTITION {partition} FROM {_STAGING}"
        )
        await scope.events.command(f"ALTER TABLE {_STAGING} DROP PARTITION {partition}")
    else:
        await scope.events.command(f"ALTER TABLE {_INDEX} DROP PARTITION {partition}")
    reached("bill.indexed")
    return dict(_differences(lines, staged))


def _batches(lines: Sequence[UsageLine]) -> Iterator[tuple[Meter, list[UsageLine]]]:
    by_meter: dict[UUID, list[UsageLine]] = defaultdict(list)
    for line in lines:
        by_meter[line.meter.id].append(line)
    for same in by_meter.values():
        for start in range(0, len(same), LINES_PER_INSERT):
            yield same[0].meter, same[start : start + LINES_PER_INSERT]


async def _stage(
    scope: Scope, bill_run_id: UUID, meter: Meter, lines: Sequence[UsageLine], *, watermark: int
) -> None:
    counted = selection(rule_of(meter))
    period = Period(
        min(line.period.start for line in lines), max(line.period.end for line in lines)
    )
    customers = few({line.customer_id for line in lines})
    cuts = await blocked(scope, meter, period, watermark=watermark, customer_ids=customers)
    await scope.events.command(
        f"INSERT INTO {_STAGING} "
        "(tenant_id, bill_run_id, invoice_line_id, event_id, key_hash, occurred_at) "
        "SELECT tenant_id, {bill_run:UUID}, line_id, event_id, key_hash, occurred_at "
        f"FROM {counted_events(counted, IN_PERIOD, cuts)} AS event "
        f"INNER JOIN ({_windows(lines)}) AS line ON event.customer_id = line.line_customer "
        "WHERE occurred_at >= line_start AND occurred_at < line_end",
        **counted.parameters,
        bill_run=str(bill_run_id),
        watermark=watermark,
        start=moment(period.start),
        end=moment(period.end),
    )


def _windows(lines: Sequence[UsageLine]) -> str:
    """The lines as a table. They stand in the statement's text, because a thousand of them are
    more than the address of a request takes; ids and moments of ours need no quoting."""
    columns = (
        ("UUID", [str(line.line_id) for line in lines]),
        ("UUID", [str(line.customer_id) for line in lines]),
        ("DateTime64(6, \\'UTC\\')", [moment(line.period.start) for line in lines]),
        ("DateTime64(6, \\'UTC\\')", [moment(line.period.end) for line in lines]),
    )
    arrays = ", ".join(f"CAST({_texts(values)}, 'Array({kind})')" for kind, values in columns)
    return (
        "SELECT row.1 AS line_id, row.2 AS line_customer, row.3 AS line_start, row.4 AS line_end "
        f"FROM (SELECT arrayJoin(arrayZip({arrays})) AS row)"
    )


def _texts(values: Sequence[str]) -> str:
    return "['" + "', '".join(values) + "']"


async def _staged(scope: Scope, bill_run_id: UUID) -> dict[UUID, tuple[int, int]]:
    """How many events each line has in the staging partition, and their xor."""
    rows = await scope.events.query(
        "SELECT invoice_line_id, count() AS events, "
        "groupBitXor(reinterpretAsUInt64(substring(key_hash, 1, 8))) AS xor "
        f"FROM {_STAGING} WHERE tenant_id = {{tenant:UUID}} AND bill_run_id = {{bill_run:UUID}} "
        "GROUP BY invoice_line_id",
        bill_run=str(bill_run_id),
    )
    return {row["invoice_line_id"]: (row["events"], row["xor"]) for row in rows}


def _differences(
    lines: Sequence[UsageLine], staged: Mapping[UUID, tuple[int, int]]
) -> Iterator[tuple[UUID, str]]:
    for line in lines:
        events, xor = staged.get(line.line_id, (0, 0))
        if events != line.events:
            reason = f"{line.events} events were counted and {events} are in the lineage index"
        elif xor != line.xor:
            reason = "the events that were counted are not those in the lineage index"
        else:
            continue
        yield line.line_id, f"meter {line.meter.code}: {reason}; nothing was billed"
