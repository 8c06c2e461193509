"""What every payment gateway promises: one charge per key, and an answer that can be acted on.

The examples of a gateway are charged: they are settings of the vendor's test mode.
"""

from collections.abc import Sequence
from decimal import Decimal

from aforo.sdk.payment import (
    Charge,
    ChargeState,
    Decline,
    GatewayUnavailable,
    Instruction,
    PaymentGateway,
    PaymentRequest,
)
from aforo.sdk.testing.contract import Case, answer_of, check, demand, is_text

TEXT_CHARACTERS_MAX = 500
_REQUESTS = tuple(
    PaymentRequest(
        invoice_id="0199f0c0-0000-7000-8000-000000000001",
        invoice_number="INV-000001",
        customer="acme-corp",
        customer_name="Acme & Sons <acme@example.org>",
        amount=Decimal(amount),
        currency=currency,
    )
    for amount, currency in (("88.47", "USD"), ("1", "JPY"), ("0.001", "KWD"))
)


@check(PaymentGateway)
def a_charge_says_what_became_of_it(case: Case) -> None:
    for request in _REQUESTS:
        charge = _charged(case, request)
        if charge is None:
            continue
        demand(isinstance(charge, Charge), f"{charge!r} is no Charge")
        demand(isinstance(charge.state, ChargeState), f"{charge.state!r} is no ChargeState")
        demand(
            (charge.state is ChargeState.DECLINED) == (charge.decline_code is not None),
            "a decline code is given exactly where the charge is DECLINED",
        )
        demand(
            charge.state is not ChargeState.ACTION_REQUIRED or charge.instructions,
            "where the customer has to act, `instructions` say what to do",
        )
        _demand_instructions(charge.instructions)


@check(PaymentGateway)
def the_same_attempt_is_charged_once(case: Case) -> None:
    for request in _REQUESTS:
        first, second = _charged(case, request), _charged(case, request)
        if first is not None and second is not None:
            demand(
                first == second,
                "the same attempt, sent twice, has two results: send `request.idempotency_key`",
            )


@check(PaymentGateway)
def what_it_finds_is_what_it_charged(case: Case) -> None:
    for request in _REQUESTS:
        charge = _charged(case, request)
        found = answer_of(_find(case.configured(), request), down=GatewayUnavailable)
        if charge is not None and found is not None:
            demand(
                found.reference == charge.reference,
                f"it charged {charge.reference!r} and finds {found.reference!r} under the same key",
            )


@check(PaymentGateway)
def it_tells_a_customer_how_to_pay(case: Case) -> None:
    for request in _REQUESTS:
        told = case.configured().instructions(request)
        _demand_instructions(told)
        demand(
            list(told) == list(case.configured().instructions(request)),
            "the same request has different instructions",
        )


@check(PaymentGateway)
def every_decline_code_says_what_comes_next(case: Case) -> None:
    assert issubclass(case.component, PaymentGateway), "the check is for payment gateways"
    for code, meaning in case.component.decline_codes.items():
        demand(
            isinstance(code, str) and isinstance(meaning, Decline),
            f"the decline code {code!r} maps to {meaning!r}, which is no Decline",
        )
        demand(case.component.decline_of(code) is meaning, f"`decline_of` disagrees on {code!r}")
    demand(
        case.component.decline_of("no such code") is Decline.UNKNOWN,
        "a code that it does not know is UNKNOWN: it must not be charged again unseen",
    )


def _demand_instructions(told: object) -> None:
    demand(
        isinstance(told, Sequence)
        and not isinstance(told, str | bytes)
        and all(isinstance(each, Instruction) for each in told),
        f"instructions are a sequence of Instruction, not {told!r}",
    )
    assert isinstance(told, Sequence), "demanded above"
    for each in told:
        demand(
            is_text(each.label, length_max=TEXT_CHARACTERS_MAX)
            and is_text(each.text, length_max=TEXT_CHARACTERS_MAX),
            f"an instruction is two texts of 1 to {TEXT_CHARACTERS_MAX} characters, not {each!r}",
        )


def _charged(case: Case, request: PaymentRequest) -> Charge | None:
    return answer_of(_charge(case.configured(), request), down=GatewayUnavailable)


async def _charge(gateway: PaymentGateway, request: PaymentRequest) -> Charge:
    return await gateway.charge(request)


async def _find(gateway: PaymentGateway, request: PaymentRequest) -> Charge | None:
    return await gateway.find(request)
