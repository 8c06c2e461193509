"""The bill of the trace's offering in plain decimals: an independent script, without Aforo."""

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from pathlib import Path

CENT = Decimal("0.01")
PLATFORM_FEE = Decimal("20.00")
INPUT_TIERS = (
    (Decimal(100_000), Decimal("0.000003")),
    (Decimal(1_000_000), Decimal("0.0000025")),
    (None, Decimal("0.000002")),
)
OUTPUT_VOLUME_LIMIT = Decimal(50_000)
OUTPUT_UNIT_PRICES = (Decimal("0.000015"), Decimal("0.000012"))
REQUESTS_INCLUDED = 500
REQUESTS_BLOCK = 100
REQUESTS_BLOCK_PRICE = Decimal("0.50")
DISCOUNT_RATE = Decimal("0.10")
TAX_RATE = Decimal("0.0825")
WALLET = Decimal("10.00")
HYBRID_CUSTOMERS = 3
INPUT_UNIT_COST = Decimal("0.0000011")
OUTPUT_UNIT_COST = Decimal("0.0000044")


@dataclass(frozen=True)
class TraceUsage:
    """What one customer used."""

    input_tokens: int
    output_tokens: int
    requests: int


def read_trace(path: Path, customers: int) -> list[TraceUsage]:
    """Row i belongs to customer i mod `customers`."""
    with path.open(newline="") as file:
        rows = [
            (int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(file)
        ]
    return [
        TraceUsage(
            input_tokens=sum(row[0] for row in rows[number::customers]),
            output_tokens=sum(row[1] for row in rows[number::customers]),
            requests=len(rows[number::customers]),
        )
        for number in range(customers)
    ]


def bill_of(number: int, usage: TraceUsage) -> dict[str, object]:
    """The bill of customer `trace-{number}`, in the shape of the expected bill."""
    lines = {
        "platform_fee": PLATFORM_FEE,
        "input_tokens": _cents(_graduated(Decimal(usage.input_tokens))),
        "output_tokens": _cents(_volume(Decimal(usage.output_tokens))),
        "requests": _cents(_blocks(usage.requests)),
    }
    subtotal = sum(lines.values(), Decimal(0))
    discount = _cents(subtotal * DISCOUNT_RATE)
    tax = _cents((subtotal - discount) * TAX_RATE)
    total = subtotal - discount + tax
    from_wallet = min(WALLET, total) if number < HYBRID_CUSTOMERS else Decimal(0)
    cogs = usage.input_tokens * INPUT_UNIT_COST + usage.output_tokens * OUTPUT_UNIT_COST
    return {
        "customer": f"trace-{number}",
        "usage": {
            "input_tokens": str(usage.input_tokens),
            "output_tokens": str(usage.output_tokens),
            "requests": usage.requests,
        },
        "lines": {code: str(_cents(amount)) for code, amount in lines.items()},
        "subtotal": str(_cents(subtotal)),
        "discount": str(discount),
        "tax": str(tax),
        "total": str(_cents(total)),
        "fromWallet": str(_cents(from_wallet)),
        "amountDue": str(_cents(total - from_wallet)),
        "cogs": _shortest(cogs),
    }


def bills_of(usages: Iterable[TraceUsage]) -> Mapping[str, object]:
    """All bills, with the number of events behind them."""
    used = list(usages)
    return {
        "customers": [bill_of(number, usage) for number, usage in enumerate(used)],
        "events": sum(usage.requests for usage in used),
    }


def _graduated(quantity: Decimal) -> Decimal:
    total, lower = Decimal(0), Decimal(0)
    for upper, unit_price in INPUT_TIERS:
        within = quantity if upper is None else min(quantity, upper)
        total += max(within - lower, Decimal(0)) * unit_price
        lower = lower if upper is None else upper
    return total


def _volume(quantity: Decimal) -> Decimal:
    return quantity * OUTPUT_UNIT_PRICES[quantity > OUTPUT_VOLUME_LIMIT]


def _blocks(requests: int) -> Decimal:
    overage = Decimal(max(requests - REQUESTS_INCLUDED, 0))
    full = (overage / REQUESTS_BLOCK).to_integral_value(ROUND_FLOOR)
    return full * REQUESTS_BLOCK_PRICE


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, ROUND_HALF_UP)


def _shortest(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


if __name__ == "__main__":
    bills = bills_of(read_trace(Path(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write(json.dumps(bills, indent=1) + "\n")
