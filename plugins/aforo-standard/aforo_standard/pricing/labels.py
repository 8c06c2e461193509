"""How numbers read in the label of an invoice line."""

from decimal import Decimal


def number(value: Decimal) -> str:
    """`1000.50` reads 1,000.5."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: Decimal) -> str:
    """`0.029` reads 2.9 %."""
    return f"{number(share.scaleb(2))} %"
