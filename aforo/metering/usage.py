"""Usage of a meter: in total, over time, and told apart, from its roll-ups and from the log."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from aforo.catalog.models import Meter
from aforo.metering import limits
from aforo.metering.aggregate import NEWEST_ALONE, selection
from aforo.metering.cuts import Cut, blocked_events, counted_events
from aforo.metering.queries import IN_PERIOD, moment, rule_of, shortest
from aforo.metering.rollup import (
    LEFT_OUT,
    ROLLED,
    ROLLUPS,
    STEPS,
    SUMS,
    Level,
    event_parameters,
    in_periods,
    place_of,
    rows_from,
    superseded_since,
)
from aforo.metering.rollups import RolledUp, rolled_up
from aforo.metering.steps import Bucket, stretches
from aforo.metering.validate import MeterRule
from aforo.sdk.errors import Invalid
from aforo.sdk.period import Period
from aforo.storage.scope import Scope

GROUPINGS_MAX = 3
GROUPS_MAX = 1_000


class UsageBy(StrEnum):
    """What usage can be filtered and told apart by."""

    CUSTOMER = "CUSTOMER"
    TEAM = "TEAM"
    AGENT = "AGENT"
    CUSTOMER_KEY = "CUSTOMER_KEY"
    SUBSCRIPTION = "SUBSCRIPTION"
    PROPERTY = "PROPERTY"


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column of usage: one of the hierarchy, or a dimension of the meter."""

    by: UsageBy
    property: str | None = None
    """Of PROPERTY alone."""


Value = str | None
"""An id or a property's text; None where the event has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageOf:
    """Which usage is asked for."""

    meter: Meter
    period: Period
    watermark: int
    zone: ZoneInfo
    """Whose midnights bound days, weeks and months."""
    where: Sequence[tuple[Attribute, Sequence[Value]]] = ()
    """All must hold: the attribute has one of the values."""


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """Units of a set of events. Below 0 where corrections are more than what they correct."""

    quantity: Decimal
    events: int


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """One step of a usage series."""

    start: datetime
    quantity: Decimal
    events: int


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """What fell to one combination of values."""

    values: tuple[Value, ...]
    quantity: Decimal
    events: int
    points: tuple[UsagePoint, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageGroups:
    """The groups with the largest quantities, and how many there are in all."""

    groups: Sequence[UsageGroup]
    count: int


def check_dimensions(meter: Meter, attributes: Iterable[Attribute]) -> None:
    """Raise `Invalid` for a property that is no dimension of the meter."""
    for attribute in attributes:
        if attribute.by is UsageBy.PROPERTY and attribute.property not in meter.dimensions:
            known = ", ".join(meter.dimensions) or "none"
            raise Invalid(
                f"{str(attribute.property)[:70]!r} is no dimension of the meter {meter.code}; "
                f"those are: {known}",
                code="NO_DIMENSION",
                field="property",
            )


async def usage_total(scope: Scope, of: UsageOf) -> UsageTotal:
    """All of it in one figure."""
    [row] = await _Reading(scope, of, await _cuts(scope, of)).rows()
    return UsageTotal(shortest(row["quantity"]), row["events"])


async def usage_blocked(scope: Scope, of: UsageOf) -> UsageTotal:
    """What quotas block of it, which is in no other figure."""
    cuts = await _cuts(scope, of)
    if not cuts:
        return UsageTotal(Decimal(0), 0)
    [row] = await _Reading(scope, of, cuts).blocked_rows()
    return UsageTotal(shortest(row["quantity"]), row["events"])


async def usage_over_time(scope: Scope, of: UsageOf, bucket: Bucket) -> list[UsagePoint]:
    """A series, the oldest step first; steps without an event are absent."""
    reading = _Reading(scope, of, await _cuts(scope, of), bucket=bucket)
    rows = await reading.rows("ORDER BY step")
    return [_point(row, of.zone) for row in rows]


async def usage_by(
    scope: Scope, of: UsageOf, by: Sequence[Attribute], *, first: int, bucket: Bucket | None = None
) -> UsageGroups:
    """The `first` groups of the largest quantity, each with its series where steps are asked for.

    Raises `Invalid` for a property that is no dimension of the meter.
    """
    assert 0 < len(by) <= GROUPINGS_MAX, "the caller bounds the groupings"
    assert 0 < first <= GROUPS_MAX, "the caller bounds the groups"
    reading = _Reading(scope, of, await _cuts(scope, of), by=by)
    keys = reading.keys
    rows = await reading.rows(
        f"ORDER BY quantity DESC, {', '.join(keys)} LIMIT {{first:UInt32}}", first=first
    )
    points: dict[tuple[Any, ...], list[UsagePoint]] = defaultdict(list)
    if bucket is not None and rows:
        shown = [tuple(str(row[key]) for key in keys) for row in rows]
        series = replace(reading, bucket=bucket)
        for row in await series.rows("ORDER BY step", shown=shown):
            points[tuple(row[key] for key in keys)].append(_point(row, of.zone))
    return UsageGroups(
        [
            UsageGroup(
                tuple(_value(row[key]) for key in keys),
                shortest(row["quantity"]),
                row["events"],
                tuple(points[tuple(row[key] for key in keys)]),
            )
            for row in rows
        ],
        rows[0]["groups"] if rows else 0,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that a reading adds up, from one source."""

    sql: str
    at: str
    """The column with the moment."""
    events: str
    """Aggregate: how many events they stand for."""
    columns: str
    """Aggregates of the kind that `Sums.quantity` takes."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """One query: by which attributes and steps usage is told apart."""

    scope: Scope
    of: UsageOf
    cuts: Sequence[Cut]
    """What is blocked, and left out."""
    by: Sequence[Attribute] = ()
    bucket: Bucket | None = None

    @property
    def keys(self) -> list[str]:
        """The columns of the attributes."""
        return [f"k{number}" for number in range(len(self.by))]

    async def rows(
        self, ending: str = "", *, shown: Sequence[tuple[str, ...]] = (), **more: Any
    ) -> list[dict[str, Any]]:
        """Rows with the attributes, `step` in seconds, `groups`, `quantity` and `events`; of the
        groups that are `shown` where some are given."""
        rolled = await rolled_up(self.scope, self.of.meter.id, self.of.watermark)
        rule = rule_of(self.of.meter)
        groups = [*self.keys, *(["step"] if self.bucket else [])]
        parts = [self._part(part, groups) for part in self._parts(rule, rolled)]
        # How many groups there are is known before any of them is left out.
        counted = "count() OVER () AS groups, " if self.keys and not self.bucket else ""
        among = f"WHERE ({', '.join(self.keys)}) IN {{shown:{self._type()}}} " if shown else ""
        sql = (
            f"SELECT {''.join(f'{one}, ' for one in groups)}{counted}"
            f"{SUMS[rule.aggregation].quantity} AS quantity, sum(e) AS events "
            f"FROM ({' UNION ALL '.join(parts)}) {among}{_grouped(groups)} {ending} "
            f"{NEWEST_ALONE if rolled.through else ''}"
        )
        if shown:
            more["shown"] = list(shown) if len(self.by) > 1 else [one for (one,) in shown]
        more |= {"spans": list(rolled.span_ids), "through": rolled.through}
        more["ends"] = list(rolled.ends)
        return await self._query(sql, **more)

    async def blocked_rows(self) -> list[dict[str, Any]]:
        """One row with `quantity` and `events` of what is left out."""
        rule = rule_of(self.of.meter)
        part = _of_events(rule, blocked_events(selection(rule), IN_PERIOD, self.cuts))
        sums = f"{SUMS[rule.aggregation].quantity} AS quantity, sum(e) AS events"
        return await self._query(f"SELECT {sums} FROM ({self._part(part, [])})")

    async def _query(self, sql: str, **more: Any) -> list[dict[str, Any]]:
        return await self.scope.events.query(
            sql,
            **event_parameters(rule_of(self.of.meter)),
            **self._values(),
            **more,
            zone=str(self.of.zone),
            watermark=self.of.watermark,
            meter=str(self.of.meter.id),
            start=moment(self.of.period.start),
            end=moment(self.of.period.end),
        )

    def _part(self, part: _Part, groups: Sequence[str]) -> str:
        columns = f", {part.columns}" if part.columns else ""
        told = f"SELECT {self._told_apart(part)}{part.events} AS e{columns} FROM ({part.sql})"
        return f"{told} WHERE {self._conditions()} {_grouped(groups)}"

    def _told_apart(self, part: _Part) -> str:
        columns = [
            f"{_key(self.of.meter, attribute)} AS {key}, "
            for attribute, key in zip(self.by, self.keys, strict=True)
        ]
        if self.bucket:
            columns.append(f"{STEPS[self.bucket].format(at=part.at)} AS step, ")
        return "".join(columns)

    def _parts(self, rule: MeterRule, rolled: RolledUp) -> Iterator[_Part]:
        """What is rolled up; from the log what was corrected since, the edges of the period,
        backfills, what is behind the roll-ups, and those who are over a limit."""
        sums = SUMS[rule.aggregation]
        others = "true"
        if self.cuts:
            those = ", ".join(sorted({f"'{cut.cell.customer_id}'" for cut in self.cuts}))
            others = f"customer_id NOT IN ({those})"
            yield _from_log(rule, f"{IN_PERIOD} AND customer_id IN ({those})", self.cuts)
        told = [*self.by, *(attribute for attribute, _ in self.of.where)]
        is_detailed = any(attribute.by is not UsageBy.CUSTOMER for attribute in told)
        within = stretches(self.of.period, self.bucket, self.of.zone)
        days = Level.DETAILED_DAYS if is_detailed else Level.DAYS
        quarters = Level.DETAILED_QUARTERS if is_detailed else Level.QUARTERS
        if rolled.span_ids:
            for level, periods in ((days, within.days), (quarters, within.quarters)):
                if not periods:
                    continue
                sql = (
                    f"SELECT * FROM {ROLLUPS} WHERE meter_id = {{meter:UUID}} "
                    f"AND level = {level:d} AND span_id IN {{spans:Array(UInt64)}} "
                    f"AND {others} AND {in_periods('bucket', periods)}"
                )
                if rolled.ends:
                    since = superseded_since(level)
                    sql += f" AND (customer_id, bucket) NOT IN ({since})"
                    in_place = (
                        f"{ROLLED} AND {place_of(level)} IN ({since}) "
                        f"AND {others} AND {in_periods('occurred_at', periods)}"
                    )
                    yield _from_log(rule, in_place)
                yield _Part(sql, at="bucket", events="sum(events)", columns=sums.of_rollups)
            if within.edges:
                at_edges = f"{others} AND {in_periods('occurred_at', within.edges)}"
                yield _from_log(rule, f"{ROLLED} AND {at_edges}")
        if rolled.has_backfills:
            yield _from_log(rule, f"{LEFT_OUT} AND {others} AND {IN_PERIOD}")
        if rolled.through < self.of.watermark or not rolled.span_ids:
            yield _from_log(rule, f"segment_id > {{through:UInt64}} AND {others} AND {IN_PERIOD}")

    def _conditions(self) -> str:
        conditions = (
            f" AND {_key(self.of.meter, attribute)} IN {{where{number}:Array({_type(attribute)})}}"
            for number, (attribute, _) in enumerate(self.of.where)
        )
        return f"true{''.join(conditions)}"

    def _values(self) -> dict[str, list[str]]:
        return {
            f"where{number}": [_stored(attribute, value) for value in values]
            for number, (attribute, values) in enumerate(self.of.where)
        }

    def _type(self) -> str:
        types = [_type(attribute) for attribute in self.by]
        return f"Array(Tuple({', '.join(types)}))" if len(types) > 1 else f"Array({types[0]})"


async def _cuts(scope: Scope, of: UsageOf) -> Sequence[Cut]:
    """What is blocked of the customers that are asked for. Who may be over a limit is said by the
    roll-ups; where that would be so only for a while, because of corrections, by the log."""
    named = [values for attribute, values in of.where if attribute.by is UsageBy.CUSTOMER]
    customers = [UUID(value) for value in named[0] if value is not None] if named else None
    least = await limits.least_limit(scope, of.meter, of.period)
    if least is None:
        return ()
    if of.meter.allows_negative:
        return await limits.blocked(
            scope, of.meter, of.period, watermark=of.watermark, customer_ids=customers
        )
    by = Attribute(UsageBy.CUSTOMER)
    around = replace(of, period=least.around, where=[(by, values) for values in named])
    rows = await _Reading(scope, around, (), by=[by]).rows(
        "HAVING quantity > {least:Decimal(76, 12)} ORDER BY k0", least=f"{least.limit:f}"
    )
    over = [row["k0"] for row in rows]
    return await limits.blocked_of(
        scope, of.meter, of.period, watermark=of.watermark, customer_ids=over
    )


_COLUMNS = {
    # The first is what the table is sorted by; neither it nor the second is ever null.
    UsageBy.CUSTOMER: "customer_id",
    UsageBy.SUBSCRIPTION: "assumeNotNull(subscription_id)",
    UsageBy.TEAM: "ifNull(team_id, toUUID('{none}'))",
    UsageBy.AGENT: "ifNull(agent_id, toUUID('{none}'))",
    UsageBy.CUSTOMER_KEY: "ifNull(customer_key_id, toUUID('{none}'))",
}
_NOBODY = UUID(int=0)


def _from_log(rule: MeterRule, where: str, cuts: Sequence[Cut] = ()) -> _Part:
    return _of_events(rule, counted_events(selection(rule), where, cuts))


def _of_events(rule: MeterRule, events: str) -> _Part:
    return _Part(rows_from(rule, events), "at", "count()", SUMS[rule.aggregation].of_events)


def _key(meter: Meter, attribute: Attribute) -> str:
    if attribute.by is not UsageBy.PROPERTY:
        return _COLUMNS[attribute.by].format(none=_NOBODY)
    check_dimensions(meter, [attribute])
    assert attribute.property is not None
    return f"toString(dimensions[{meter.dimensions.index(attribute.property) + 1}])"


def _type(attribute: Attribute) -> str:
    return "String" if attribute.by is UsageBy.PROPERTY else "UUID"


def _stored(attribute: Attribute, value: Value) -> str:
    if attribute.by is not UsageBy.PROPERTY:
        return str(_NOBODY) if value is None else value
    return "" if value is None else '"' + value


def _value(stored: UUID | str) -> Value:
    if isinstance(stored, UUID):
        return None if stored == _NOBODY else str(stored)
    return stored[1:] if stored else None


def _point(row: dict[str, Any], zone: ZoneInfo) -> UsagePoint:
    start = datetime.fromtimestamp(row["step"], zone)
    return UsagePoint(start, shortest(row["quantity"]), row["events"])


def _grouped(columns: Sequence[str]) -> str:
    return f"GROUP BY {', '.join(columns)}" if columns else ""
