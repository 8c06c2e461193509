"""The trace's offering as billing sees it: charges, discount, tax."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from aforo.billing.discount import PercentageOff
from aforo.billing.invoice import Charge, Counted, Discounting
from aforo.plugins import load_registry
from aforo.sdk import configure
from tests.billing.reference import TraceUsage

TIERS = [
    {"upTo": "100000", "unitPrice": "0.000003"},
    {"upTo": "1000000", "unitPrice": "0.0000025"},
    {"upTo": None, "unitPrice": "0.000002"},
]
VOLUME = [
    {"upTo": "50000", "unitPrice": "0.000015"},
    {"upTo": None, "unitPrice": "0.000012"},
]
LINES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("platform_fee", "FLAT", {"fee": "20.00"}),
    ("input_tokens", "GRADUATED", {"tiers": TIERS}),
    ("output_tokens", "VOLUME", {"tiers": VOLUME}),
    ("requests", "QUOTA", {"included": "500", "blockSize": "100", "blockPrice": "0.50"}),
)
"""Code, pricing model and settings of each line; all but the first are over the meter of that
name."""
METERS: Mapping[str, UUID] = {
    code: UUID(int=number) for number, (code, _, _) in enumerate(LINES) if number
}
TEN_PERCENT = Discounting(code="ten", name="10 % off", rule=PercentageOff(Decimal("0.10")))


def charges() -> list[Charge]:
    """The rate plan with its models ready."""
    models = load_registry().pricing_models
    return [
        Charge(
            code=code, name=code, model=configure(models[key], settings), meter_id=METERS.get(code)
        )
        for code, key, settings in LINES
    ]


def counted(usage: TraceUsage) -> dict[UUID, Counted]:
    """What the three meters counted."""
    quantities = (usage.input_tokens, usage.output_tokens, usage.requests)
    return {
        meter_id: Counted(Decimal(quantity), usage.requests, 0)
        for meter_id, quantity in zip(METERS.values(), quantities, strict=True)
    }
