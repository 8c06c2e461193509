"""One type per kind of id, so that a type checker refuses a customer where a meter is meant."""

from typing import NewType
from uuid import UUID

from aforo.sdk.encoding import encoded

TenantId = NewType("TenantId", UUID)
MemberId = NewType("MemberId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)

MeterId = NewType("MeterId", UUID)
ProductId = NewType("ProductId", UUID)
RatePlanId = NewType("RatePlanId", UUID)
RatePlanLineId = NewType("RatePlanLineId", UUID)
EntitlementId = NewType("EntitlementId", UUID)
OfferingId = NewType("OfferingId", UUID)
CostRateId = NewType("CostRateId", UUID)

CustomerId = NewType("CustomerId", UUID)
TeamId = NewType("TeamId", UUID)
AgentId = NewType("AgentId", UUID)
CustomerKeyId = NewType("CustomerKeyId", UUID)
SubscriptionId = NewType("SubscriptionId", UUID)

EventId = NewType("EventId", UUID)
SegmentId = NewType("SegmentId", UUID)

BillRunId = NewType("BillRunId", UUID)
InvoiceId = NewType("InvoiceId", UUID)
InvoiceLineId = NewType("InvoiceLineId", UUID)
WalletId = NewType("WalletId", UUID)
GrantId = NewType("GrantId", UUID)
DrawdownId = NewType("DrawdownId", UUID)

SignalId = NewType("SignalId", UUID)
ActionId = NewType("ActionId", UUID)
JobId = NewType("JobId", UUID)


def global_id(kind: str, id_: UUID) -> str:
    """The id of a thing of the GraphQL type `kind`, unique over all types; opaque to clients."""
    return encoded(f"{kind}:{id_}".encode())
