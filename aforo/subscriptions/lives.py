"""The life of a subscription, as far as events are held against it."""

from dataclasses import dataclass
from datetime import datetime

from aforo.sdk import MeterId, OfferingId, ProductId, SubscriptionId


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionLife:
    """What ingestion needs of a subscription: when it ran, and what it covers."""

    subscription_id: SubscriptionId
    offering_id: OfferingId
    product_id: ProductId
    starts_at: datetime
    ends_at: datetime | None
    meter_ids: frozenset[MeterId]
    """Meters that the offering prices or grants a quota over."""

    def contains(self, at: datetime) -> bool:
        return self.starts_at <= at and (self.ends_at is None or at < self.ends_at)
