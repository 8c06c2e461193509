"""GraphQL of conservation: what was received and counted, and what became of it."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Self
from uuid import UUID

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.relay import global_id, optional_id
from aforo.api.types.periods import PeriodInput
from aforo.billing import units
from aforo.billing.units import DAYS_MAX, METERS_MAX
from aforo.catalog import queries as catalog
from aforo.metering import conservation
from aforo.metering.conservation import HOUR, HOURS_MAX, Balance
from aforo.sdk import Period
from aforo.tenants.permissions import Permission


@strawberry.type(
    description="Events by what became of them: `received` = `accepted` + `duplicates` + "
    "`conflicts` + `rejected` + `quarantined` + `discarded`, and `accepted` = `inLog` + `inInbox`."
)
class IngestionBalance:
    start: datetime | None = strawberry.field(
        description="The hour in which they were first received; null for a total."
    )
    received: int = strawberry.field(description="All of them; atomic batches that failed are not.")
    accepted: int = strawberry.field(description="Those that count, or will in a moment.")
    duplicates: int = strawberry.field(description="Those that had been taken before.")
    conflicts: int = strawberry.field(description="Those with the key of another one.")
    rejected: int = strawberry.field(description="Those that were wrong.")
    quarantined: int = strawberry.field(description="Those that wait in quarantine still.")
    discarded: int = strawberry.field(description="Those that were discarded there.")
    released: int = strawberry.field(description="Those of the accepted that had been quarantined.")
    in_log: int = strawberry.field(description="Those of the accepted that count already.")
    in_inbox: int = strawberry.field(
        description="Those of the accepted that are on their way into the log."
    )
    unaccounted: int = strawberry.field(
        description="How many were received of which nothing is known; 0, or something is wrong."
    )
    missing: int = strawberry.field(
        description="How many were accepted and are nowhere; 0, or something is wrong."
    )
    balanced: bool = strawberry.field(description="Whether both are 0.")

    @classmethod
    def of(cls, balance: Balance, start: datetime | None = None) -> Self:
        return cls(
            start=start,
            received=balance.received,
            accepted=balance.accepted,
            duplicates=balance.duplicates,
            conflicts=balance.conflicts,
            rejected=balance.rejected,
            quarantined=balance.quarantined,
            discarded=balance.discarded,
            released=balance.released,
            in_log=balance.in_log,
            in_inbox=balance.in_inbox,
            unaccounted=balance.unaccounted,
            missing=balance.missing,
            balanced=balance.balanced,
        )


@strawberry.type(description="What was received in a period, and what became of it, by the hour.")
class IngestionBalances:
    total: IngestionBalance = strawberry.field(description="Of all hours.")
    hours: list[IngestionBalance] = strawberry.field(
        description="Of each hour (UTC) in which something was received, the earliest first."
    )


@strawberry.type(
    description="Units of a meter by what became of them: `counted` = `billed` + `included` + "
    "`blocked` + `voided` + `notYetBilled`."
)
class UnitBalance:
    meter_id: strawberry.ID = strawberry.field(description="The `Meter`.")
    meter_code: str = strawberry.field(description="Its code.")
    counted: Decimal = strawberry.field(description="What it has counted, voided ones too.")
    billed: Decimal = strawberry.field(description="Those on final invoices, at a price.")
    included: Decimal = strawberry.field(
        description="Those on final invoices that a price takes nothing for, such as the included "
        "units of a QUOTA."
    )
    blocked: Decimal = strawberry.field(description="Those beyond a quota that blocks.")
    voided: Decimal = strawberry.field(
        description="Those of events that others have voided, or taken the place of, by now."
    )
    not_yet_billed: Decimal = strawberry.field(
        description="Those on no final invoice: of periods that are open, and late ones. Below 0 "
        "where what was billed has been voided since."
    )
    unaccounted: Decimal = strawberry.field(
        description="Those of which nothing is known; 0, or something is wrong."
    )
    balanced: bool = strawberry.field(description="Whether that is 0.")

    @classmethod
    def of(cls, balance: units.UnitBalance, meter_id: UUID, code: str) -> Self:
        return cls(
            meter_id=global_id("Meter", meter_id),
            meter_code=code,
            counted=balance.counted,
            billed=balance.billed,
            included=balance.included,
            blocked=balance.blocked,
            voided=balance.voided,
            not_yet_billed=balance.not_yet_billed,
            unaccounted=balance.unaccounted,
            balanced=balance.balanced,
        )


@strawberry.type
class ConservationQuery:
    @field(
        "What was received in a period, widened to whole hours, and what became of it by now. "
        f"At most {HOURS_MAX // 24} days; the last 24 hours if not given.",
        needs=Permission.USAGE_READ,
        cost=50,
    )
    async def ingestion_balance(
        self,
        info: Info,
        period: Annotated[
            PeriodInput | None, strawberry.argument(description="Of which moments of receipt.")
        ] = None,
    ) -> IngestionBalances:
        async with info.context.scope() as scope:
            asked = (
                period.to_period() if period else Period(scope.now - 23 * HOUR, scope.now + HOUR)
            )
            found = await conservation.balances(scope, asked)
        return IngestionBalances(
            total=IngestionBalance.of(sum(found.values(), Balance())),
            hours=[IngestionBalance.of(balance, start) for start, balance in found.items()],
        )

    @field(
        "What each meter counted of what occurred in a period, and what became of it by now: of "
        f"one meter, or of the {METERS_MAX} oldest. At most {DAYS_MAX} days; the last {DAYS_MAX} "
        "if not given. For each customer it is widened to whole billing periods, as far as their "
        "invoices are final.",
        needs=Permission.BILLING_READ,
        cost=50,
    )
    async def unit_balances(
        self,
        info: Info,
        period: Annotated[
            PeriodInput | None, strawberry.argument(description="When it occurred.")
        ] = None,
        meter_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this meter.")
        ] = None,
    ) -> list[UnitBalance]:
        wanted = optional_id("Meter", meter_id, field="meterId")
        async with info.context.scope() as scope:
            asked = (
                period.to_period()
                if period
                else Period(scope.now - timedelta(days=DAYS_MAX), scope.now)
            )
            if wanted is None:
                rows = await catalog.meters().page(scope, first=METERS_MAX)
            else:
                rows = list((await catalog.meters_by_id(scope, [wanted])).values())
            found = await units.unit_balances(scope, asked, rows)
        return [UnitBalance.of(found[row.id], row.id, row.code) for row in rows]
