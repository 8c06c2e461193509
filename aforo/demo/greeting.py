"""What the demo says when it is ready: where it is, its key at the first start, what to try."""

import json
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from aforo.demo.cast import CHURNING, NEAR_QUOTA, UNPROFITABLE
from aforo.demo.places import Access

QUERY = (
    "{ invoices(first: 3) { edges { node { number customer { name } total currency } } } "
    "signals(first: 3) { edges { node { customer { name } explanation } } } }"
)
# Between its quotes the shell puts the time in, so that each try is another event.
EVENT = (
    """'[{"idempotencyKey": "try-'$(date +%s)'", "type": "llm.request", """
    """"customer": "northwind", """
    """"properties": {"input_tokens": 1200, "output_tokens": "340", "user": "user-1"}}]'"""
)
_HEADERS = '-H "Authorization: Bearer $KEY" -H "Content-Type: application/json"'


def greeting(access: Access, key_file: Path, *, is_first: bool, seconds: float) -> Iterator[str]:
    """The lines, in order. The key is among them at the first start alone."""
    body = quote(json.dumps({"query": QUERY}))
    yield ""
    yield f"Aforo is ready after {seconds:.0f} s."
    yield ""
    yield f"  GraphQL   {access.url}/graphql   (a page in a browser, the API to everyone else)"
    yield f"  Events    {access.url}/v1/events"
    yield f"  Health    {access.url}/healthz"
    if is_first:
        yield f"  API key   {access.apiKey}"
        yield f"            shown this once; it is kept in {key_file}"
    else:
        yield f"  API key   in {key_file}"
    yield ""
    yield f"Look at {UNPROFITABLE} (costs more than it pays), {CHURNING} (uses less and less) and"
    yield f"{NEAR_QUOTA} (close to its quota). Three things to try:"
    yield ""
    yield f"  {_read_key(key_file)}"
    yield ""
    yield "  1. Send an event:"
    yield f"     curl -s {access.url}/v1/events {_HEADERS} -d {EVENT}"
    yield "  2. Ask for invoices and signals:"
    yield f"     curl -s {access.url}/graphql {_HEADERS} -d {body}"
    yield f"  3. Open {access.url}/graphql in a browser and give it the key."
    yield ""
    yield "Live traffic runs. Ctrl-C stops everything; the data stays for the next start."


def _read_key(key_file: Path) -> str:
    script = r's/.*"apiKey": "\(.*\)".*/\1/p'
    return f"KEY=$(sed -n '{script}' {quote(str(key_file))})"
