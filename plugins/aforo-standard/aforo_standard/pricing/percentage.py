"""PERCENTAGE: a share of the value, such as a payment fee or a share of revenue."""

from decimal import Decimal
from enum import StrEnum

from pydantic import Field, model_validator

from aforo.sdk import Amount, FixedAmount, Invalid, PricedLine, PricingModel, Rate, Usage, multiply
from aforo_standard.pricing.labels import percent


class Scope(StrEnum):
    """What the minimum and the maximum fee are meant for."""

    PERIOD = "PERIOD"
    EVENT = "EVENT"


class Percentage(PricingModel):
    """Fixed fees count towards the minimum and the maximum fee.

    An event of a negative value corrects an earlier one: its share is given back, and the minimum
    and maximum fee per event do not touch it. The whole is never below 0.
    """

    key = "PERCENTAGE"
    summary = "A share of the value, with optional fixed fee per event, minimum and maximum"
    examples = (
        {"rate": "0.029", "fixedFee": "0.30"},
        {"rate": "0.01", "minimumFee": "0.05", "maximumFee": "10", "scope": "EVENT"},
    )

    rate: Rate = Field(description="The share: 0.029 is 2.9 %.")
    fixed_fee: Amount = Field(default=Decimal(0), description="Added for every event.")
    minimum_fee: Amount | None = None
    maximum_fee: Amount | None = None
    scope: Scope = Field(
        default=Scope.PERIOD, description="Minimum and maximum hold per period or per event."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Percentage":
        low, high = self.minimum_fee, self.maximum_fee
        if low is not None and high is not None and high < low:
            raise Invalid(
                f"the maximum fee {high:f} is below the minimum fee {low:f}", field="maximumFee"
            )
        return self

    def prices_events(self) -> bool:
        has_bounds = self.minimum_fee is not None or self.maximum_fee is not None
        return has_bounds and self.scope is Scope.EVENT

    def price(self, usage: Usage) -> list[PricedLine | FixedAmount]:
        """The share, the fixed fees, and what the minimum adds or the maximum takes off."""
        share = PricedLine(f"{percent(self.rate)} of the value", usage.quantity, self.rate)
        lines: list[PricedLine | FixedAmount] = [share]
        if not usage.event_count:
            return lines
        if self.fixed_fee:
            count = Decimal(usage.event_count)
            lines.append(PricedLine("Fixed fee per event", count, self.fixed_fee))
        if self.prices_events():
            lines.extend(self._event_adjustments(usage))
        else:
            lines.extend(self._adjustments([sum((line.amount for line in lines), Decimal(0))]))
        total = sum((line.amount for line in lines), Decimal(0))
        if total < 0:
            lines.append(FixedAmount("Corrections beyond the charges", -total))
        return lines

    def _event_adjustments(self, usage: Usage) -> list[FixedAmount]:
        if usage.event_values is None:
            raise ValueError("a PERCENTAGE with fees per event needs the value of every event")
        return self._adjustments(
            [
                multiply(value, self.rate) + self.fixed_fee
                for value in usage.event_values
                if value >= 0
            ]
        )

    def _adjustments(self, charges: list[Decimal]) -> list[FixedAmount]:
        low, high, per = self.minimum_fee, self.maximum_fee, f"per {self.scope.lower()}"
        added = sum((low - c for c in charges if low is not None and c < low), Decimal(0))
        taken = sum((high - c for c in charges if high is not None and c > high), Decimal(0))
        adjustments = ((f"Minimum fee {per}", added), (f"Maximum fee {per}", taken))
        return [FixedAmount(label, amount) for label, amount in adjustments if amount]
