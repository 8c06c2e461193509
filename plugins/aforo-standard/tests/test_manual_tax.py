"""Manual tax: which rates are due where and on what."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from aforo.sdk import Invalid, TaxableLine, TaxRequest, configure
from aforo_standard.manual_tax import ManualTax

LINES = tuple(
    TaxableLine(id=id_, category=category, net=Decimal("100.00"))
    for id_, category in (("plain", None), ("saas", "saas"), ("book", "books"))
)
SALES = {"name": "Sales tax", "rate": "0.0825"}
DE = {"country": "DE"}


def request(*, country: str | None = "DE", region: str | None = None) -> TaxRequest:
    return TaxRequest(
        currency="USD",
        country=country,
        region=region,
        postal_code=None,
        tax_number=None,
        date=date(2026, 11, 30),
        lines=LINES,
    )


async def due(rates: list[dict[str, Any]], **where: Any) -> dict[str, set[str]]:
    taxes = await configure(ManualTax, {"rates": rates}).quote(request(**where))
    return {tax.name: set(tax.line_ids) for tax in taxes}


@pytest.mark.anyio
async def test_a_rate_without_jurisdiction_and_category_is_due_on_everything() -> None:
    (tax,) = await configure(ManualTax, {"rates": [SALES]}).quote(request(country=None))
    assert (tax.name, tax.jurisdiction, tax.rate) == ("Sales tax", "everywhere", Decimal("0.0825"))
    assert tax.line_ids == ("plain", "saas", "book")
    assert tax.inclusive is False
    assert tax.amount is None  # The core computes it, once, on the whole base.


# country and region of the rate | of the customer | due
JURISDICTIONS = """
    -     | -     | yes
    -     | US-CA | yes
    US    | US-CA | yes
    US    | US    | yes
    US-CA | US-CA | yes
    US-CA | US-NY | no
    US-CA | US    | no
    US    | DE    | no
    US    | -     | no
    CA    | US-CA | no
"""


@pytest.mark.anyio
@pytest.mark.parametrize("row", JURISDICTIONS.strip().splitlines())
async def test_a_rate_is_due_in_its_jurisdiction_alone(row: str) -> None:
    of_rate, of_customer, expected = (cell.strip() for cell in row.split("|"))
    country, _, region = of_rate.partition("-")
    place = {"country": country, "region": region or None} if country else None
    where = [part or None for part in of_customer.partition("-")[::2]]
    found = await due([SALES | {"jurisdiction": place}], country=where[0], region=where[1])
    assert bool(found) is (expected == "yes")


@pytest.mark.anyio
async def test_a_country_and_its_region_add_up() -> None:
    rates = [
        {"name": "GST", "rate": "0.05", "jurisdiction": {"country": "CA"}},
        {"name": "PST", "rate": "0.07", "jurisdiction": {"country": "CA", "region": "BC"}},
    ]
    taxes = await configure(ManualTax, {"rates": rates}).quote(request(country="CA", region="BC"))
    assert [(tax.name, tax.jurisdiction) for tax in taxes] == [("GST", "CA"), ("PST", "CA-BC")]


@pytest.mark.anyio
async def test_a_rate_for_a_category_takes_the_place_of_the_general_one() -> None:
    standard = {"name": "VAT", "rate": "0.19", "jurisdiction": DE, "inclusive": True}
    reduced = standard | {"name": "VAT, reduced", "rate": "0.07", "category": "books"}
    assert await due([standard, reduced]) == {
        "VAT": {"plain", "saas"},
        "VAT, reduced": {"book"},
    }
    elsewhere = reduced | {"jurisdiction": {"country": "FR"}}
    assert await due([standard, elsewhere]) == {"VAT": {"plain", "saas", "book"}}


@pytest.mark.anyio
async def test_without_rates_nothing_is_due() -> None:
    assert await due([]) == {}


@pytest.mark.parametrize(
    ("rate", "field"),
    [
        ({"rate": "0.1"}, "name"),
        ({"name": "", "rate": "0.1"}, "name"),
        ({"name": "VAT"}, "rate"),
        ({"name": "VAT", "rate": "19"}, "rate"),
        ({"name": "VAT", "rate": "-0.1"}, "rate"),
        ({"name": "VAT", "rate": 0.19}, "rate"),
        ({"name": "VAT", "rate": "0.1", "jurisdiction": {"country": "de"}}, "jurisdiction.country"),
        ({"name": "VAT", "rate": "0.1", "jurisdiction": {"region": "CA"}}, "jurisdiction.country"),
        ({"name": "VAT", "rate": "0.1", "inclusive": 1}, "inclusive"),
    ],
)
def test_wrong_rates_are_named(rate: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        configure(ManualTax, {"rates": [SALES, rate]}, field="")
    assert refused.value.field == f"rates.1.{field}"
