"""Tiers: contiguous by construction, because each starts where the one before it ends."""

from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from pydantic import Field, StrictBool, field_validator

from aforo.sdk import (
    Amount,
    FixedAmount,
    Invalid,
    PricedLine,
    PricingModel,
    Quantity,
    Rate,
    Settings,
)
from aforo_standard.pricing.labels import number

TIERS_MAX = 100


class Tier(Settings):
    """The units above the tier before, up to and including `upTo`."""

    up_to: Quantity | None = Field(
        default=None, description="The last quantity of this tier; null for the open last tier."
    )
    unit_price: Rate
    flat_fee: Amount = Field(default=Decimal(0), description="Charged once if units fall here.")


@dataclass(frozen=True, slots=True)
class Span:
    """A tier and where it starts: the half-open interval `(lower, upper]`."""

    lower: Decimal
    tier: Tier

    @property
    def label(self) -> str:
        if self.tier.up_to is None:
            return f"Above {number(self.lower)}" if self.lower else "All units"
        if not self.lower:
            return f"Up to {number(self.tier.up_to)}"
        return f"Above {number(self.lower)} up to {number(self.tier.up_to)}"

    def units(self, quantity: Decimal) -> PricedLine:
        return PricedLine(self.label, quantity, self.tier.unit_price)

    def flat_fee(self) -> list[FixedAmount]:
        if not self.tier.flat_fee:
            return []
        return [FixedAmount(f"Flat fee: {self.label.lower()}", self.tier.flat_fee)]


class TieredModel(PricingModel, ABC):
    """A pricing model with tiers; `Invalid` names the tier that does not fit, `tiers.1.upTo`."""

    examples = (
        {
            "tiers": [
                {"upTo": "100", "unitPrice": "1.00", "flatFee": "10"},
                {"upTo": None, "unitPrice": "0.50", "flatFee": "5"},
            ]
        },
    )

    tiers: tuple[Tier, ...] = Field(
        min_length=1, max_length=TIERS_MAX, description="In rising order; only the last is open."
    )
    charge_flat_fee_on_zero_usage: StrictBool = Field(
        default=False, description="Charge the first tier's flat fee in a period without usage."
    )

    @field_validator("tiers")
    @classmethod
    def _contiguous(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        lower = Decimal(0)
        last = len(tiers) - 1
        for index, tier in enumerate(tiers):
            field = f"tiers.{index}.upTo"
            if index == last:
                if tier.up_to is not None:
                    raise Invalid("the last tier is open: set its upTo to null", field=field)
            elif tier.up_to is None:
                raise Invalid("only the last tier is open: give this one an upTo", field=field)
            elif tier.up_to <= lower:
                raise Invalid(
                    f"a tier ends above where it starts: upTo must be above {number(lower)}, "
                    f"not {number(tier.up_to)}",
                    field=field,
                )
            else:
                lower = tier.up_to
        return tiers

    def spans(self) -> Iterator[Span]:
        """The tiers from the first to the open last, each with its lower bound."""
        lower = Decimal(0)
        for tier in self.tiers:
            yield Span(lower, tier)
            lower = lower if tier.up_to is None else tier.up_to
