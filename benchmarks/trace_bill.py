"""The replayed trace's bill: asks for it, waits for it, and reads it back through GraphQL."""

import time
from datetime import datetime
from decimal import Decimal
from typing import Any

from benchmarks.client import Client, RequestRefusedError
from benchmarks.trace_setup import Account, mutate

WAIT_SECONDS = 300
INVOICES = """
query Invoices($customerId: ID!) {
  invoices(customerId: $customerId, first: 100) {
    edges { node {
      state subtotal discount tax total fromWallet amountDue cogs
      subscription { id }
      lines { kind code quantity amount }
    } }
  }
}
"""


def wait_until_billed(client: Client, until: datetime) -> None:
    """Bill every period that had ended by then. Raises: `RequestRefusedError`."""
    run = mutate(
        client, "startBillRun", {"until": until.isoformat()}, "... on BillRun { id state failure }"
    )
    document = "query Run($id: ID!) { node(id: $id) { ... on BillRun { id state failure } } }"
    deadline = time.monotonic() + WAIT_SECONDS
    while run["state"] == "QUEUED" and time.monotonic() < deadline:
        time.sleep(0.2)
        run = client.graphql(document, id=run["id"])["node"]
    if run["state"] != "DONE":
        raise RequestRefusedError(f"the bill run is {run['state']}: {run['failure']}")


def bill_of(client: Client, account: Account) -> dict[str, Any]:
    """The account's bill: money with two decimals, quantities and COGS as shortest decimals."""
    edges = client.graphql(INVOICES, customerId=account.customer_id)["invoices"]["edges"]
    invoices = [
        edge["node"]
        for edge in edges
        if edge["node"]["subscription"]["id"] == account.subscription_id
    ]
    if len(invoices) != 1 or invoices[0]["state"] != "FINALIZED":
        raise RequestRefusedError(f"{account.external_id} has no finalised invoice for the month")
    invoice = invoices[0]
    usage = {line["code"]: line["quantity"] for line in invoice["lines"] if line["kind"] == "USAGE"}
    return {
        "customer": account.external_id,
        "usage": {
            "input_tokens": _shortest(usage["input_tokens"]),
            "output_tokens": _shortest(usage["output_tokens"]),
            "requests": int(Decimal(usage["requests"])),
        },
        "lines": {
            line["code"]: _money(line["amount"])
            for line in invoice["lines"]
            if line["kind"] != "DISCOUNT"
        },
        "subtotal": _money(invoice["subtotal"]),
        "discount": _money(invoice["discount"]),
        "tax": _money(invoice["tax"]),
        "total": _money(invoice["total"]),
        "fromWallet": _money(invoice["fromWallet"]),
        "amountDue": _money(invoice["amountDue"]),
        "cogs": _shortest(invoice["cogs"]),
    }


def _money(text: str) -> str:
    return f"{Decimal(text):.2f}"


def _shortest(text: str) -> str:
    plain = format(Decimal(text), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
