"""Settings of components: exact numbers, camelCase, and errors with the path."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import Field, ValidationError, field_validator

from aforo.sdk import (
    Amount,
    Component,
    Invalid,
    Quantity,
    Rate,
    Settings,
    SignedRate,
    configure,
    settings_form,
)


class Step(Settings):
    up_to: Quantity | None = None
    unit_price: Rate


class Sample(Component):
    key = "acme.sample"
    summary = "Everything that settings can be"

    steps: tuple[Step, ...] = Field(default=(), description="In rising order.")
    block_size: Quantity = Field(default=Decimal(1), gt=0)
    fee: Amount = Decimal(0)
    limit: SignedRate = Decimal(0)
    plain: Decimal = Decimal(0)
    weights: tuple[Decimal, ...] = ()
    sigmas: float = 2.0

    @field_validator("fee")
    @classmethod
    def _even(cls, fee: Decimal) -> Decimal:
        if fee % 2:
            raise Invalid("an odd fee", code="ODD", field="fee")
        return fee


# Settings, and the path at which they are wrong.
WRONG: list[tuple[Any, str]] = [
    ({"steps": [{"unitPrice": "1"}, {"unitPrice": 0.1}]}, "steps.1.unitPrice"),
    ({"steps": [{"unitPrice": "-1"}]}, "steps.0.unitPrice"),
    ({"steps": [{"unitPrice": "1", "upTo": "1e3"}]}, "steps.0.upTo"),
    ({"steps": [{"unitPrice": "1", "colour": "red"}]}, "steps.0.colour"),
    ({"steps": [{}]}, "steps.0.unitPrice"),
    ({"steps": "none"}, "steps"),
    ({"blockSize": "0"}, "blockSize"),
    ({"blockSize": True}, "blockSize"),
    ({"blockSize": None}, "blockSize"),
    ({"blockSize": "0.0000000000001"}, "blockSize"),
    ({"fee": "0.0000000000000000001"}, "fee"),
    ({"fee": "1234567890123456"}, "fee"),
    ({"fee": "3"}, "fee"),
    ({"limit": "NaN"}, "limit"),
    ({"plain": 0.5}, "plain"),
    ({"plain": "Infinity"}, "plain"),
    ({"weights": ["1", 0.5]}, "weights"),
    ({"colour": "red"}, "colour"),
]


@pytest.mark.parametrize(("settings", "path"), WRONG, ids=lambda value: str(value)[:50])
def test_what_is_wrong_is_named_by_its_path(settings: Any, path: str) -> None:
    with pytest.raises(Invalid) as refused:
        configure(Sample, settings, field="lines.0.settings")
    assert refused.value.field == f"lines.0.settings.{path}"
    assert "Value error" not in refused.value.message


def test_settings_that_are_no_object_are_refused_where_they_stand() -> None:
    with pytest.raises(Invalid) as refused:
        configure(Sample, ["steps"], field="lines.0.settings")  # type: ignore[arg-type]
    assert refused.value.field == "lines.0.settings"


def test_the_code_of_a_components_own_error_is_kept() -> None:
    with pytest.raises(Invalid) as refused:
        configure(Sample, {"fee": "3"}, field="")
    assert (refused.value.code, refused.value.field) == ("ODD", "fee")


def test_numbers_arrive_as_text_integer_or_decimal_and_stay_exact() -> None:
    sample = configure(
        Sample,
        {
            "steps": [{"upTo": 100, "unitPrice": Decimal("0.000000000000000001")}],
            "blockSize": "1000",
            "limit": "-0.5",
            "sigmas": Decimal("2.5"),
        },
    )
    assert sample.steps[0] == Step(up_to=Decimal(100), unit_price=Decimal("1E-18"))
    assert (sample.block_size, sample.limit, sample.sigmas) == (1000, Decimal("-0.5"), 2.5)


def test_settings_survive_a_round_through_json_text() -> None:
    sample = configure(Sample, {"steps": [{"unitPrice": "0.10"}], "fee": "2"})
    stored = sample.model_dump(mode="json", by_alias=True, exclude={"sigmas"})
    assert stored["steps"] == [{"upTo": None, "unitPrice": "0.10"}]
    assert configure(Sample, stored) == sample


def test_a_small_number_is_stored_in_plain_notation_which_comes_back() -> None:
    sample = configure(Sample, {"blockSize": "0.000000030"})
    stored = sample.model_dump(mode="json", by_alias=True, exclude={"sigmas"})
    assert stored["blockSize"] == "0.000000030"
    assert configure(Sample, stored) == sample


def test_a_component_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        configure(Sample, {}).fee = Decimal(2)  # type: ignore[misc]


def test_the_form_is_a_json_schema_with_numbers_as_text() -> None:
    form = settings_form(Sample)
    assert form["additionalProperties"] is False
    assert form["properties"]["blockSize"] == {
        "default": "1",
        "pattern": r"^[0-9]{1,15}(\.[0-9]{1,12})?$",
        "title": "Block size",
        "type": "string",
    }
    assert form["properties"]["limit"]["pattern"] == r"^-?[0-9]{1,15}(\.[0-9]{1,18})?$"
    assert form["properties"]["steps"]["description"] == "In rising order."
    assert form["$defs"]["Step"]["required"] == ["unitPrice"]
