"""The offering of the replayed trace and its customers, set up through GraphQL, once."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from benchmarks.client import Client, RequestRefusedError

HYBRID_CUSTOMERS = 3
"""Customers 0 to 2 have a wallet, which is drawn first."""
WALLET_AMOUNT = "10.00"
TAX_CATEGORY = "trace"
PAGE = 100

METERS = {
    "input_tokens": {"aggregation": "SUM", "property": "input_tokens", "unit": "token"},
    "output_tokens": {"aggregation": "SUM", "property": "output_tokens", "unit": "token"},
    "requests": {"aggregation": "COUNT", "unit": "request"},
}
UNIT_COSTS = {"input_tokens": "0.0000011", "output_tokens": "0.0000044"}
PRICES: dict[str, tuple[str, dict[str, Any]]] = {
    "platform_fee": ("FLAT", {"fee": "20.00"}),
    "input_tokens": (
        "GRADUATED",
        {
            "tiers": [
                {"upTo": "100000", "unitPrice": "0.000003"},
                {"upTo": "1000000", "unitPrice": "0.0000025"},
                {"upTo": None, "unitPrice": "0.000002"},
            ]
        },
    ),
    "output_tokens": (
        "VOLUME",
        {
            "tiers": [
                {"upTo": "50000", "unitPrice": "0.000015"},
                {"upTo": None, "unitPrice": "0.000012"},
            ]
        },
    ),
    "requests": (
        "QUOTA",
        {"included": "500", "blockSize": "100", "blockPrice": "0.50", "blockRounding": "FULL"},
    ),
}


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace as it stands in an Aforo: what tells it from others, and its month."""

    tag: str
    month_start: datetime
    month_end: datetime

    def in_month_of(self, start: datetime) -> "Trace":
        """The same trace in the month that starts then."""
        following = (start + timedelta(days=31)).replace(day=1)
        return replace(self, month_start=start, month_end=following)


@dataclass(frozen=True, slots=True)
class Offering:
    """What the customers subscribe to."""

    id: str
    code: str
    discount_id: str


@dataclass(frozen=True, slots=True)
class Account:
    """A customer with its subscription to the trace's offering."""

    external_id: str
    customer_id: str
    subscription_id: str
    starts_at: datetime


def offering_of(client: Client, trace: Trace) -> Offering:
    """The offering with all that belongs to it; made where it is missing."""
    product = _ensure(client, "product", {"code": "trace", "name": "Replayed trace"})
    meters = {
        name: _ensure(
            client,
            "meter",
            {
                "code": f"{name}-{trace.tag}",
                "name": name,
                "eventType": "llm.request",
                "filters": [{"property": "trace", "values": [trace.tag]}],
                **counted,
            },
        )
        for name, counted in METERS.items()
    }
    _set_cost_rates(client, trace, meters)
    _set_tax(client)
    lines = [
        {
            "code": code,
            "name": code,
            "model": model,
            "settings": settings,
            "meterId": meters.get(code),
            "taxCategory": TAX_CATEGORY,
        }
        for code, (model, settings) in PRICES.items()
    ]
    code = f"trace-{trace.tag}"
    plan = _ensure(
        client, "ratePlan", {"code": code, "name": code, "currency": "USD", "lines": lines}
    )
    offering = _ensure(
        client,
        "offering",
        {"code": code, "name": code, "productId": product, "ratePlanId": plan},
    )
    discount = _ensure(
        client,
        "discount",
        {"code": "trace-10", "name": "Ten percent", "kind": "PERCENTAGE", "rate": "0.10"},
    )
    return Offering(offering, code, discount)


def account_of(
    client: Client, trace: Trace, offering: Offering, number: int, *, is_hybrid: bool
) -> Account:
    """The customer `trace-{number}` and its subscription; made where they are missing."""
    external_id = f"trace-{number}"
    customer = _customer(client, external_id)
    subscription = next(
        (one for one in customer["subscriptions"] if one["offering"]["id"] == offering.id), None
    )
    if subscription is None:
        if is_hybrid:
            _credit(client, customer["id"], reference=offering.code)
        subscription = _create(
            client,
            "subscription",
            {
                "customerId": customer["id"],
                "offeringId": offering.id,
                "startsAt": trace.month_start.isoformat(),
                "anchorDay": 1,
                "graceSeconds": 0,
                "billingMode": "HYBRID" if is_hybrid else "POSTPAID",
                "discountIds": [offering.discount_id],
            },
            "... on CustomerSubscription { id startsAt }",
        )
    return Account(
        external_id=external_id,
        customer_id=customer["id"],
        subscription_id=subscription["id"],
        starts_at=datetime.fromisoformat(subscription["startsAt"]),
    )


def pages(client: Client, field: str, selection: str) -> Iterator[dict[str, Any]]:
    """Every node of a connection of the root query."""
    after = None
    while True:
        document = (
            f"query Page($after: String) {{ {field}(first: {PAGE}, after: $after) "
            f"{{ edges {{ node {{ {selection} }} }} pageInfo {{ hasNextPage endCursor }} }} }}"
        )
        page = client.graphql(document, after=after)[field]
        for edge in page["edges"]:
            yield edge["node"]
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]


def _ensure(client: Client, thing: str, values: dict[str, Any]) -> str:
    """The id of the thing with this code; made where there is none."""
    kind = thing[0].upper() + thing[1:]
    try:
        made: str = _create(client, thing, values, f"... on {kind} {{ id }}")["id"]
    except _TakenError:
        found = (
            one["id"]
            for one in pages(client, f"{thing}s", "id code")
            if one["code"] == values["code"]
        )
        made = next(found)
    return made


class _TakenError(Exception):
    """There is such a thing already."""


def _create(client: Client, thing: str, values: dict[str, Any], selection: str) -> dict[str, Any]:
    kind = thing[0].upper() + thing[1:]
    return mutate(client, f"create{kind}", values, selection)


def mutate(client: Client, name: str, values: dict[str, Any], selection: str) -> dict[str, Any]:
    """What a mutation gives. Raises: `RequestRefusedError` for a problem."""
    kind = name[0].upper() + name[1:]
    document = (
        f"mutation Make($input: {kind}Input!) {{ {name}(input: $input) "
        f"{{ __typename {selection} ... on Problem {{ code message field }} }} }}"
    )
    result: dict[str, Any] = client.graphql(document, input=values)[name]
    if result["__typename"] == "ConflictProblem" and result["code"].endswith(("_TAKEN", "_EXISTS")):
        raise _TakenError(result["message"])
    if result["__typename"].endswith("Problem"):
        raise RequestRefusedError(f"{name}: {result['field']}: {result['message']}")
    return result


def _set_cost_rates(client: Client, trace: Trace, meters: dict[str, str]) -> None:
    known = {rate["meterCode"] for rate in pages(client, "costRates", "meterCode")}
    for name, unit_cost in UNIT_COSTS.items():
        if f"{name}-{trace.tag}" in known:
            continue
        _create(
            client,
            "costRate",
            {
                "meterId": meters[name],
                "unitCost": unit_cost,
                "currency": "USD",
                "effectiveFrom": trace.month_start.isoformat(),
            },
            "... on CostRate { id }",
        )


def _set_tax(client: Client) -> None:
    """Add our rate to the tenant's own, for our lines alone."""
    chosen = client.graphql("{ taxSettings { engine settings } }")["taxSettings"]
    if chosen is not None and chosen["engine"] != "manual":
        raise RequestRefusedError(f"the tenant's taxes come from {chosen['engine']}, not manual")
    rates = chosen["settings"]["rates"] if chosen else []
    if any(rate.get("category") == TAX_CATEGORY for rate in rates):
        return
    ours = {"name": "Sales tax", "rate": "0.0825", "category": TAX_CATEGORY}
    mutate(
        client,
        "setTaxEngine",
        {"engine": "manual", "settings": {"rates": [*rates, ours]}},
        "... on TaxSettings { id }",
    )


def _customer(client: Client, external_id: str) -> dict[str, Any]:
    document = (
        "query Customer($externalId: String!) { customer(externalId: $externalId) { id "
        "subscriptions(first: 100) { edges { node { id startsAt offering { id } } } } } }"
    )
    found = client.graphql(document, externalId=external_id)["customer"]
    if found is None:
        made = _create(
            client,
            "customer",
            {"externalId": external_id, "name": external_id, "currency": "USD"},
            "... on Customer { id }",
        )
        return {"id": made["id"], "subscriptions": []}
    nodes = [edge["node"] for edge in found["subscriptions"]["edges"]]
    return {"id": found["id"], "subscriptions": nodes}


def _credit(client: Client, customer_id: str, *, reference: str) -> None:
    """Put the trace's credit into the customer's wallet, once however often it is tried."""
    with contextlib.suppress(_TakenError):
        _create(
            client,
            "wallet",
            {"customerId": customer_id, "currency": "USD"},
            "... on Wallet { id }",
        )
    document = "query Wallets($id: ID!) { customer(id: $id) { wallets { id currency } } }"
    wallets = client.graphql(document, id=customer_id)["customer"]["wallets"]
    wallet = next(one["id"] for one in wallets if one["currency"] == "USD")
    with contextlib.suppress(_TakenError):
        mutate(
            client,
            "grantCredit",
            {"walletId": wallet, "amount": WALLET_AMOUNT, "reference": reference},
            "... on WalletGrant { id }",
        )
