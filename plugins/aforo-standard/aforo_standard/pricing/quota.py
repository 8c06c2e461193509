"""QUOTA: the first units are included, what goes beyond is charged per unit or per block."""

from decimal import Decimal
from enum import StrEnum

from pydantic import Field, model_validator

from aforo.sdk import Amount, Invalid, PricedLine, PricingModel, Quantity, Rate, Usage
from aforo_standard.pricing.labels import number


class BlockRounding(StrEnum):
    """Whether a block counts when it is full or as soon as it is started."""

    FULL = "FULL"
    STARTED = "STARTED"


class Quota(PricingModel):
    """Overage is charged either by `overageUnitPrice` or by `blockSize` and `blockPrice`."""

    key = "QUOTA"
    summary = "The first units are included, the rest is charged per unit or per block"
    examples = (
        {"included": "1000", "overageUnitPrice": "0.002"},
        {"included": "100", "blockSize": "1000", "blockPrice": "2", "blockRounding": "STARTED"},
        {"entitlement": "tokens", "overageUnitPrice": "0.002"},
    )

    included: Quantity | None = Field(default=None, description="Units that cost nothing.")
    entitlement: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="In place of `included`: the code of the entitlement whose quota, with what is "
        "carried on, costs nothing. Every offering of the plan pins it.",
    )
    overage_unit_price: Rate | None = None
    block_size: Quantity | None = Field(default=None, gt=0)
    block_price: Amount | None = None
    block_rounding: BlockRounding = BlockRounding.FULL

    @model_validator(mode="after")
    def _one_source(self) -> "Quota":
        if self.included is not None and self.entitlement is not None:
            raise Invalid(
                "what is included is stated or taken from an entitlement, not both: give either "
                "included or entitlement",
                field="entitlement",
            )
        if self.included is None and self.entitlement is None:
            raise Invalid(
                "nothing says what is included: give included, or the code of an entitlement",
                field="included",
            )
        return self

    @model_validator(mode="after")
    def _one_way(self) -> "Quota":
        if self.overage_unit_price is not None:
            for name in ("block_size", "block_price", "block_rounding"):
                # Stored settings are complete, so a default that is spelt out is no choice.
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise Invalid(
                        "overage is charged per unit or per block, not both: "
                        "give either overageUnitPrice or blockSize and blockPrice",
                        field=type(self).model_fields[name].alias,
                    )
        elif self.block_size is None and self.block_price is None:
            raise Invalid(
                "overage has no price: give overageUnitPrice, or blockSize and blockPrice",
                field="overageUnitPrice",
            )
        elif self.block_size is None:
            raise Invalid("a blockPrice needs a blockSize", field="blockSize")
        elif self.block_price is None:
            raise Invalid("a blockSize needs a blockPrice", field="blockPrice")
        return self

    def entitlement_code(self) -> str | None:
        return self.entitlement

    def price(self, usage: Usage) -> list[PricedLine]:
        """A line of what is included, and a line of the overage if there is any."""
        included = usage.included if self.included is None else self.included
        if included is None:
            raise AssertionError("the usage says what the entitlement includes")
        lines = []
        within = min(usage.quantity, included)
        if within or not usage.quantity:
            lines.append(PricedLine(f"Included: {number(included)}", within, Decimal(0)))
        overage = usage.quantity - within
        if overage:
            lines.append(self._overage(overage))
        return lines

    def _overage(self, units: Decimal) -> PricedLine:
        if self.overage_unit_price is not None:
            return PricedLine("Overage", units, self.overage_unit_price)
        if self.block_size is None or self.block_price is None:
            raise AssertionError("checked when the settings were saved")
        blocks, rest = divmod(units, self.block_size)
        if rest and self.block_rounding is BlockRounding.STARTED:
            blocks += 1
        rounding = self.block_rounding.lower()
        label = f"Overage: {rounding} blocks of {number(self.block_size)}"
        return PricedLine(label, blocks, self.block_price)
