"""What the world is told of an invoice."""

from typing import Any

from aforo.billing.models import Invoice


def published_invoice(row: Invoice) -> dict[str, Any]:
    """The data of the events about an invoice."""
    return {
        "invoice": row.id,
        "customer": row.customer_id,
        "subscription": row.subscription_id,
        "billRun": row.bill_run_id,
        "state": row.state.name,
        "number": row.number,
        "currency": row.currency,
        "periodStart": row.period_start,
        "periodEnd": row.period_end,
        "subtotal": row.subtotal,
        "discount": row.discount,
        "tax": row.tax,
        "total": row.total,
        "fromWallet": row.from_wallet,
        "amountDue": row.amount_due,
    }
