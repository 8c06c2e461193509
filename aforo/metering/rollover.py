"""Rollover: the units that are left over from earlier windows of a quota."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

WINDOWS_MAX = 36
"""How far back it is looked: what was left over before is taken to be used up."""


@dataclass(slots=True)
class _Lot:
    """What one window left, and for how many windows it is still good."""

    left: Decimal
    windows: int


def carried(
    used: Sequence[Decimal], *, quota: Decimal, windows: int, cap: Decimal | None
) -> Decimal:
    """The units that come into the window after the last of these, of which each used so much.

    What comes in is consumed before a window's own units, the oldest first. What is left of those
    is good for `windows` windows. More than `cap` is not kept: the oldest goes.
    """
    lots: list[_Lot] = []
    for quantity in used:
        rest = quantity
        for lot in lots:
            taken = min(lot.left, rest)
            lot.left -= taken
            rest -= taken
            lot.windows -= 1
        lots = [lot for lot in lots if lot.left > 0 and lot.windows > 0]
        if (unused := quota - rest) > 0:
            lots.append(_Lot(unused, windows))
        _cut(lots, cap)
    return sum((lot.left for lot in lots), Decimal(0))


def _cut(lots: list[_Lot], cap: Decimal | None) -> None:
    if cap is None:
        return
    excess = sum((lot.left for lot in lots), Decimal(0)) - cap
    for lot in lots:
        gone = min(lot.left, max(excess, Decimal(0)))
        lot.left -= gone
        excess -= gone
