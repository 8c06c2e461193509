"""A partner's plugin: usage sold in blocks."""

from decimal import ROUND_CEILING

from pydantic import Field

from aforo.sdk import Amount, PricedLine, PricingModel, Quantity, Usage, divide, hookimpl

aforo_sdk = "1.1"


class Blocks(PricingModel):
    key = "example.blocks"
    summary = "Usage sold in whole blocks"
    examples = ({"blockSize": "1000", "blockPrice": "2.00"},)

    block_size: Quantity = Field(gt=0, description="Units in one block.")
    block_price: Amount = Field(description="The price of one block, started or full.")

    def price(self, usage: Usage) -> list[PricedLine]:
        """One line: the blocks started × the price of one."""
        blocks = divide(usage.quantity, self.block_size).to_integral_value(ROUND_CEILING)
        return [PricedLine(f"Blocks of {self.block_size}", blocks, self.block_price)]


@hookimpl
def register_pricing_models() -> list[type[PricingModel]]:
    return [Blocks]
