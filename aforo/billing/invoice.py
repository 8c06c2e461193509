"""From one subscription period's usage to its invoice: the one path of bill runs and previews."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from uuid import UUID

from aforo.billing.discount import AmountOff, PercentageOff, Reduction, apply_discounts
from aforo.billing.models import LineKind
from aforo.billing.rate import RatedLine, Step, rate
from aforo.billing.tax import Tax, compute_taxes
from aforo.sdk import AppliedTax, PricingModel, TaxableLine, Usage, exact

_ONE = Decimal(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One line of a rate plan, with its pricing model ready."""

    code: str
    name: str
    model: PricingModel
    meter_id: UUID | None = None
    rate_plan_line_id: UUID | None = None
    tax_category: str | None = None
    takes_included: bool = False
    """Whether the model takes what is included from an entitlement over the meter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discounting:
    """One discount of a subscription."""

    code: str
    name: str
    rule: PercentageOff | AmountOff
    discount_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What one meter counted for one customer in one period."""

    quantity: Decimal = Decimal(0)
    events: int = 0
    xor: int = 0
    """XOR of the counted events' hashes."""
    values: tuple[Decimal, ...] | None = None
    """Each event's value, where a pricing model needs them."""
    included: Decimal | None = None
    """What an entitlement includes, with what is carried on, where a pricing model takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of an invoice."""

    kind: LineKind
    code: str
    name: str
    quantity: Decimal
    unrounded: Decimal
    amount: Decimal
    """Rounded once; 0 or less for a discount."""
    steps: tuple[Step, ...]
    discounted: Decimal = Decimal(0)
    """The share of the discounts that was allocated to this line, 0 or more."""
    tax: Decimal = Decimal(0)
    tax_category: str | None = None
    rate_plan_line_id: UUID | None = None
    meter_id: UUID | None = None
    discount_id: UUID | None = None
    event_count: int = 0
    event_xor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The lines of an invoice and its taxes; all sums are of rounded amounts."""

    currency: str
    lines: tuple[Line, ...]
    """Fees and usage in the order of the rate plan, then the discounts in theirs."""
    taxes: tuple[Tax, ...] = ()

    @property
    def subtotal(self) -> Decimal:
        """Fees and usage, before discounts."""
        return _sum(line.amount for line in self.lines if line.kind is not LineKind.DISCOUNT)

    @property
    def discount(self) -> Decimal:
        """What the discounts take off, 0 or more."""
        return _sum(line.discounted for line in self.lines)

    @property
    def tax(self) -> Decimal:
        """The taxes that come on top."""
        return _sum(tax.amount for tax in self.taxes if not tax.inclusive)

    @property
    def total(self) -> Decimal:
        """Subtotal − discount + tax."""
        with exact():
            return self.subtotal - self.discount + self.tax


def rate_period(
    charges: Sequence[Charge],
    counted: Mapping[UUID, Counted],
    *,
    currency: str,
    fraction: Decimal = _ONE,
    discounts: Sequence[Discounting] = (),
) -> Bill:
    """Stages 7 and 8: rate every line of a plan and apply the discounts to their sum.

    `counted` is by meter; a meter that is absent counted nothing, and its line is there at 0.
    `fraction` is the share of the whole billing period that is charged. Amounts of the discounts
    are in `currency`. Raises `PluginError`, which names the pricing model that failed.
    """
    lines = []
    for charge in charges:
        usage = counted.get(charge.meter_id, Counted()) if charge.meter_id else None
        rated = rate_charge(charge, usage, currency=currency, fraction=fraction)
        lines.append(_line(charge, usage, rated))
    reductions = apply_discounts(
        [line.amount for line in lines], [item.rule for item in discounts], currency=currency
    )
    with exact():
        for reduction in reductions:
            lines = [
                replace(line, discounted=line.discounted + share)
                for line, share in zip(lines, reduction.allocations, strict=True)
            ]
    lines += [
        _discount_line(item, reduction)
        for item, reduction in zip(discounts, reductions, strict=True)
    ]
    return Bill(currency=currency, lines=tuple(lines))


def rate_charge(
    charge: Charge, counted: Counted | None, *, currency: str, fraction: Decimal
) -> RatedLine:
    """Stage 7 for one line; a line without a meter is one unit of it."""
    if counted is None:
        usage = Usage(quantity=_ONE, event_count=0, currency=currency, fraction=fraction)
    else:
        usage = Usage(
            quantity=counted.quantity,
            event_count=counted.events,
            currency=currency,
            fraction=fraction,
            event_values=counted.values,
            included=counted.included if charge.takes_included else None,
        )
    return rate(charge.model, usage)


def taxable_lines(bill: Bill) -> tuple[TaxableLine, ...]:
    """What a tax engine is asked about: the lines net of discounts, by their place."""
    with exact():
        return tuple(
            TaxableLine(
                id=str(index), category=line.tax_category, net=line.amount - line.discounted
            )
            for index, line in enumerate(bill.lines)
            if line.kind is not LineKind.DISCOUNT
        )


def with_taxes(bill: Bill, applied: Sequence[AppliedTax]) -> Bill:
    """Stage 9: the same bill with the engine's checked answer about `taxable_lines`."""
    asked = taxable_lines(bill)
    computed = compute_taxes(asked, applied, currency=bill.currency)
    by_id = {line.id: tax for line, tax in zip(asked, computed.by_line, strict=True)}
    return replace(
        bill,
        taxes=computed.taxes,
        lines=tuple(
            replace(line, tax=by_id.get(str(index), Decimal(0)))
            for index, line in enumerate(bill.lines)
        ),
    )


def _line(charge: Charge, counted: Counted | None, rated: RatedLine) -> Line:
    return Line(
        kind=LineKind.FEE if counted is None else LineKind.USAGE,
        code=charge.code,
        name=charge.name,
        quantity=_ONE if counted is None else counted.quantity,
        unrounded=rated.unrounded,
        amount=rated.amount,
        steps=rated.steps,
        tax_category=charge.tax_category,
        rate_plan_line_id=charge.rate_plan_line_id,
        meter_id=charge.meter_id,
        event_count=0 if counted is None else counted.events,
        event_xor=0 if counted is None else counted.xor,
    )


def _discount_line(item: Discounting, reduction: Reduction) -> Line:
    with exact():
        taken = Decimal(0) - reduction.unrounded  # A unary minus would keep the sign of −0.
        match item.rule:
            case PercentageOff(share):
                step = Step(item.name, reduction.of, -share, taken)
            case AmountOff():
                step = Step(item.name, None, None, taken)
        return Line(
            kind=LineKind.DISCOUNT,
            code=item.code,
            name=item.name,
            quantity=_ONE,
            unrounded=taken,
            amount=Decimal(0) - reduction.amount,
            steps=(step,),
            discount_id=item.discount_id,
        )


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    with exact():
        return sum(amounts, Decimal(0))
