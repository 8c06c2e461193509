"""Settings of rate plan lines: judged by the pricing model, stored complete."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from pydantic import field_validator

from aforo.catalog.pricing import check_settings, find_model
from aforo.plugins import Registry, load_registry
from aforo.sdk import (
    Amount,
    FixedAmount,
    Invalid,
    PricedLine,
    PricingModel,
    Rate,
    Usage,
    configure,
    hookimpl,
)

# What is given, and what is stored of it.
STORED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("FLAT", {"fee": 20}, {"fee": "20"}),
    ("FLAT", {"fee": Decimal("20.00")}, {"fee": "20.00"}),
    ("PER_UNIT", {"unitPrice": "0.000000030"}, {"unitPrice": "0.000000030"}),
    (
        "GRADUATED",
        {"tiers": [{"upTo": "100", "unitPrice": "1"}, {"unitPrice": "0.5"}]},
        {
            "tiers": [
                {"upTo": "100", "unitPrice": "1", "flatFee": "0"},
                {"upTo": None, "unitPrice": "0.5", "flatFee": "0"},
            ],
            "chargeFlatFeeOnZeroUsage": False,
        },
    ),
    (
        "VOLUME",
        {"tiers": [{"unitPrice": "1"}], "chargeFlatFeeOnZeroUsage": True},
        {
            "tiers": [{"upTo": None, "unitPrice": "1", "flatFee": "0"}],
            "chargeFlatFeeOnZeroUsage": True,
        },
    ),
    (
        "PERCENTAGE",
        {"rate": "0.029", "minimumFee": "1", "scope": "EVENT"},
        {
            "rate": "0.029",
            "fixedFee": "0",
            "minimumFee": "1",
            "maximumFee": None,
            "scope": "EVENT",
        },
    ),
    (
        "QUOTA",
        {"included": 500, "overageUnitPrice": "0.5"},
        {
            "included": "500",
            "entitlement": None,
            "overageUnitPrice": "0.5",
            "blockSize": None,
            "blockPrice": None,
            "blockRounding": "FULL",
        },
    ),
    (
        "QUOTA",
        {"included": "500", "blockSize": "100", "blockPrice": "0.50", "blockRounding": "STARTED"},
        {
            "included": "500",
            "entitlement": None,
            "overageUnitPrice": None,
            "blockSize": "100",
            "blockPrice": "0.50",
            "blockRounding": "STARTED",
        },
    ),
]


class FailsToCheck(PricingModel):
    key = "test.fails_to_check"
    summary = "Raises while its settings are checked"

    fee: Amount

    @field_validator("fee")
    @classmethod
    def _broken(cls, fee: Decimal) -> Decimal:  # noqa: ARG003
        raise ZeroDivisionError("no fee, no cry")

    def price(self, usage: Usage) -> list[FixedAmount]:  # noqa: ARG002
        return []


class FailsToPrice(PricingModel):
    key = "test.fails_to_price"
    summary = "Raises as soon as there is usage"

    def price(self, usage: Usage) -> list[FixedAmount]:
        if usage.quantity:
            raise KeyError("tiers")
        return []


class Divides(PricingModel):
    key = "test.divides"
    summary = "Loses digits"

    price_of_three: Rate

    def price(self, usage: Usage) -> list[PricedLine]:
        return [PricedLine("Each", usage.quantity, self.price_of_three / 3)]


class AnswersText(PricingModel):
    key = "test.answers_text"
    summary = "Gives something that is no line"

    def price(self, usage: Usage) -> Sequence[PricedLine]:  # noqa: ARG002
        return ["12.50"]  # type: ignore[list-item]


class Forgets(PricingModel):
    key = "test.forgets"
    summary = "Does not take back what it gave out"

    fee: Amount

    @field_validator("fee", mode="before")
    @classmethod
    def _cents(cls, fee: object) -> object:
        return Decimal(str(fee)) / 100

    def price(self, usage: Usage) -> list[FixedAmount]:  # noqa: ARG002
        return [FixedAmount("Fee", self.fee)]


class Named(PricingModel):
    key = "test.named"
    summary = "Keeps a text"

    label: str
    notes: tuple[str, ...] = ()

    def price(self, usage: Usage) -> list[FixedAmount]:  # noqa: ARG002
        return [FixedAmount(self.label, Decimal(0))]


class Plugin:
    @hookimpl
    def register_pricing_models(self) -> list[type[PricingModel]]:
        return [FailsToCheck, FailsToPrice, Divides, AnswersText, Forgets, Named]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(extra=[Plugin()])


def checked(registry: Registry, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    component = find_model(registry, model, field="lines.0.model")
    return check_settings(registry, component, settings, currency="USD", field="lines.0.settings")


@pytest.mark.parametrize(("model", "given", "stored"), STORED)
def test_settings_are_stored_complete_and_come_back(
    registry: Registry, model: str, given: dict[str, Any], stored: dict[str, Any]
) -> None:
    assert checked(registry, model, given) == stored
    component = registry.pricing_models[model]
    assert configure(component, stored) == configure(component, given)


def test_every_pricing_model_that_comes_with_aforo_is_in_the_table(registry: Registry) -> None:
    shipped = {key for key in registry.pricing_models if not key.startswith("test.")}
    assert {model for model, _, _ in STORED} == shipped


@pytest.mark.parametrize(
    ("model", "settings", "field"),
    [
        ("FLAT", {}, "fee"),
        ("FLAT", {"fee": 0.1}, "fee"),
        ("FLAT", {"fee": "1", "free": True}, "free"),
        ("PER_UNIT", {"unitPrice": "1e3"}, "unitPrice"),
        ("GRADUATED", {"tiers": []}, "tiers"),
        (
            "GRADUATED",
            {
                "tiers": [
                    {"upTo": "100", "unitPrice": "1"},
                    {"upTo": "100", "unitPrice": "1"},
                    {"unitPrice": "1"},
                ]
            },
            "tiers.1.upTo",
        ),
        ("VOLUME", {"tiers": [{"unitPrice": "-1"}]}, "tiers.0.unitPrice"),
        ("test.named", {"label": "a\x00b"}, "label"),
        ("test.named", {"label": "a", "notes": ["b", "\ud800"]}, "notes.1"),
    ],
)
def test_wrong_settings_are_refused_with_their_path(
    registry: Registry, model: str, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        checked(registry, model, settings)
    assert refused.value.field == f"lines.0.settings.{field}"
    assert refused.value.code != "PLUGIN_ERROR"


def test_an_unknown_model_is_refused_and_the_known_ones_are_named(registry: Registry) -> None:
    with pytest.raises(Invalid, match="FLAT, GRADUATED, PERCENTAGE") as refused:
        find_model(registry, "HYBRID", field="lines.0.model")
    assert (refused.value.code, refused.value.field) == ("UNKNOWN_PRICING_MODEL", "lines.0.model")


@pytest.mark.parametrize(
    ("model", "settings", "told"),
    [
        ("test.fails_to_check", {"fee": "1"}, "ZeroDivisionError: no fee, no cry"),
        ("test.fails_to_price", {}, "KeyError: 'tiers'"),
        ("test.divides", {"priceOfThree": "1"}, "Inexact"),
        ("test.answers_text", {}, "which is no line of an invoice"),
        ("test.forgets", {"fee": "100"}, "do not come back"),
    ],
)
def test_a_model_that_breaks_is_named_with_its_plugin(
    registry: Registry, model: str, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(Invalid) as refused:
        checked(registry, model, settings)
    assert refused.value.code == "PLUGIN_ERROR"
    assert refused.value.field == "lines.0.settings"
    assert f"the pricing model {model} of the plugin {__name__}" in refused.value.message
    assert told in refused.value.message
