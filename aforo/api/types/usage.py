"""GraphQL of usage: what a meter counted, in total, over time, and told apart."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Self
from uuid import UUID
from zoneinfo import ZoneInfo

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.relay import global_id, optional_id
from aforo.api.parts.scalars import BigInt
from aforo.api.types.catalog import Meter
from aforo.api.types.periods import PeriodInput
from aforo.api.types.usage_inputs import (
    KINDS,
    UsageFilterInput,
    UsageGroupingInput,
    attributes_of,
    filters_of,
)
from aforo.catalog import models
from aforo.catalog.queries import latest_meter, meters_by_id
from aforo.metering import queries, usage
from aforo.metering.steps import SHORTEST, Bucket, next_quarter
from aforo.metering.usage import GROUPINGS_MAX, GROUPS_MAX, Attribute, UsageBy, UsageOf, Value
from aforo.sdk import Invalid, Period
from aforo.storage.scope import Scope
from aforo.subscriptions.queries import customers_by_id
from aforo.subscriptions.validate import check_time_zone
from aforo.tenants.permissions import Permission

POINTS_MAX = 10_000
"""Steps of a series, or of all the groups of an answer together."""
SERIES_MAX = 100
"""Groups that have a series each."""
GROUPS_DEFAULT = 100


@strawberry.type(description="The billable units of one step of a series.")
class UsagePoint:
    start: datetime = strawberry.field(description="When the step starts.")
    quantity: Decimal = strawberry.field(
        description="Billable units; below 0 where corrections are more than what they correct."
    )
    events: BigInt = strawberry.field(description="Events that were counted.")

    @classmethod
    def from_point(cls, point: usage.UsagePoint) -> Self:
        return cls(start=point.start, quantity=point.quantity, events=BigInt(point.events))


@strawberry.type(description="The billable units of a period.")
class UsageTotal:
    quantity: Decimal = strawberry.field(
        description="Billable units; below 0 where corrections are more than what they correct."
    )
    events: BigInt = strawberry.field(description="Events that were counted.")


@strawberry.type(description="One value that a group of usage has in common.")
class UsageKey:
    by: UsageBy = strawberry.field(description="Which level of the hierarchy, or a property.")
    property: str | None = strawberry.field(description="With PROPERTY: its name.")
    id: strawberry.ID | None = strawberry.field(
        description="Global id of the customer, team, agent, key or subscription; null where the "
        "events have none."
    )
    value: str | None = strawberry.field(
        description="With PROPERTY: its value as text; null where the events have none."
    )

    @classmethod
    def from_value(cls, attribute: Attribute, value: Value) -> Self:
        kind = KINDS.get(attribute.by)
        return cls(
            by=attribute.by,
            property=attribute.property,
            id=None if kind is None or value is None else global_id(kind, UUID(value)),
            value=value if kind is None else None,
        )


@strawberry.type(description="The usage that has some values in common.")
class UsageGroup:
    keys: list[UsageKey] = strawberry.field(description="The values, as they were asked for.")
    quantity: Decimal = strawberry.field(
        description="Billable units; below 0 where corrections are more than what they correct."
    )
    events: BigInt = strawberry.field(description="Events that were counted.")
    points: list[UsagePoint] = strawberry.field(
        description="Its series, the oldest step first; empty unless a `bucket` was asked for."
    )


@strawberry.type(description="The groups of the largest quantity.")
class UsageGroups:
    count: BigInt = strawberry.field(description="How many groups there are in all.")
    groups: list[UsageGroup] = strawberry.field(description="The largest first.")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an answer is worked out from, where its fields are asked for."""

    row: models.Meter
    of: UsageOf


@strawberry.type(description="What a meter counted. All of it is as of one place in the log.")
class Usage:
    asked: strawberry.Private[_Asked]
    as_of: BigInt = strawberry.field(
        description="Up to which segment of the log events are in it. Given as `asOf`, the same "
        "figures come again, whatever has arrived since."
    )
    start: datetime = strawberry.field(description="The first moment of the period.")
    end: datetime = strawberry.field(description="The first moment after it.")
    time_zone: str = strawberry.field(
        description="IANA zone whose midnights bound days, weeks and months."
    )

    @field("The meter.")
    async def meter(self) -> Meter:
        return Meter.from_row(self.asked.row)

    @field("All of it in one figure.", cost=50)
    async def total(self, info: Info) -> UsageTotal:
        async with info.context.scope() as scope:
            found = await usage.usage_total(scope, self.asked.of)
        return UsageTotal(quantity=found.quantity, events=BigInt(found.events))

    @field(
        "What quotas block of it: beyond their limits, kept and shown, never billed, and in no "
        "other figure here.",
        cost=50,
    )
    async def blocked(self, info: Info) -> UsageTotal:
        async with info.context.scope() as scope:
            found = await usage.usage_blocked(scope, self.asked.of)
        return UsageTotal(quantity=found.quantity, events=BigInt(found.events))

    @field(
        "Its course, the oldest step first; steps without an event are left out. At most "
        f"{POINTS_MAX} steps.",
        cost=50,
    )
    async def points(
        self,
        info: Info,
        bucket: Annotated[Bucket, strawberry.argument(description="In steps of.")] = Bucket.DAY,
    ) -> list[UsagePoint]:
        _check_points(self.asked.of.period, bucket, series=1)
        async with info.context.scope() as scope:
            found = await usage.usage_over_time(scope, self.asked.of, bucket)
        return [UsagePoint.from_point(point) for point in found]

    @field("Told apart by what its events have in common.", cost=100)
    async def groups(
        self,
        info: Info,
        by: Annotated[
            list[UsageGroupingInput],
            strawberry.argument(description=f"By what: 1 to {GROUPINGS_MAX}."),
        ],
        bucket: Annotated[
            Bucket | None,
            strawberry.argument(
                description=f"With a series each, in steps of; then at most {SERIES_MAX} groups, "
                f"and {POINTS_MAX} steps of all groups together."
            ),
        ] = None,
        first: Annotated[
            int,
            strawberry.argument(
                description=f"How many groups, the largest first: 1 to {GROUPS_MAX}."
            ),
        ] = GROUPS_DEFAULT,
    ) -> UsageGroups:
        attributes = attributes_of(by)
        most = GROUPS_MAX if bucket is None else SERIES_MAX
        if not 1 <= first <= most:
            raise Invalid(f"first is 1 to {most} here, not {first}", field="first")
        if bucket is not None:
            _check_points(self.asked.of.period, bucket, series=first)
        async with info.context.scope() as scope:
            found = await usage.usage_by(
                scope, self.asked.of, attributes, first=first, bucket=bucket
            )
        return UsageGroups(
            count=BigInt(found.count),
            groups=[
                UsageGroup(
                    keys=[
                        UsageKey.from_value(attribute, value)
                        for attribute, value in zip(attributes, group.values, strict=True)
                    ],
                    quantity=group.quantity,
                    events=BigInt(group.events),
                    points=[UsagePoint.from_point(point) for point in group.points],
                )
                for group in found.groups
            ],
        )


@strawberry.type
class UsageQuery:
    @field("What a meter counted; null if there is no such meter.", needs=Permission.USAGE_READ)
    async def usage(
        self,
        info: Info,
        *,
        meter_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="The meter, by its id,")
        ] = None,
        meter_code: Annotated[
            str | None,
            strawberry.argument(description="or by its code: then the latest version."),
        ] = None,
        period: Annotated[
            PeriodInput | None,
            strawberry.argument(
                description="Over which time; the last 30 days, up to the end of the quarter of an "
                "hour that is running, if not given."
            ),
        ] = None,
        where: Annotated[
            UsageFilterInput | None, strawberry.argument(description="Only of these events.")
        ] = None,
        time_zone: Annotated[
            str | None,
            strawberry.argument(
                description="IANA zone whose midnights bound days, weeks and months; if not given "
                "that of the customer where `where` names one alone, else UTC."
            ),
        ] = None,
        as_of: Annotated[
            BigInt | None,
            strawberry.argument(
                description="The `asOf` of an earlier answer; the newest if not given."
            ),
        ] = None,
    ) -> Usage | None:
        if (meter_id is None) == (meter_code is None):
            raise Invalid("give either meterId or meterCode", code="BAD_ARGUMENTS", field="meterId")
        id_ = optional_id("Meter", meter_id, field="meterId")
        filters = filters_of(where)
        async with info.context.scope() as scope:
            zone = await _zone(scope, time_zone, filters)
            meter = (
                (await meters_by_id(scope, [id_])).get(id_)
                if id_
                else await latest_meter(scope, meter_code or "")
            )
            if meter is None:
                return None
            usage.check_dimensions(meter, (attribute for attribute, _ in filters))
            watermark = await queries.watermark(scope)
            if as_of is not None and not 0 <= as_of <= watermark:
                raise Invalid(
                    f"asOf is the asOf of an earlier answer, so 0 to {watermark}", field="asOf"
                )
            of = UsageOf(
                meter=meter,
                period=period.to_period() if period else _last_month(scope),
                watermark=watermark if as_of is None else as_of,
                zone=zone,
                where=filters,
            )
        return Usage(
            asked=_Asked(meter, of),
            as_of=BigInt(of.watermark),
            start=of.period.start,
            end=of.period.end,
            time_zone=str(zone),
        )


def _last_month(scope: Scope) -> Period:
    end = next_quarter(scope.now)
    return Period(end - timedelta(days=30), end)


async def _zone(
    scope: Scope, given: str | None, filters: list[tuple[Attribute, list[Value]]]
) -> ZoneInfo:
    if given is not None:
        return ZoneInfo(check_time_zone(given))
    customers = [values for attribute, values in filters if attribute.by is UsageBy.CUSTOMER]
    if len(customers) == 1 and len(customers[0]) == 1 and customers[0][0] is not None:
        id_ = UUID(customers[0][0])
        customer = (await customers_by_id(scope, [id_])).get(id_)
        return ZoneInfo(customer.time_zone if customer else "UTC")
    return ZoneInfo("UTC")


def _check_points(period: Period, bucket: Bucket, *, series: int) -> None:
    steps = (period.end - period.start) / SHORTEST[bucket]
    if steps * series > POINTS_MAX:
        groups = f" of {series} groups" if series > 1 else ""
        raise Invalid(
            f"the period has more than {POINTS_MAX} steps{groups}: choose wider ones"
            + (", or fewer groups" if series > 1 else ""),
            field="bucket",
        )
