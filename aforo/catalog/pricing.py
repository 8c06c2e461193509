"""Whether a rate plan line's pricing model takes its settings, and what is stored of them."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from aforo.catalog.validate import check_text
from aforo.plugins import FAILURES, Registry, told
from aforo.sdk import (
    FixedAmount,
    Invalid,
    PricedLine,
    PricingModel,
    Usage,
    configure,
    exact,
)

_TRIAL_QUANTITIES = (Decimal(0), Decimal(1))
_TEXT_LENGTH_MAX = 2_000


def find_model(plugins: Registry, key: str, *, field: str) -> type[PricingModel]:
    """The pricing model with this key; raises `Invalid`, which names those that are known."""
    model = plugins.pricing_models.get(key)
    if model is None:
        raise Invalid(
            f"there is no pricing model {key[:80]!r}; "
            f"there are {', '.join(sorted(plugins.pricing_models))}",
            code="UNKNOWN_PRICING_MODEL",
            field=field,
        )
    return model


def check_settings(
    plugins: Registry,
    model: type[PricingModel],
    settings: Mapping[str, Any],
    *,
    currency: str,
    field: str,
) -> dict[str, Any]:
    """The settings as they are stored: complete, in camelCase, decimals as text.

    Raises `Invalid` with the path of the setting that the model refuses, or, where the model
    itself breaks, with the code `PLUGIN_ERROR` and the name of the plugin.
    """
    try:
        component = configure(model, settings, field=field)
    except Invalid:
        raise
    except FAILURES as error:  # A plugin's code may raise anything at all.
        raise _broken(plugins, model, error, field=field) from error
    try:
        dumped = component.model_dump(mode="json", by_alias=True)
        stored: dict[str, Any] = json.loads(json.dumps(dumped, allow_nan=False))
        # What is saved now is rated for years: it has to come back as the same thing.
        if configure(model, stored) != component:
            raise ValueError("the settings do not come back from JSON as they went in")
        for quantity in _TRIAL_QUANTITIES:
            _try(component, quantity, currency)
    except FAILURES as error:  # The settings were accepted, so this is the plugin's fault.
        raise _broken(plugins, model, error, field=field) from error
    _check_texts(stored, field)
    return stored


def named_entitlement(plugins: Registry, key: str, settings: Mapping[str, Any]) -> str | None:
    """The code of the entitlement from which a line takes what is included, if it does.

    `settings` are stored ones. Raises `Invalid` where the model's plugin is gone, or breaks.
    """
    model = find_model(plugins, key, field="ratePlanId")
    try:
        return configure(model, settings).entitlement_code()
    except FAILURES as error:  # A plugin's code may raise anything at all.
        raise _broken(plugins, model, error, field="ratePlanId") from error


def _try(component: PricingModel, quantity: Decimal, currency: str) -> None:
    """Price once, so that a model which cannot is found before it stops a bill run."""
    count = int(quantity)
    values = (quantity,) * count if component.prices_events() else None
    usage = Usage(
        quantity=quantity,
        event_count=count,
        currency=currency,
        event_values=values,
        included=None if component.entitlement_code() is None else Decimal(1),
    )
    with exact():
        for line in component.price(usage):
            if not isinstance(line, PricedLine | FixedAmount) or not line.amount.is_finite():
                raise TypeError(f"price() gave {line!r}, which is no line of an invoice")


def _broken(
    plugins: Registry, model: type[PricingModel], error: BaseException, *, field: str
) -> Invalid:
    source = plugins.sources[model]
    name = " ".join(part for part in (source.distribution or source.module, source.version) if part)
    return Invalid(
        f"the pricing model {model.key} of the plugin {name} failed on "
        f"these settings: {told(error)}; report it to the plugin's maker, or choose another model",
        code="PLUGIN_ERROR",
        field=field,
    )


def _check_texts(value: object, path: str) -> None:
    """Refuse what a JSON column cannot hold, wherever it stands in the settings."""
    if isinstance(value, str):
        check_text(value, field=path, length_max=_TEXT_LENGTH_MAX, may_be_blank=True)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            check_text(name, field=path, length_max=_TEXT_LENGTH_MAX, may_be_blank=True)
            _check_texts(each, f"{path}.{name}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _check_texts(each, f"{path}.{index}")
