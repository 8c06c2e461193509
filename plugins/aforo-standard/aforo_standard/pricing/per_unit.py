"""PER_UNIT: every unit at the same price."""

from aforo.sdk import PricedLine, PricingModel, Rate, Usage


class PerUnit(PricingModel):
    key = "PER_UNIT"
    summary = "Every unit at the same price"
    examples = ({"unitPrice": "0.03"},)

    unit_price: Rate

    def price(self, usage: Usage) -> list[PricedLine]:
        """Quantity × unit price."""
        return [PricedLine("Per unit", usage.quantity, self.unit_price)]
