"""What the tests of billing sell, and how they bill it: the trace's offering, and plain calls."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

from aforo.billing import queries
from aforo.billing.commands import create_wallet, grant_credit, set_tax_engine, start_bill_run
from aforo.billing.models import BillRun, Invoice, InvoiceLine
from aforo.catalog.commands import (
    NewLine,
    create_cost_rate,
    create_discount,
    create_meter,
    create_offering,
    create_product,
    create_rate_plan,
)
from aforo.catalog.models import Aggregation, DiscountKind
from aforo.sdk import TenantId
from aforo.storage.scope import Runtime, Scope
from aforo.subscriptions.commands import create_customer, create_subscription
from aforo.subscriptions.models import BillingMode
from aforo.subscriptions.queries import customer_by_external_id

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]
_KEYS = count()


@dataclass(frozen=True, slots=True)
class Trade:
    """What was created."""

    customers: dict[str, UUID] = field(default_factory=dict)
    subscriptions: dict[str, UUID] = field(default_factory=dict)
    wallets: dict[str, UUID] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Buyer:
    """A customer with a subscription, and perhaps with a wallet."""

    name: str
    mode: BillingMode = BillingMode.POSTPAID
    wallet: str | None = None
    starts_at: datetime = OCTOBER
    grace_seconds: int = 0
    anchor_day: int = 1


PLAIN_LINES: Sequence[tuple[str, str, dict[str, Any]]] = (
    ("fee", "FLAT", {"fee": "10"}),
    ("calls", "PER_UNIT", {"unitPrice": "0.01"}),
)


async def open_trade(
    runtime: Runtime,
    tenant_id: TenantId,
    buyers: Sequence[Buyer],
    *,
    lines: Sequence[tuple[str, str, dict[str, Any]]] = PLAIN_LINES,
    percent_off: int = 0,
    code: str = "plan",
) -> Trade:
    """Sell a plan whose lines, but for those of the model FLAT, are over the event type `code`.

    The meter `requests` or `calls` counts events; any other sums the property of its name, and
    costs us 0.0000011 (input) or 0.0000044 (output) a unit as in the trace. Buyers that are
    customers already buy another subscription.
    """
    async with runtime.scope(tenant_id) as scope:
        new_lines = [await _line(scope, code, *line) for line in lines]
        product = await create_product(scope, code=code, name=code)
        plan = await create_rate_plan(scope, code=code, name=code, currency="USD", lines=new_lines)
        offering = await create_offering(
            scope, code=code, name=code, product_id=product.id, rate_plan_id=plan.id
        )
        discount_ids = []
        if percent_off:
            discount = await create_discount(
                scope,
                code=f"{code}-off",
                name="Off",
                kind=DiscountKind.PERCENTAGE,
                rate=Decimal(percent_off) / 100,
            )
            discount_ids.append(discount.id)
        trade = Trade()
        for buyer in buyers:
            await _sell(scope, trade, buyer, offering.id, discount_ids)
    return trade


async def _line(
    scope: Scope, code: str, name: str, model: str, settings: dict[str, Any]
) -> NewLine:
    meter_id = None
    if model != "FLAT":
        counts = name in {"requests", "calls"}
        meter = await create_meter(
            scope,
            code=f"{code}-{name}",
            name=name,
            event_type=code,
            aggregation=Aggregation.COUNT if counts else Aggregation.SUM,
            property_name=None if counts else name,
        )
        meter_id = meter.id
        if name in COSTS:
            await create_cost_rate(
                scope,
                meter_id=meter.id,
                unit_cost=Decimal(COSTS[name]),
                currency="USD",
                effective_from=OCTOBER,
            )
    return NewLine(code=name, name=name, model=model, settings=settings, meter_id=meter_id)


COSTS = {"input_tokens": "0.0000011", "output_tokens": "0.0000044"}


async def _sell(
    scope: Scope, trade: Trade, buyer: Buyer, offering_id: UUID, discount_ids: Sequence[UUID]
) -> None:
    customer = await customer_by_external_id(scope, buyer.name) or await create_customer(
        scope, external_id=buyer.name, name=buyer.name, currency="USD"
    )
    trade.customers[buyer.name] = customer.id
    subscription = await create_subscription(
        scope,
        customer_id=customer.id,
        offering_id=offering_id,
        starts_at=buyer.starts_at,
        billing_mode=buyer.mode,
        anchor_day=buyer.anchor_day,
        grace_seconds=buyer.grace_seconds,
        discount_ids=discount_ids,
    )
    trade.subscriptions[buyer.name] = subscription.id
    if buyer.wallet is not None:
        wallet = await create_wallet(scope, customer_id=customer.id, currency="USD")
        trade.wallets[buyer.name] = wallet.id
        if Decimal(buyer.wallet):
            await grant_credit(scope, wallet_id=wallet.id, amount=Decimal(buyer.wallet))


async def tax_everything(runtime: Runtime, tenant_id: TenantId, rate: str) -> None:
    """A manual tax on everything, everywhere."""
    async with runtime.scope(tenant_id) as scope:
        await set_tax_engine(
            scope, engine="manual", settings={"rates": [{"name": "Tax", "rate": rate}]}
        )


def call(
    customer: str, *, at: datetime | None = None, code: str = "plan", **properties: object
) -> dict[str, Any]:
    """An event under a key of its own, by default in the middle of October."""
    return {
        "idempotencyKey": f"call-{next(_KEYS)}",
        "type": code,
        "customer": customer,
        "occurredAt": (at or OCTOBER + timedelta(days=15)).isoformat(),
        "properties": properties,
    }


async def bill_now(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, *, until: datetime = NOVEMBER
) -> BillRun:
    """Start a bill run, let every job run, and give the run as it stands then."""
    async with runtime.scope(tenant_id) as scope:
        run = await start_bill_run(scope, until=until)
    await run_jobs()
    async with runtime.scope(tenant_id) as scope:
        return (await queries.bill_runs_by_id(scope, [run.id]))[run.id]


async def invoices_of(runtime: Runtime, tenant_id: TenantId) -> list[Invoice]:
    """All invoices, the oldest first."""
    async with runtime.scope(tenant_id) as scope:
        return (await queries.invoices().page(scope, first=100))[::-1]


async def lines_of(runtime: Runtime, tenant_id: TenantId, invoice: Invoice) -> list[InvoiceLine]:
    """The lines of an invoice in order."""
    async with runtime.scope(tenant_id) as scope:
        return (await queries.lines_by_invoice(scope, [invoice.id]))[invoice.id]
