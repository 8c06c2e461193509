"""Explains an invoice by an AI feature: the facts that it may know, and what it says of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from aforo.billing.models import Invoice, InvoiceLine
from aforo.plugins import FAILURES, Registry, bounded, told
from aforo.plugins.chosen import restored
from aforo.sdk import AiFeature, InvoiceFacts, InvoiceLineFacts, NotFound, PluginError

TEXT_CHARACTERS_MAX = 20_000
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a feature says of an invoice without a model, and what a model would be shown."""

    feature: str
    answer: str
    instructions: str
    data: dict[str, Any]
    """The facts, apart from the instructions: whatever a text in them says, it is data."""


def facts_of(
    invoice: Invoice, lines: Sequence[InvoiceLine], *, customer_name: str, time_zone: str
) -> InvoiceFacts:
    """An invoice with its lines, its days as the customer's calendar has them."""
    zone = ZoneInfo(time_zone)
    return InvoiceFacts(
        number=invoice.number,
        customer_name=customer_name,
        currency=invoice.currency,
        first_day=invoice.period_start.astimezone(zone).date(),
        last_day=(invoice.period_end - _INSTANT).astimezone(zone).date(),
        lines=tuple(
            InvoiceLineFacts(
                name=line.name,
                quantity=line.quantity,
                amount=line.amount,
                event_count=line.event_count,
            )
            for line in lines
        ),
        subtotal=invoice.subtotal,
        discount=invoice.discount,
        tax=invoice.tax,
        total=invoice.total,
        from_wallet=invoice.from_wallet,
        amount_due=invoice.amount_due,
    )


def explain(plugins: Registry, feature: str, facts: InvoiceFacts) -> Explanation:
    """What the feature `feature` says of the facts.

    Raises: `NotFound` where no plugin brings it, or it is about other facts; `PluginError`, which
    names it, where it fails or says anything but text.
    """
    kind = plugins.ai_features.get(feature)
    if kind is None or kind.facts is not InvoiceFacts:
        known = sorted(
            key for key, each in plugins.ai_features.items() if each.facts is type(facts)
        )
        raise NotFound(
            f"there is no AI feature {feature[:64]!r} about invoices; there are: "
            f"{', '.join(known) or 'none'}",
            field="feature",
        )
    what = f"the AI feature {feature!r}"
    component: AiFeature[InvoiceFacts] = restored(kind, {}, what=what)
    return Explanation(
        feature=feature,
        answer=_text(component.answer, facts, what=what),
        instructions=_text(component.instructions, facts, what=what),
        data=_plain(asdict(facts)),
    )


def _text(say: Any, facts: InvoiceFacts, *, what: str) -> str:
    try:
        said: object = bounded(say, facts, what=what)
    except FAILURES as error:  # A plugin may raise anything at all.
        raise PluginError(f"{what} failed: {told(error)}") from error
    if not isinstance(said, str) or not 0 < len(said) <= TEXT_CHARACTERS_MAX:
        raise PluginError(f"{what} said something else than 1 to {TEXT_CHARACTERS_MAX} characters")
    return said


def _plain(value: Any) -> Any:
    """Values for JSON: decimals in plain notation, days in ISO 8601."""
    match value:
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case Decimal():
            return f"{value:f}"
        case date():
            return value.isoformat()
        case _:
            return value
