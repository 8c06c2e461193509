"""Usage of a meter: in total, over time, and told apart, from its roll-ups and from the log."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from aforo.catalog.models import Meter
from aforo.metering.aggregate import NEWEST_ALONE
from aforo.metering.queries import IN_PERIOD, moment, rule_of, shortest
from aforo.metering.rollup import (
    ROLLUPS,
    SUMS,
    Level,
    event_parameters,
    event_rows,
    place_of,
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
    rows = await _Reading(scope, of).rows()
    return UsageTotal(shortest(rows[0]["quantity"]), rows[0]["events"])


async def usage_over_time(scope: Scope, of: UsageOf, bucket: Bucket) -> list[UsagePoint]:
    """A series, the oldest step first; steps without an event are absent."""
    rows = await _Reading(scope, of, bucket=bucket).rows("ORDER BY step")
    return [_point(row, of.zone) for row in rows]


async def usage_by(
    scope: Scope, of: UsageOf, by: Sequence[Attribute], *, first: int, bucket: Bucket | None = None
) -> UsageGroups:
    """The `first` groups of the largest quantity, each with its series where steps are asked for.

    Raises `Invalid` for a property that is no dimension of the meter.
    """
    assert 0 < len(by) <= GROUPINGS_MAX, "the caller bounds the groupings"
    assert 0 < first <= GROUPS_MAX, "the caller bounds the groups"
    reading = _Reading(scope, of, by=by)
    keys = reading.keys
    rows = await reading.rows(
        f"ORDER BY quantity DESC, {', '.join(keys)} LIMIT {{first:UInt32}}", first=first
    )
    points: dict[tuple[Any, ...], list[UsagePoint]] = defaultdict(list)
    if bucket is not None and rows:
        shown = [tuple(str(row[key]) for key in keys) for row in rows]
        series = _Reading(scope, of, by=by, bucket=bucket)
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
        parts = [
            f"SELECT {self._told_apart(part)}{part.events} AS e"
            f"{', ' + part.columns if part.columns else ''} "
            f"FROM ({part.sql}) WHERE {self._conditions()} {_grouped(groups)}"
            for part in self._parts(rule, rolled)
        ]
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
        return await self.scope.events.query(
            sql,
            **event_parameters(rule),
            **self._values(),
            **more,
            zone=str(self.of.zone),
            watermark=self.of.watermark,
            meter=str(self.of.meter.id),
            spans=list(rolled.span_ids),
            through=rolled.through,
            ends=list(rolled.ends),
            start=moment(self.of.period.start),
            end=moment(self.of.period.end),
        )

    def _told_apart(self, part: _Part) -> str:
        columns = [
            f"{_key(self.of.meter, attribute)} AS {key}, "
            for attribute, key in zip(self.by, self.keys, strict=True)
        ]
        if self.bucket:
            columns.append(f"{_STEPS[self.bucket].format(at=part.at)} AS step, ")
        return "".join(columns)

    def _parts(self, rule: MeterRule, rolled: RolledUp) -> Iterator[_Part]:
        """What is rolled up by days and quarters, what the log has in place of those of them that
        were corrected since, what it has at the edges of the period, and behind the roll-ups."""
        sums = SUMS[rule.aggregation]
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
                    f"AND {_among('bucket', periods)}"
                )
                if rolled.ends:
                    since = superseded_since(level)
                    sql += f" AND (customer_id, bucket) NOT IN ({since})"
                    in_place = (
                        f"segment_id <= {{through:UInt64}} AND {_among('occurred_at', periods)} "
                        f"AND {place_of(level)} IN ({since})"
                    )
                    yield self._from_log(rule, in_place)
                yield _Part(sql, at="bucket", events="sum(events)", columns=sums.of_rollups)
            if within.edges:
                at_edges = _among("occurred_at", within.edges)
                yield self._from_log(rule, f"segment_id <= {{through:UInt64}} AND {at_edges}")
        if rolled.through < self.of.watermark or not rolled.span_ids:
            yield self._from_log(rule, f"segment_id > {{through:UInt64}} AND {IN_PERIOD}")

    def _from_log(self, rule: MeterRule, where: str) -> _Part:
        columns = SUMS[rule.aggregation].of_events
        return _Part(event_rows(rule, where), at="at", events="count()", columns=columns)

    def _conditions(self) -> str:
        return " AND ".join(
            [
                "true",
                *(
                    f"{_key(self.of.meter, attribute)} IN "
                    f"{{where{number}:Array({_type(attribute)})}}"
                    for number, (attribute, _) in enumerate(self.of.where)
                ),
            ]
        )

    def _values(self) -> dict[str, list[str]]:
        return {
            f"where{number}": [_stored(attribute, value) for value in values]
            for number, (attribute, values) in enumerate(self.of.where)
        }

    def _type(self) -> str:
        types = [_type(attribute) for attribute in self.by]
        return f"Array(Tuple({', '.join(types)}))" if len(types) > 1 else f"Array({types[0]})"


_COLUMNS = {
    # The first is what the table is sorted by; neither it nor the second is ever null.
    UsageBy.CUSTOMER: "customer_id",
    UsageBy.SUBSCRIPTION: "assumeNotNull(subscription_id)",
    UsageBy.TEAM: "ifNull(team_id, toUUID('{none}'))",
    UsageBy.AGENT: "ifNull(agent_id, toUUID('{none}'))",
    UsageBy.CUSTOMER_KEY: "ifNull(customer_key_id, toUUID('{none}'))",
}
_NOBODY = UUID(int=0)
_STEPS = {
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


def _among(column: str, periods: Sequence[Period]) -> str:
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


def _grouped(columns: Sequence[str]) -> str:
    return f"GROUP BY {', '.join(columns)}" if columns else ""
