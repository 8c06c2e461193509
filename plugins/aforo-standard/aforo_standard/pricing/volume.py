"""VOLUME: the whole quantity at the price of the tier that the total falls in."""

from aforo.sdk import FixedAmount, PricedLine, Usage
from aforo_standard.pricing.tiers import TieredModel


class Volume(TieredModel):
    key = "VOLUME"
    summary = "The whole quantity at the price of the tier that the total falls in"

    def price(self, usage: Usage) -> list[PricedLine | FixedAmount]:
        """One line, and the flat fee of its tier."""
        span = next(
            span
            for span in self.spans()
            if span.tier.up_to is None or usage.quantity <= span.tier.up_to
        )
        lines: list[PricedLine | FixedAmount] = [span.units(usage.quantity)]
        if usage.quantity > 0 or self.charge_flat_fee_on_zero_usage:
            lines.extend(span.flat_fee())
        return lines
