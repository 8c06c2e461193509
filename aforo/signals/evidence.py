"""What a detector is asked about: one customer, one subject, one period, and the evidence."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from aforo.sdk import CustomerId, MarginEvidence, Period

WHOLE_CUSTOMER = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to judge, with what makes its signal's identity."""

    customer_id: CustomerId
    subject: str
    """The meter or product it is about; `*` for the customer as a whole."""
    period: Period
    currency: str
    evidence: object
    """Of the class that the detector wants."""


def margin_case(
    customer_id: CustomerId,
    *,
    currency: str,
    revenue: Decimal,
    cogs: Decimal,
    uncosted_events: int,
    period: Period,
    as_of: datetime,
) -> Case:
    """A customer's margin in the current period, up to `as_of`; amounts in `currency`."""
    return Case(
        customer_id=customer_id,
        subject=WHOLE_CUSTOMER,
        period=period,
        currency=currency,
        evidence=MarginEvidence(
            currency=currency,
            revenue=revenue,
            cogs=cogs,
            uncosted_events=uncosted_events,
            period=period,
            as_of=as_of,
        ),
    )
