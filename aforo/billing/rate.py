"""Stage 7, rating: one rate plan line's usage becomes an amount, rounded once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from itertools import islice
from typing import Any

from aforo.plugins import FAILURES, Registry, bounded, is_printable, told
from aforo.sdk import (
    FixedAmount,
    Invalid,
    PluginError,
    PricedLine,
    PricingModel,
    Usage,
    configure,
    currency_exponent,
    exact,
    multiply,
    round_half_up,
)

STEPS_MAX = 1_000
LABEL_CHARACTERS_MAX = 200
MAGNITUDE_MAX = 30
"""Integer digits of a quantity, a price or an amount."""
DECIMALS_MAX = 120
UNROUNDED_DECIMALS = 40


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the walk through a price; a fixed amount has neither quantity nor price."""

    label: str
    quantity: Decimal | None
    unit_price: Decimal | None
    amount: Decimal
    """Exact and unrounded."""


@dataclass(frozen=True, slots=True)
class RatedLine:
    """What one rate plan line charges."""

    steps: tuple[Step, ...]
    unrounded: Decimal
    """The sum of the steps."""
    amount: Decimal
    """The same in whole smallest units of the currency, halves away from zero."""


def rate(model: PricingModel, usage: Usage) -> RatedLine:
    """Ask a pricing model for its price, check the answer, multiply, sum and round once.

    Raises: `PluginError`, which names the model, where it raises anything, or answers with
    anything but priced lines and fixed amounts that are finite and sum exactly to 0 or more.
    """
    try:
        with exact():
            answer = bounded(model.price, usage, what=_named(model))
        with exact():  # Anew, because a plugin may have changed the context it was called in.
            steps = tuple(_step(item) for item in _items(answer))
            total = sum((step.amount for step in steps), Decimal(0))
    except _WrongAnswer as error:
        raise PluginError(f"{_named(model)} gave a wrong answer: {error}") from error
    except DecimalException as error:
        raise PluginError(
            f"{_named(model)} loses digits ({type(error).__name__}); it must use `divide` where "
            "it means a division"
        ) from error
    except FAILURES as error:  # A plugin may raise anything at all.
        raise PluginError(f"{_named(model)} failed: {told(error)}") from error
    if total < 0:
        raise PluginError(f"{_named(model)} gave a wrong answer: its lines sum to {total:f}")
    unrounded = _settled(total)
    return RatedLine(
        steps=steps,
        unrounded=unrounded,
        amount=round_half_up(unrounded, currency_exponent(usage.currency)),
    )


def pricing_model(plugins: Registry, key: str, settings: Mapping[str, Any]) -> PricingModel:
    """The model of a rate plan line with the settings that were saved for it.

    Raises: `PluginError` where no plugin brings the model any more, or it refuses its settings.
    """
    kind = plugins.pricing_models.get(key)
    if kind is None:
        raise PluginError(f"no installed plugin brings the pricing model {key!r}; install it again")
    try:
        return configure(kind, settings)
    except FAILURES as error:  # They fitted when they were saved; the plugin has changed since.
        field = f"{error.field}: " if isinstance(error, Invalid) else ""
        raise PluginError(
            f"the pricing model {key!r} ({kind.__module__}.{kind.__qualname__}) refuses the "
            f"settings that were saved for it: {field}{told(error)}"
        ) from error


def needs_values(model: PricingModel) -> bool:
    """Whether the model wants the value of each event. Raises: `PluginError`."""
    try:
        return bool(model.prices_events())
    except FAILURES as error:  # A plugin may raise anything at all.
        raise PluginError(f"{_named(model)} failed: {told(error)}") from error


def entitlement_of(model: PricingModel) -> str | None:
    """The code of the entitlement that says what the model includes. Raises: `PluginError`."""
    try:
        return model.entitlement_code()
    except FAILURES as error:  # A plugin may raise anything at all.
        raise PluginError(f"{_named(model)} failed: {told(error)}") from error


class _WrongAnswer(Exception):
    """A pricing model broke its contract."""


def _items(answer: object) -> Sequence[object]:
    if not isinstance(answer, Sequence) or isinstance(answer, str | bytes):
        raise _WrongAnswer(f"a {type(answer).__name__} is no sequence of lines")
    items = list(islice(answer, STEPS_MAX + 1))
    if len(items) > STEPS_MAX:
        raise _WrongAnswer(f"it has more than {STEPS_MAX} lines")
    return items


def _step(item: object) -> Step:
    if not isinstance(item, PricedLine | FixedAmount):
        raise _WrongAnswer(f"a {type(item).__name__} is neither PricedLine nor FixedAmount")
    if not is_printable(item.label, length_max=LABEL_CHARACTERS_MAX):
        raise _WrongAnswer(f"a label is text of 1 to {LABEL_CHARACTERS_MAX} printable characters")
    if isinstance(item, FixedAmount):
        return Step(item.label, None, None, _number(item.amount, item.label))
    quantity = _number(item.quantity, item.label)
    unit_price = _number(item.unit_price, item.label)
    # Multiplied here: `item.amount` may be a plugin's own.
    amount = _number(multiply(quantity, unit_price), item.label)
    return Step(item.label, quantity, unit_price, amount)


def _number(value: object, label: str) -> Decimal:
    if not isinstance(value, Decimal):
        raise _WrongAnswer(f"{label!r} has a {type(value).__name__} where a Decimal belongs")
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):  # A letter there: NaN or Infinity.
        raise _WrongAnswer(f"{label!r} has {value} where a number belongs")
    if value.adjusted() >= MAGNITUDE_MAX or exponent < -DECIMALS_MAX:
        raise _WrongAnswer(f"{label!r} has a number beyond all bounds")
    return value


def _settled(total: Decimal) -> Decimal:
    # A share of a period is a division cut at 60 digits: five sixths of 20.01 would stop just
    # short of the half cent that they are, and round down. A price in plain digits has at most
    # 30 decimals and stays as it is; a product with such a share is put back on its half.
    if total.as_tuple().exponent >= -UNROUNDED_DECIMALS:  # type: ignore[operator]
        return total
    return round_half_up(total, UNROUNDED_DECIMALS)


def _named(model: PricingModel) -> str:
    kind = type(model)
    return f"the pricing model {kind.key!r} ({kind.__module__}.{kind.__qualname__})"
