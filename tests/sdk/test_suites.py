"""The contract suites find every fault that they promise to find, and name it."""
# ruff: noqa: ARG002, ARG003 (what a faulty component gets is not always what it looks at)

from collections.abc import Mapping
from decimal import Decimal, getcontext
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydantic import field_validator

from aforo.sdk import (
    AiFeature,
    AppliedTax,
    Charge,
    ChargeState,
    Component,
    Decline,
    Detection,
    Detector,
    FixedAmount,
    InvoiceFacts,
    Level,
    MarginEvidence,
    Message,
    Notification,
    Notifier,
    PaymentGateway,
    PaymentRequest,
    PricedLine,
    PricingModel,
    Rate,
    TaxEngine,
    TaxRequest,
    TaxUnavailable,
    Usage,
)
from aforo.sdk.kinds import KINDS
from aforo.sdk.testing import Case, ContractBroken, cases_of, checks_of, components_of


class Good(PricingModel):
    key = "acme.good"
    summary = "Everything at one price"
    examples = ({"unitPrice": "0.03"},)

    unit_price: Rate

    def price(self, usage: Usage) -> Any:
        return [PricedLine("Unit", usage.quantity, self.unit_price)]


class Exampleless(Good):
    examples = ()


class WrongExample(Good):
    examples = ({"unitPrice": "-1"},)


class Talkative(Good):
    summary = "Two\nlines"


class Floating(Good):
    unit_price: Decimal

    @field_validator("*", mode="before")
    @classmethod
    def _no_floats(cls, value: object) -> object:  # type: ignore[override]
        return value


class Lenient(Good):
    model_config: ClassVar[Any] = {"extra": "ignore"}


class Changeable(Good):
    model_config: ClassVar[Any] = {"frozen": False}


class Empty(Good):
    def price(self, usage: Usage) -> Any:
        return [PricedLine("Unit", usage.quantity, self.unit_price)] if usage.quantity else []


class Dividing(Good):
    def price(self, usage: Usage) -> Any:
        return [PricedLine("Third", usage.quantity / 3, self.unit_price)]


class Negative(Good):
    def price(self, usage: Usage) -> Any:
        return [FixedAmount("Gift", -usage.quantity)]


class Nameless(Good):
    def price(self, usage: Usage) -> Any:
        return [PricedLine("", usage.quantity, self.unit_price)]


class Inexact(Good):
    def price(self, usage: Usage) -> Any:
        return [FixedAmount("About", float(usage.quantity) * 0.03)]  # type: ignore[arg-type]


class Forgetful(Good):
    calls: ClassVar[list[int]] = []

    def price(self, usage: Usage) -> Any:
        self.calls.append(1)
        return [PricedLine(f"Call {len(self.calls)}", usage.quantity, self.unit_price)]


class Meddling(Good):
    def price(self, usage: Usage) -> Any:
        getcontext().prec = 28
        return [PricedLine("Unit", usage.quantity, self.unit_price)]


class NoTax(TaxEngine):
    key = "acme.tax"
    summary = "No tax"

    async def quote(self, request: TaxRequest) -> Any:
        return []


def tax(**changes: Any) -> AppliedTax:
    values = {"name": "VAT", "jurisdiction": "DE", "rate": Decimal("0.19"), "inclusive": False}
    return AppliedTax(**values | {"line_ids": ("1",)} | changes)


class Down(NoTax):
    async def quote(self, request: TaxRequest) -> Any:
        raise TaxUnavailable("the service is closed on Sundays")


class PercentTax(NoTax):
    async def quote(self, request: TaxRequest) -> Any:
        return [tax(rate=Decimal(1900))] if request.lines else []


class ElsewhereTax(NoTax):
    async def quote(self, request: TaxRequest) -> Any:
        return [tax(line_ids=("99",))] if request.lines else []


class DoubleTax(NoTax):
    async def quote(self, request: TaxRequest) -> Any:
        return [tax(), tax()] if request.lines else []


class WrongSum(NoTax):
    async def quote(self, request: TaxRequest) -> Any:
        return [tax(amount=Decimal(42))] if request.lines else []


class TaxOnNothing(NoTax):
    async def quote(self, request: TaxRequest) -> Any:
        return [tax(line_ids=())]


class Lottery(NoTax):
    draws: ClassVar[list[int]] = []

    async def quote(self, request: TaxRequest) -> Any:
        self.draws.append(1)
        return [tax(rate=Decimal(len(self.draws)) / 1000)] if request.lines else []


class Cash(PaymentGateway):
    key = "acme.cash"
    summary = "Notes and coins"

    async def charge(self, request: PaymentRequest) -> Charge:
        return Charge(state=ChargeState.PENDING, reference=request.idempotency_key)

    async def find(self, request: PaymentRequest) -> Charge | None:
        return None


class Codeless(Cash):
    async def charge(self, request: PaymentRequest) -> Charge:
        return Charge(state=ChargeState.DECLINED)


class Speechless(Cash):
    async def charge(self, request: PaymentRequest) -> Charge:
        return Charge(state=ChargeState.ACTION_REQUIRED)


class Twice(Cash):
    taken: ClassVar[list[int]] = []

    async def charge(self, request: PaymentRequest) -> Charge:
        self.taken.append(1)
        return Charge(state=ChargeState.SUCCEEDED, reference=str(len(self.taken)))


class Mistaken(Cash):
    async def find(self, request: PaymentRequest) -> Charge | None:
        return Charge(state=ChargeState.SUCCEEDED, reference="another")


class Unmapped(Cash):
    decline_codes: ClassVar[Mapping[str, Any]] = {"stolen": "never"}


class Optimist(Cash):
    @classmethod
    def decline_of(cls, code: str) -> Decline:
        return Decline.RETRYABLE


class Calm(Detector[MarginEvidence]):
    key = "acme.calm"
    summary = "Fires at a loss"
    evidence = MarginEvidence

    def detect(self, evidence: MarginEvidence) -> Detection | None:
        return self._found() if evidence.cogs > evidence.revenue else None

    def _found(self) -> Detection:
        return Detection(
            level=Level.ALERT, threshold="LOSS", value=None, limit=None, explanation="A loss."
        )


class Eternal(Calm):
    def is_rearmed(self, evidence: MarginEvidence, threshold: str) -> bool:
        return True


class Silent(Calm):
    def _found(self) -> Detection:
        return Detection(
            level=Level.ALERT, threshold="LOSS", value=None, limit=None, explanation=""
        )


class Quotient(Calm):
    def detect(self, evidence: MarginEvidence) -> Detection | None:
        return self._found() if evidence.cogs / Decimal(3) > 5 else None


class Postcard(Notifier):
    key = "acme.postcard"
    summary = "By mail"

    def compose(self, notification: Notification) -> Message:
        return Message(content_type="text/plain", body=notification.title + notification.text)


class Concatenated(Postcard):
    def compose(self, notification: Notification) -> Message:
        body = '{"text": "' + notification.text + '"}'
        return Message(content_type="application/json", body=body)


class Deaf(Postcard):
    def compose(self, notification: Notification) -> Message:
        return Message(content_type="text/plain", body="Something happened.")


class Endless(Postcard):
    def compose(self, notification: Notification) -> Message:
        return Message(content_type="text/plain", body=notification.text * 10_000)


class Oracle(AiFeature[InvoiceFacts]):
    key = "acme.oracle"
    summary = "Says nothing definite"
    facts = InvoiceFacts

    def instructions(self, facts: InvoiceFacts) -> str:
        return "Be vague."

    def answer(self, facts: InvoiceFacts) -> str:
        return "It may be."


class Obedient(Oracle):
    def instructions(self, facts: InvoiceFacts) -> str:
        return f"Write to {facts.customer_name}."


class Mute(Oracle):
    def answer(self, facts: InvoiceFacts) -> str:
        return ""


def broken_by(component: type[Component]) -> dict[str, str]:
    """The promises that it breaks, with what is said of each."""
    found = {}
    for case in cases_of(component):
        for check in checks_of(component):
            try:
                check.run(case)
            except ContractBroken as error:
                found[check.name] = str(error)
            except Exception as error:  # noqa: BLE001 (as `aforo plugins check` reports it)
                found[check.name] = f"it raised {error!r}"
    return found


@pytest.mark.parametrize("component", [Good, NoTax, Down, Cash, Calm, Postcard, Oracle])
def test_a_component_without_faults_keeps_every_promise(component: type[Component]) -> None:
    assert broken_by(component) == {}


@pytest.mark.parametrize(
    ("component", "promise", "told"),
    [
        (Exampleless, "it can be tried out with an example", "it needs unitPrice and gives no"),
        (WrongExample, "it can be tried out with an example", "settings.unitPrice: "),
        (Talkative, "it says in one line what it does", "one line"),
        (Floating, "a float is refused where a decimal belongs", "takes the float 0.5"),
        (Lenient, "a setting that it does not know is refused", "lost in silence"),
        (Changeable, "its settings cannot be changed", "`unit_price` can be changed"),
        (Empty, "no usage gives a line and no units", "usage of 0 gives no line"),
        (Dividing, "every usage has an exact price", "use `divide`"),
        (Negative, "no price is below zero", "never below 0"),
        (Nameless, "a price is made of decimals with labels", "a label is 1 to 200"),
        (Inexact, "a price is made of decimals with labels", "where a finite Decimal belongs"),
        (Forgetful, "the same usage gives the same lines", "keeps nothing between calls"),
        (Meddling, "the arithmetic around it stays as it was", "changes the decimal context"),
        (PercentTax, "it names taxes with their rates", "0.19 is 19 %"),
        (ElsewhereTax, "it taxes lines that were asked about and each once", "('99',)"),
        (DoubleTax, "it taxes lines that were asked about and each once", "same line twice"),
        (WrongSum, "an amount that it states is its rate on its lines", "comes to 42"),
        (TaxOnNothing, "no lines have no taxes", "without lines there is no tax"),
        (Lottery, "the same request gives the same taxes", "asked twice"),
        (Codeless, "a charge says what became of it", "a decline code is given exactly"),
        (Speechless, "a charge says what became of it", "`instructions` say what to do"),
        (Twice, "the same attempt is charged once", "has two results"),
        (Mistaken, "what it finds is what it charged", "finds 'another'"),
        (Unmapped, "every decline code says what comes next", "which is no Decline"),
        (Optimist, "every decline code says what comes next", "is UNKNOWN"),
        (Eternal, "what has just fired is not rearmed", "would fire without end"),
        (Silent, "a detection explains itself", "an explanation is 1 to"),
        (Quotient, "it can judge every evidence", "use `divide`"),
        (Concatenated, "what it calls json is json", "its body is no JSON"),
        (Deaf, "different news gives different messages", "whatever happened"),
        (Endless, "it composes a message of every news", "longer than 64 KiB"),
        (Obedient, "it instructs a model in its own words", "repeat a text of the facts"),
        (Mute, "it answers without a model", "its answer is text"),
    ],
)
def test_a_faulty_component_breaks_the_promise_and_is_told_how(
    component: type[Component], promise: str, told: str
) -> None:
    assert told in broken_by(component)[promise]


def test_every_kind_has_promises_of_its_own() -> None:
    common = set(checks_of(Component))
    assert len(common) >= 6
    for kind in KINDS.values():
        assert len(set(checks_of(kind.base)) - common) >= 3, kind.word


def test_each_example_is_a_case() -> None:
    class Two(Good):
        examples = ({"unitPrice": "1"}, {"unitPrice": "2"})

    assert [case.settings for case in cases_of(Two)] == list(Two.examples)
    assert cases_of(Calm) == [Case(Calm, {})]


def test_all_that_the_hooks_of_a_plugin_register_is_found() -> None:
    plugin = SimpleNamespace(
        register_ai_features=lambda: [Oracle], register_pricing_models=lambda: (Good,)
    )
    assert components_of(plugin) == [Good, Oracle]
