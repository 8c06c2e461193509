"""Bank transfer: what a customer is told, and that nothing is ever declined or taken twice."""

import asyncio
from decimal import Decimal

import pytest

from aforo.sdk import ChargeState, Decline, Invalid, PaymentRequest, configure
from aforo_standard.manual_gateway import ManualGateway

BANK = {"payee": "Acme Inc.", "account": "DE89 3704 0044 0532 0130 00"}


def request(amount: str = "88.47", *, currency: str = "USD", attempt: int = 1) -> PaymentRequest:
    return PaymentRequest(
        invoice_id="0199f0c0",
        invoice_number="INV-000007",
        customer="acme-corp",
        customer_name="Acme Corporation",
        amount=Decimal(amount),
        currency=currency,
        attempt=attempt,
    )


def test_a_customer_is_told_whom_to_pay_how_much_and_under_which_reference() -> None:
    gateway = configure(ManualGateway, BANK | {"bank": "COBADEFF", "note": "Within 14 days"})
    assert [(each.label, each.text) for each in gateway.instructions(request())] == [
        ("Payee", "Acme Inc."),
        ("Account", "DE89 3704 0044 0532 0130 00"),
        ("Bank", "COBADEFF"),
        ("Amount", "88.47 USD"),
        ("Reference", "INV-000007"),
        ("Note", "Within 14 days"),
    ]


def test_a_charge_waits_for_the_customer_and_is_found_again() -> None:
    gateway = configure(ManualGateway, BANK)
    charge = asyncio.run(gateway.charge(request()))
    assert charge.state is ChargeState.PENDING
    assert charge.reference == "INV-000007"
    assert charge.instructions == tuple(gateway.instructions(request()))
    assert asyncio.run(gateway.find(request())) == charge


def test_each_attempt_has_a_key_of_its_own() -> None:
    assert request().idempotency_key == "aforo-0199f0c0-1"
    assert request(attempt=2).idempotency_key == "aforo-0199f0c0-2"


def test_no_code_of_its_own_means_that_every_code_is_unknown() -> None:
    assert ManualGateway.decline_of("insufficient_funds") is Decline.UNKNOWN


@pytest.mark.parametrize("text", ["", "a\nb", "x" * 141])
def test_a_line_of_the_instructions_is_one_line(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        configure(ManualGateway, BANK | {"account": text})
    assert refused.value.field == "settings.account"
