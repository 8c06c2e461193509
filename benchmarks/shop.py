"""What is measured on: one offering, a hundred customers, and events of last month."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from benchmarks.client import Client
from benchmarks.trace_bill import wait_until_billed
from benchmarks.trace_setup import Trace, account_of, offering_of

CUSTOMERS = 100


def open_shop(client: Client, month_end: datetime) -> Callable[[Client], None]:
    """Set the shop up; what is given bills its month."""
    month_start = (month_end - timedelta(days=1)).replace(day=1)
    trace = Trace(tag="bench", month_start=month_start, month_end=month_end)
    offering = offering_of(client, trace)
    for number in range(CUSTOMERS):
        account_of(client, trace, offering, number, is_hybrid=False)
    return lambda same: wait_until_billed(same, month_end)


def batches(events: int, size: int, month_end: datetime, *, run: str) -> list[list[dict[str, Any]]]:
    """Batches of events, the same for the same run."""
    dice = random.Random(run)
    some = [
        {
            "idempotencyKey": f"{run}-{number}",
            "type": "llm.request",
            "customer": f"trace-{dice.randrange(CUSTOMERS)}",
            "occurredAt": (month_end - timedelta(seconds=dice.randrange(1, 86_400))).isoformat(),
            "properties": {
                "input_tokens": dice.randrange(1, 4_000),
                "output_tokens": dice.randrange(1, 900),
                "trace": "bench",
            },
        }
        for number in range(events)
    ]
    return [some[start : start + size] for start in range(0, events, size)]
