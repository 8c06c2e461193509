"""From where a request comes: known to whatever is done for it, for the audit log."""

from functools import lru_cache
from ipaddress import ip_address

from starlette.requests import HTTPConnection

from aforo.api.auth.callers import client_of
from aforo.settings import Settings
from aforo.storage.actors import Origin


def origin_of(connection: HTTPConnection, settings: Settings, request_id: str) -> Origin:
    """Where a connection comes from; behind proxies as the outermost of our own saw it."""
    client = client_of(connection, settings)
    return Origin(request_id, _checked(client.address), client.user_agent or None)


@lru_cache(maxsize=1_000)  # Of a busy client there are thousands of requests.
def _checked(address: str) -> str | None:
    try:
        return str(ip_address(address))
    except ValueError:  # A socket of the file system, or what a proxy made up.
        return None
