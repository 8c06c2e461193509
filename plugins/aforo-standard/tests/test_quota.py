"""QUOTA: included units, overage per unit and per block, settings."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.sdk import Invalid, PricedLine, Usage, configure, exact
from aforo_standard.pricing.quota import Quota


def charge(settings: dict[str, Any], quantity: Decimal) -> list[PricedLine]:
    usage = Usage(quantity=quantity, event_count=1, currency="USD")
    with exact():
        return configure(Quota, settings).price(usage)


def total(lines: list[PricedLine]) -> Decimal:
    return sum((line.amount for line in lines), Decimal(0))


# quantity | FULL | STARTED
BLOCKS = """
       0 | 0 | 0
       1 | 0 | 2
     999 | 0 | 2
    1000 | 2 | 2
    1001 | 2 | 4
    1500 | 2 | 4
    2000 | 4 | 4
     0.5 | 0 | 2
  1000.5 | 2 | 4
"""


@pytest.mark.parametrize("included", [0, 500])
@pytest.mark.parametrize("row", BLOCKS.strip().splitlines())
def test_overage_per_block(row: str, included: int) -> None:
    quantity, full, started = (Decimal(cell) for cell in row.split("|"))
    settings = {"included": included, "blockSize": "1000", "blockPrice": "2"}
    assert total(charge(settings, quantity + included)) == full
    assert total(charge(settings | {"blockRounding": "FULL"}, quantity + included)) == full
    assert total(charge(settings | {"blockRounding": "STARTED"}, quantity + included)) == started


# quantity | included | overage | total
OVERAGE = """
       0 |    0 |    - |   0
      99 |   99 |    - |   0
     100 |  100 |    - |   0
     101 |  100 |    1 |   0.50
   100.5 |  100 |  0.5 |   0.25
     300 |  100 |  200 | 100.00
"""


@pytest.mark.parametrize("row", OVERAGE.strip().splitlines())
def test_overage_per_unit_begins_after_the_last_included_one(row: str) -> None:
    quantity, included, overage, amount = (cell.strip() for cell in row.split("|"))
    lines = charge({"included": "100", "overageUnitPrice": "0.50"}, Decimal(quantity))
    parts = [Decimal(part) for part in (included, overage) if part != "-"]
    assert [line.quantity for line in lines] == parts
    assert total(lines) == Decimal(amount)


def test_lines_say_what_they_are() -> None:
    blocks = {"included": "500", "blockSize": "1000", "blockPrice": "2"}
    assert [line.label for line in charge(blocks, Decimal(600))] == [
        "Included: 500",
        "Overage: full blocks of 1,000",
    ]
    per_unit = {"included": "500", "overageUnitPrice": "2"}
    assert [line.label for line in charge(per_unit, Decimal(501))] == ["Included: 500", "Overage"]


def test_without_usage_there_is_one_line_of_0() -> None:
    for included in ("0", "100"):
        (line,) = charge({"included": included, "overageUnitPrice": "1"}, Decimal(0))
        assert (line.quantity, line.amount) == (0, 0)


QUANTITIES = st.decimals(0, 10**7, places=3, allow_nan=False, allow_infinity=False)


@given(included=QUANTITIES, quantity=QUANTITIES)
def test_included_and_overage_sum_to_the_quantity(included: Decimal, quantity: Decimal) -> None:
    lines = charge({"included": included, "overageUnitPrice": "0.01"}, quantity)
    assert sum(line.quantity for line in lines) == quantity


@given(quantities=st.tuples(QUANTITIES, QUANTITIES).map(sorted), size=st.integers(1, 10**5))
def test_full_blocks_never_cost_more_than_started_ones_nor_less_with_more_usage(
    quantities: list[Decimal], size: int
) -> None:
    settings = {"included": "10", "blockSize": size, "blockPrice": "0.5"}
    less, more = (total(charge(settings, quantity)) for quantity in quantities)
    started = total(charge(settings | {"blockRounding": "STARTED"}, quantities[1]))
    assert less <= more <= started <= more + Decimal("0.5")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"overageUnitPrice": "1"}, "included"),
        ({"included": "-1", "overageUnitPrice": "1"}, "included"),
        ({"included": "1"}, "overageUnitPrice"),
        ({"included": "1", "blockSize": "10"}, "blockPrice"),
        ({"included": "1", "blockPrice": "10"}, "blockSize"),
        ({"included": "1", "blockSize": "0", "blockPrice": "1"}, "blockSize"),
        ({"included": "1", "overageUnitPrice": "1", "blockSize": "10"}, "blockSize"),
        ({"included": "1", "overageUnitPrice": "1", "blockPrice": "1"}, "blockPrice"),
        ({"included": "1", "overageUnitPrice": "1", "blockRounding": "STARTED"}, "blockRounding"),
        (
            {"included": "1", "blockSize": "1", "blockPrice": "1", "blockRounding": "HALF"},
            "blockRounding",
        ),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        configure(Quota, settings, field="")
    assert refused.value.field == field


# quantity | what the entitlement includes | overage
FROM_ENTITLEMENT = """
       0 | 100 |   -
     100 | 100 |   -
     101 | 100 | 0.50
     101 | 130 |   -
     150 | 130 | 10.00
       3 |   0 | 1.50
"""


@pytest.mark.parametrize("row", FROM_ENTITLEMENT.strip().splitlines())
def test_an_entitlement_may_say_what_is_included(row: str) -> None:
    quantity, included, overage = (cell.strip() for cell in row.split("|"))
    model = configure(Quota, {"entitlement": "tokens", "overageUnitPrice": "0.50"})
    assert model.entitlement_code() == "tokens"
    usage = Usage(
        quantity=Decimal(quantity), event_count=1, currency="USD", included=Decimal(included)
    )
    with exact():
        assert total(model.price(usage)) == (0 if overage == "-" else Decimal(overage))


def test_what_the_line_states_is_not_taken_from_an_entitlement() -> None:
    model = configure(Quota, {"included": "5", "overageUnitPrice": "1"})
    assert model.entitlement_code() is None
    usage = Usage(quantity=Decimal(7), event_count=1, currency="USD", included=Decimal(100))
    assert total(model.price(usage)) == 2


@pytest.mark.parametrize(
    ("given", "field"),
    [({}, "included"), ({"included": "1", "entitlement": "tokens"}, "entitlement")],
)
def test_what_is_included_is_said_once(given: dict[str, str], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        configure(Quota, {**given, "overageUnitPrice": "1"})
    assert refused.value.field == f"settings.{field}"
