"""Conservation of units: what a meter counts is billed or not, and why.

counted = billed + included + blocked + voided + not yet billed, for each meter. Three sources are
held against each other: the log as it is now, the lines of final invoices as they are stored, and
the log as it was when they were made.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlmodel import col

from aforo.billing.accounts import few
from aforo.billing.models import Invoice, InvoiceLine, InvoiceState
from aforo.catalog.models import Meter
from aforo.metering.aggregate import CORRECTIONS, EVENTS, WHOLE_LOG, selection
from aforo.metering.cuts import Cut, counted_events
from aforo.metering.limits import blocked
from aforo.metering.queries import IN_PERIOD, moment, rule_of, shortest, watermark
from aforo.sdk import Invalid, Period, exact
from aforo.storage.scope import Scope
from aforo.telemetry.metrics import UNBALANCED_METERS

DAYS_MAX = 31
METERS_MAX = 100
CUSTOMERS_AT_ONCE = 500
"""Of one look at the log; each has a few final invoices over a month."""
_NONE = Decimal(0)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitBalance:
    """Units of one meter, and what became of them by now."""

    counted: Decimal = _NONE
    billed: Decimal = _NONE
    """On final invoices, at a price."""
    included: Decimal = _NONE
    """On final invoices, where the price takes nothing for the first units."""
    blocked: Decimal = _NONE
    """Beyond a quota that blocks."""
    voided: Decimal = _NONE
    """Of events that others have taken the place of, or voided, by now."""
    not_yet_billed: Decimal = _NONE
    """On no final invoice: of open periods, or late. Below 0 where more was billed than counts."""

    @property
    def unaccounted(self) -> Decimal:
        """How many were counted of which nothing is known; below 0 where more is known of."""
        with exact():
            known = self.billed + self.included + self.blocked + self.voided
            return self.counted - known - self.not_yet_billed

    @property
    def balanced(self) -> bool:
        return self.unaccounted == 0

    def __add__(self, other: "UnitBalance") -> "UnitBalance":
        with exact():
            return UnitBalance(
                **{each: getattr(self, each) + getattr(other, each) for each in _NUMBERS}
            )


_NUMBERS = tuple(each.name for each in fields(UnitBalance))


@dataclass(frozen=True, slots=True)
class _Window:
    """A customer's period on a final invoice that has the meter."""

    customer_id: UUID
    period: Period
    watermark: int
    quantity: Decimal
    included: Decimal

    @property
    def key(self) -> "_Key":
        return (self.customer_id, self.period.start)


_Key = tuple[UUID, datetime | None]
"""A customer and the start of a window; None for what is in the period and in no window."""


async def unit_balances(
    scope: Scope, period: Period, meters: Sequence[Meter]
) -> dict[UUID, UnitBalance]:
    """The balance of each meter over what occurred in a period, by meter id.

    For each customer the period is widened to whole billing periods, as far as their invoices are
    final. Raises: `Invalid` for more than 31 days.
    """
    if period.end - period.start > timedelta(days=DAYS_MAX):
        raise Invalid(
            f"the period has more than {DAYS_MAX} days: ask for a shorter one", field="period"
        )
    mark = await watermark(scope)
    return {meter.id: await _balance(scope, meter, period, mark) for meter in meters}


async def check(scope: Scope, start: datetime, end: datetime) -> Mapping[UUID, UnitBalance]:
    """Hold the meters of a period of any length against their invoices; those that do not balance,
    which are told."""
    meters = list(
        await scope.db.scalars(
            sa.select(Meter).where(
                col(Meter.id).in_(
                    sa.select(col(InvoiceLine.meter_id))
                    .join(Invoice, col(Invoice.id) == col(InvoiceLine.invoice_id))
                    .where(*_over(Period(start, end)))
                )
            )
        )
    )
    wrong: dict[UUID, UnitBalance] = {}
    while start < end:
        until = min(start + timedelta(days=DAYS_MAX), end)
        found = await unit_balances(scope, Period(start, until), meters)
        wrong |= {meter_id: each for meter_id, each in found.items() if not each.balanced}
        start = until
    UNBALANCED_METERS.inc(len(wrong))
    for meter_id, each in wrong.items():
        numbers = {name: f"{getattr(each, name):f}" for name in (*_NUMBERS, "unaccounted")}
        log.error("units are not accounted for", meter_id=str(meter_id), **numbers)
    return wrong


async def _balance(scope: Scope, meter: Meter, period: Period, mark: int) -> UnitBalance:
    windows = await _windows(scope, meter, period)
    look = _Look(scope, meter, windows, period)
    counts = await look.up_to(mark, EVENTS)
    ever = await look.up_to(mark, WHOLE_LOG) if await _is_corrected(scope, mark) else counts
    cuts = await blocked(scope, meter, look.reach, watermark=mark)
    billable = await look.up_to(mark, look.without(cuts)) if cuts else counts
    then = await look.when_billed()
    stored = {each.key: each for each in windows}
    balance = UnitBalance()
    for key in ever.keys() | stored.keys():
        line = stored.get(key)
        with exact():
            balance += UnitBalance(
                counted=ever.get(key, _NONE),
                billed=line.quantity - line.included if line else _NONE,
                included=line.included if line else _NONE,
                blocked=counts.get(key, _NONE) - billable.get(key, _NONE),
                voided=ever.get(key, _NONE) - counts.get(key, _NONE),
                not_yet_billed=billable.get(key, _NONE) - then.get(key, _NONE),
            )
    return balance


async def _is_corrected(scope: Scope, mark: int) -> bool:
    """Whether anything of the log was superseded: only then it has two readings."""
    [row] = await scope.events.query(f"SELECT count() AS events FROM {CORRECTIONS}", watermark=mark)
    return bool(row["events"])


async def _windows(scope: Scope, meter: Meter, period: Period) -> list[_Window]:
    """The final periods that overlap a period and have a line of the meter, by customer. Of several
    lines over one meter a unit is included where all of them take nothing for it."""
    rows = await scope.db.execute(
        sa.select(Invoice, InvoiceLine)
        .join(InvoiceLine, col(InvoiceLine.invoice_id) == col(Invoice.id))
        .where(*_over(period), col(InvoiceLine.meter_id) == meter.id)
        .order_by(col(Invoice.customer_id), col(Invoice.period_start), col(InvoiceLine.position))
    )
    found: dict[_Key, _Window] = {}
    for invoice, line in rows:
        window = _Window(
            invoice.customer_id,
            Period(invoice.period_start, invoice.period_end),
            invoice.watermark,
            line.quantity,
            _included(line),
        )
        before = found.get(window.key)
        if before is None or window.included < before.included:
            found[window.key] = window
    return list(found.values())


def _over(period: Period) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        col(Invoice.state) == InvoiceState.FINALIZED,
        col(Invoice.period_start) < period.end,
        col(Invoice.period_end) > period.start,
    )


def _included(line: InvoiceLine) -> Decimal:
    """Units of the first steps that cost nothing each."""
    included = _NONE
    for step in line.steps:
        if step["unitPrice"] is None or Decimal(step["unitPrice"]) != 0:
            break
        included += Decimal(step["quantity"])
    return min(included, line.quantity)


def _chunks(windows: Sequence[_Window]) -> Iterator[list[_Window]]:
    """All windows of a customer together: what is in none of them is counted, too."""
    some: list[_Window] = []
    customers = 0
    for _, of_customer in groupby(windows, key=lambda each: each.customer_id):
        some += of_customer
        customers += 1
        if customers == CUSTOMERS_AT_ONCE:
            yield some
            some, customers = [], 0
    if some:
        yield some


@dataclass(frozen=True, slots=True)
class _Look:
    """What a meter counts in the windows, and in the period outside of them. Never below 0."""

    scope: Scope
    meter: Meter
    windows: Sequence[_Window]
    period: Period

    @property
    def reach(self) -> Period:
        """From the first moment that is looked at to the last."""
        periods = [self.period, *(each.period for each in self.windows)]
        return Period(min(each.start for each in periods), max(each.end for each in periods))

    def without(self, cuts: Sequence[Cut]) -> str:
        """The log less what quotas block."""
        return counted_events(selection(rule_of(self.meter)), IN_PERIOD, cuts)

    async def up_to(self, mark: int, source: str) -> dict[_Key, Decimal]:
        """By a table expression of the log as of a watermark, of all customers."""
        counted = selection(rule_of(self.meter))
        rows = await self.scope.events.query(
            f"SELECT customer_id, {counted.quantity} AS units FROM {source} AS event "
            f"WHERE {_INSIDE} AND {counted.condition} GROUP BY customer_id",
            **counted.parameters,
            **self._bounds,
            watermark=mark,
        )
        billed = {each.customer_id for each in self.windows}
        found: dict[_Key, Decimal] = {
            (row["customer_id"], None): _units(row)
            for row in rows
            if row["customer_id"] not in billed
        }
        for some in _chunks(self.windows):
            found |= await self._of(some, mark, source, outside=f" OR ({_INSIDE})")
        return found

    async def when_billed(self) -> dict[_Key, Decimal]:
        """In each window by the log as it was when its invoice was made."""
        found: dict[_Key, Decimal] = {}
        by_mark = sorted(self.windows, key=lambda each: (each.watermark, each.customer_id))
        for mark, same in groupby(by_mark, key=lambda each: each.watermark):
            several = list(same)
            customers = few({each.customer_id for each in several})
            cuts = await blocked(
                self.scope, self.meter, self.reach, watermark=mark, customer_ids=customers
            )
            for some in _chunks(several):
                found |= await self._of(some, mark, self.without(cuts), outside="")
        return found

    @property
    def _bounds(self) -> dict[str, str]:
        return {
            "from": moment(self.period.start),
            "until": moment(self.period.end),
            "start": moment(self.reach.start),
            "end": moment(self.reach.end),
        }

    async def _of(
        self, windows: Sequence[_Window], mark: int, source: str, *, outside: str
    ) -> dict[_Key, Decimal]:
        counted = selection(rule_of(self.meter))
        rows = await self.scope.events.query(
            f"SELECT customer_id, toString(spans[slot].1) AS start, slot, "
            f"{counted.quantity} AS units "
            "FROM (SELECT customer_id, occurred_at, segment_id, position, property_texts, spans, "
            "arrayFirstIndex(span -> occurred_at >= span.1 AND occurred_at < span.2, spans) "
            f"AS slot FROM {source} AS event INNER JOIN ({_spans(windows)}) AS line "
            "ON event.customer_id = line.line_customer "
            f"WHERE {IN_PERIOD} AND {counted.condition}) "
            f"WHERE slot > 0{outside} GROUP BY customer_id, start, slot",
            **counted.parameters,
            **self._bounds,
            watermark=mark,
        )
        starts = {moment(each.period.start): each.period.start for each in windows}
        return {
            (row["customer_id"], starts[row["start"]] if row["slot"] else None): _units(row)
            for row in rows
        }


def _units(row: Mapping[str, Any]) -> Decimal:
    return max(shortest(row["units"]), _NONE)


_INSIDE = (
    "occurred_at >= {from:DateTime64(6, 'UTC')} AND occurred_at < {until:DateTime64(6, 'UTC')}"
)


def _spans(windows: Sequence[_Window]) -> str:
    """The windows as a table by customer, in the statement's text: ids and moments of ours need no
    quoting, and are too many for parameters."""
    rows = ", ".join(
        f"('{each.customer_id}', '{moment(each.period.start)}', '{moment(each.period.end)}')"
        for each in windows
    )
    kind = "Array(Tuple(UUID, DateTime64(6, \\'UTC\\'), DateTime64(6, \\'UTC\\')))"
    return (
        "SELECT row.1 AS line_customer, groupArray((row.2, row.3)) AS spans "
        f"FROM (SELECT arrayJoin(CAST([{rows}], '{kind}')) AS row) GROUP BY line_customer"
    )
