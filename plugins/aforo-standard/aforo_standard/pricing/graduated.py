"""GRADUATED: each tier's part of the quantity at that tier's price."""

from aforo.sdk import FixedAmount, PricedLine, Usage
from aforo_standard.pricing.tiers import TieredModel


class Graduated(TieredModel):
    key = "GRADUATED"
    summary = "Each tier's part of the quantity at that tier's price"

    def price(self, usage: Usage) -> list[PricedLine | FixedAmount]:
        """A line per tier entered, and its flat fee; at 0 the first tier's line alone."""
        lines: list[PricedLine | FixedAmount] = []
        for span in self.spans():
            if lines and usage.quantity <= span.lower:
                break
            upper = usage.quantity if span.tier.up_to is None else span.tier.up_to
            lines.append(span.units(min(usage.quantity, upper) - span.lower))
            if usage.quantity > 0 or self.charge_flat_fee_on_zero_usage:
                lines.extend(span.flat_fee())
        return lines
