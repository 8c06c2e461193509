"""Replays a trace of real LLM requests against a running Aforo, bills it, and prints the bill.

    python benchmarks/replay_trace.py FILE --customers N [--url URL --api-key KEY]

FILE is CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens. Row i becomes an event of
customer `trace-{i mod N}` in the last closed calendar month (UTC), shifted so that the last one
lies a minute before its end. A repeat sends the same keys again, and prints the same bill. Only
the bill goes to stdout.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.client import Client, RequestRefusedError
from benchmarks.trace_bill import bill_of, wait_until_billed
from benchmarks.trace_setup import HYBRID_CUSTOMERS, Trace, account_of, offering_of

BATCH_EVENTS = 1_000
DEMO_FILE = Path(".aforo") / "demo.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One request of the trace."""

    at: datetime
    input_tokens: int
    output_tokens: int


def main() -> int:
    """Run from the command line; 0 if the bill was printed."""
    arguments = _arguments()
    try:
        url, api_key = _address(arguments)
        with Client(url, api_key) as client:
            bill = replay(client, Path(arguments.file), arguments.customers)
    except (OSError, ValueError, RequestRefusedError) as error:
        print(f"replay_trace: {error}", file=sys.stderr)
        return 1
    print(json.dumps(bill, indent=1))
    return 0


def replay(client: Client, file: Path, customers: int) -> dict[str, Any]:
    """Set the offering up, send the trace, bill its month; the bill per customer."""
    content = file.read_bytes()
    rows = _read(content)
    month_start, month_end = _last_closed_month(datetime.now(UTC))
    trace = Trace(
        tag=f"{sha256(content).hexdigest()[:12]}-{customers}",
        month_start=month_start,
        month_end=month_end,
    )
    offering = offering_of(client, trace)
    _say(f"offering {offering.code} stands")
    accounts = [
        account_of(client, trace, offering, number, is_hybrid=number < HYBRID_CUSTOMERS)
        for number in range(customers)
    ]
    # A repeat in a later month bills the month that the first run chose.
    trace = trace.in_month_of(accounts[0].starts_at)
    _say(f"{customers} customers subscribe to it from {trace.month_start.date()} on")
    for batch in _batches(rows, trace, customers):
        _send(client, batch)
    _say(f"{len(rows)} events are acknowledged")
    wait_until_billed(client, trace.month_end)
    _say("the month is billed")
    return {
        "customers": [bill_of(client, account) for account in accounts],
        "events": len(rows),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", help="a CSV file of requests")
    parser.add_argument("--customers", type=int, required=True, help="customers to spread them on")
    parser.add_argument("--url", help="origin of the Aforo; by default the demo's")
    parser.add_argument("--api-key", help="a key that may do everything; by default the demo's")
    arguments = parser.parse_args()
    if arguments.customers < 1:
        parser.error("--customers must be at least 1")
    if (arguments.url is None) != (arguments.api_key is None):
        parser.error("--url and --api-key go together")
    return arguments


def _address(arguments: argparse.Namespace) -> tuple[str, str]:
    if arguments.url is not None:
        return arguments.url, arguments.api_key
    try:
        demo = json.loads(DEMO_FILE.read_text())
    except FileNotFoundError as error:
        raise ValueError(
            f"{DEMO_FILE} is missing: start `make demo`, or give --url and --api-key"
        ) from error
    return demo["url"], demo["apiKey"]


def _read(content: bytes) -> list[Row]:
    lines = csv.DictReader(content.decode().splitlines())
    rows = [
        Row(
            # Seven decimals in the file; a moment has six.
            at=datetime.fromisoformat(line["TIMESTAMP"][:26]).replace(tzinfo=UTC),
            input_tokens=int(line["ContextTokens"]),
            output_tokens=int(line["GeneratedTokens"]),
        )
        for line in lines
    ]
    if not rows:
        raise ValueError("the trace has no rows")
    return rows


def _last_closed_month(now: datetime) -> tuple[datetime, datetime]:
    end = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (end - timedelta(days=1)).replace(day=1), end


def _batches(rows: Sequence[Row], trace: Trace, customers: int) -> Iterator[list[dict[str, Any]]]:
    shift = trace.month_end - timedelta(minutes=1) - max(row.at for row in rows)
    for start in range(0, len(rows), BATCH_EVENTS):
        yield [
            {
                "idempotencyKey": f"trace-{trace.tag}-{number}",
                "type": "llm.request",
                "customer": f"trace-{number % customers}",
                "occurredAt": (row.at + shift).isoformat(),
                "properties": {
                    "input_tokens": row.input_tokens,
                    "output_tokens": row.output_tokens,
                    # Keeps several traces on one Aforo apart: each has meters of its own.
                    "trace": trace.tag,
                },
            }
            for number, row in enumerate(rows[start : start + BATCH_EVENTS], start)
        ]


def _send(client: Client, batch: list[dict[str, Any]]) -> None:
    answer = client.send(batch)
    if answer["accepted"] + answer["duplicates"] != len(batch):
        first = next(one for one in answer["verdicts"] if one["verdict"] != "DUPLICATE")
        raise RequestRefusedError(f"event {first['idempotencyKey']}: {first['message']}")


def _say(message: str) -> None:
    print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
