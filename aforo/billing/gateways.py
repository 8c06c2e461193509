"""The tenant's payment gateway: which one is in force, and what it tells customers to do."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlmodel import col

from aforo.billing.models import Invoice, InvoiceState, PaymentGatewaySettings
from aforo.billing.pay import instructions_of
from aforo.plugins.chosen import restored, to_store
from aforo.sdk import Instruction, NotFound, PaymentRequest, PluginError
from aforo.storage.rows import one_of, rows_by_id
from aforo.storage.scope import Scope
from aforo.subscriptions.models import Customer

log = structlog.get_logger()


async def set_payment_gateway(
    scope: Scope, *, gateway: str, settings: Mapping[str, Any]
) -> PaymentGatewaySettings:
    """Choose the tenant's payment gateway with its settings, in force from now on.

    Raises: `NotFound` for the gateway; `Invalid` with the path of the setting that it refuses.
    """
    kind = scope.plugins.payment_gateways.get(gateway)
    if kind is None:
        known = ", ".join(sorted(scope.plugins.payment_gateways))
        raise NotFound(
            f"there is no payment gateway {gateway[:64]!r}; there are: {known}", field="gateway"
        )
    stored = to_store(kind, settings, what=_named(gateway))
    row = PaymentGatewaySettings(gateway=gateway, settings=stored)
    scope.db.add(row)
    await scope.db.flush()
    return row


async def payment_gateway_settings(scope: Scope) -> PaymentGatewaySettings | None:
    """The settings in force, the latest; None where no gateway was chosen."""
    row: PaymentGatewaySettings | None = await scope.db.scalar(
        sa.select(PaymentGatewaySettings).order_by(col(PaymentGatewaySettings.id).desc()).limit(1)
    )
    return row


async def payment_gateway_settings_by_id(
    scope: Scope, ids: Collection[UUID]
) -> dict[UUID, PaymentGatewaySettings]:
    """The settings with these ids; an id that is not the tenant's is absent."""
    return await rows_by_id(scope, PaymentGatewaySettings, ids)


async def instructions_by_invoice(
    scope: Scope, invoice_ids: Collection[UUID]
) -> dict[UUID, Sequence[Instruction]]:
    """How to pay what is due on each final invoice, by the gateway in force.

    Absent are invoices of which nothing is due, and all where no gateway was chosen. One that the
    gateway fails at is absent too, which the log tells.
    """
    row = await payment_gateway_settings(scope)
    if row is None:
        return {}
    found: dict[UUID, Sequence[Instruction]] = {}
    kind = scope.plugins.payment_gateways.get(row.gateway)
    for invoice_id, request in (await _due(scope, invoice_ids)).items():
        try:
            gateway = restored(kind, row.settings, what=_named(row.gateway))
            found[invoice_id] = instructions_of(gateway, request)
        except PluginError as error:
            log.error("a payment gateway failed", error=error.message)  # noqa: TRY400 (it is theirs)
    return found


async def _due(scope: Scope, invoice_ids: Collection[UUID]) -> dict[UUID, PaymentRequest]:
    rows = await scope.db.execute(
        sa.select(Invoice, Customer)
        .join(Customer, col(Customer.id) == col(Invoice.customer_id))
        .where(
            one_of(Invoice.id, invoice_ids),
            col(Invoice.state) == InvoiceState.FINALIZED,
            col(Invoice.amount_due) > 0,
        )
    )
    return {
        invoice.id: PaymentRequest(
            invoice_id=str(invoice.id),
            invoice_number=invoice.number or "",
            customer=customer.external_id,
            customer_name=customer.name,
            amount=invoice.amount_due,
            currency=invoice.currency,
        )
        for invoice, customer in rows
    }


def _named(gateway: str) -> str:
    return f"the payment gateway {gateway!r}"
