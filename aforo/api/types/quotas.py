"""GraphQL of the quotas: what a customer may use beside what it has used."""

from datetime import datetime
from decimal import Decimal
from typing import Self
from uuid import UUID

import strawberry

from aforo.api.parts.context import Info
from aforo.api.types.catalog import Entitlement
from aforo.metering.grants import QuotaInForce
from aforo.metering.quota import QuotaUse as Use
from aforo.metering.quotas import quota_uses


@strawberry.type(description="A quota of a customer in its running period, and its use.")
class QuotaUse:
    entitlement: Entitlement = strawberry.field(description="What grants it.")
    period_start: datetime = strawberry.field(description="The first moment of the period.")
    period_end: datetime | None = strawberry.field(
        description="When it starts anew; null where it never does."
    )
    limit: Decimal = strawberry.field(
        description="Units that are included, with those that are carried on."
    )
    used: Decimal = strawberry.field(
        description="Units used so far, by the live counter; invoices count the events anew."
    )
    remaining: Decimal = strawberry.field(description="Units left, never below 0.")
    overage: Decimal = strawberry.field(description="Units beyond the limit.")

    @classmethod
    def from_values(cls, quota: QuotaInForce, use: Use) -> Self:
        return cls(
            entitlement=Entitlement.from_row(quota.entitlement),
            period_start=quota.period.start,
            period_end=quota.window.resets_at,
            limit=use.limit,
            used=use.used,
            remaining=use.remaining,
            overage=use.overage,
        )


async def quotas_of(info: Info, customer_id: UUID) -> list[QuotaUse]:
    """A customer's quotas; customers that ask at the same time share the look-up."""
    found = await info.context.load(quota_uses, customer_id)
    return [QuotaUse.from_values(quota, use) for quota, use in found or ()]
