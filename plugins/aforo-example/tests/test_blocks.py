"""Prices of usage sold in blocks."""

from decimal import Decimal

import pytest

from aforo.sdk import Invalid, Usage, configure, exact
from aforo_example import Blocks

SETTINGS = {"blockSize": "1000", "blockPrice": "2.00"}

# quantity | blocks | total
CHARGES = """
        0 | 0 |  0
      0.5 | 1 |  2.00
     1000 | 1 |  2.00
   1000.1 | 2 |  4.00
     2500 | 3 |  6.00
"""


@pytest.mark.parametrize("row", CHARGES.strip().splitlines())
def test_a_started_block_costs_as_much_as_a_full_one(row: str) -> None:
    quantity, blocks, total = (Decimal(cell) for cell in row.split("|"))
    usage = Usage(quantity=quantity, event_count=1, currency="USD")
    with exact():
        (line,) = configure(Blocks, SETTINGS).price(usage)
    assert (line.quantity, line.amount) == (blocks, total)


def test_a_block_of_no_units_is_refused() -> None:
    with pytest.raises(Invalid) as refused:
        configure(Blocks, SETTINGS | {"blockSize": "0"})
    assert refused.value.field == "settings.blockSize"
