"""What the users of a customer may ask for with a portal token: each field by name.

What is not named here is not for them, so a new field is closed to them until somebody thinks
about it. Costs, margins, signals, and how the tenant runs its billing stay the tenant's.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from graphql import GraphQLInterfaceType, GraphQLNamedType, GraphQLObjectType, GraphQLSchema

PORTAL: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        kind: frozenset(fields.split())
        for kind, fields in {
            "Query": (
                "tenant portalCustomer customer subscriptions invoices usage events node nodes"
            ),
            "Subscription": "events",
            "Agent": "id code name createdAt team",
            "Customer": (
                "id externalId name email currency timeZone country region postalCode taxNumber "
                "createdAt teams keys subscriptions quotas wallets"
            ),
            "CustomerKey": "id name validFrom validTo createdAt customer agent",
            "CustomerSubscription": (
                "id billingMode startsAt endsAt anchorDay billedUntil createdAt state customer "
                "offering discounts"
            ),
            "Discount": "id code name kind rate amount currency",
            "Entitlement": "id code name kind quota policy reset resetUnit resetSeconds "
            "rolloverPeriods rolloverCap meter",
            "Event": (
                "eventId idempotencyKey type occurredAt receivedAt properties supersededBy customer"
            ),
            "EventCorrection": "isVoid receivedAt",
            "Invoice": (
                "id state number currency periodStart periodEnd subtotal discount tax total "
                "fromWallet amountDue createdAt finalizedAt customer subscription lines taxes"
            ),
            "InvoiceLine": (
                "id kind code name quantity unrounded amount discounted tax eventCount steps "
                "meter sourceEvents"
            ),
            "InvoiceTax": "name jurisdiction rate inclusive base amount",
            "Meter": "id code name unit",
            "Node": "id",
            "Offering": "id code version name",
            "PageInfo": "hasNextPage hasPreviousPage startCursor endCursor",
            "PriceStep": "label quantity unitPrice amount",
            "QuotaUse": "entitlement periodStart periodEnd limit used remaining overage",
            "Team": "id code name createdAt customer agents",
            "Tenant": "id name environment",
            "Usage": "asOf start end timeZone meter total points groups",
            "UsageGroup": "keys quantity events points",
            "UsageGroups": "count groups",
            "UsageKey": "by property id value",
            "UsagePoint": "start quantity events",
            "UsageTotal": "quantity events",
            "Wallet": "id name currency createdAt balance grants",
            "WalletGrant": "id amount reference expiresAt createdAt",
        }.items()
    }
)

FOUND_BY_ID = frozenset(
    {
        "Agent",
        "Customer",
        "CustomerKey",
        "CustomerSubscription",
        "Invoice",
        "InvoiceLine",
        "Team",
        "Wallet",
        "WalletGrant",
    }
)
"""What `node` finds for them: what is a customer's own. The rest they reach from there."""


def is_open(kind: GraphQLNamedType, field: str) -> bool:
    """Whether a portal token may ask for a field; those of pages go with what is in them."""
    return kind.name.endswith(("Connection", "Edge")) or field in PORTAL.get(kind.name, ())


def strangers(schema: GraphQLSchema) -> Iterator[str]:
    """What is named here and not there in the schema: a sentence for each."""
    for name, fields in PORTAL.items():
        kind = schema.type_map.get(name)
        if not isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            yield f"aforo/api/parts/portal.py names {name}, which is no type with fields"
            continue
        for field in sorted(fields - kind.fields.keys()):
            yield f"aforo/api/parts/portal.py names {name}.{field}, which does not exist"
