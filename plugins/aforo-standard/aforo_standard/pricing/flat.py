"""FLAT: a fee for the period, whatever is used."""

from aforo.sdk import Amount, FixedAmount, PricingModel, Usage, multiply


class Flat(PricingModel):
    key = "FLAT"
    summary = "A fee for the period, whatever is used; prorated over a part of it"
    needs_meter = False
    examples = ({"fee": "29.00"},)

    fee: Amount

    def price(self, usage: Usage) -> list[FixedAmount]:
        """The fee × the fraction of the period."""
        label = "Flat fee" if usage.fraction == 1 else "Flat fee for a part of the period"
        return [FixedAmount(label, multiply(self.fee, usage.fraction))]
