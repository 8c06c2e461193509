"""Look-ups of host names: in a few threads, of which no tenant holds more than its share."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from aforo.sdk.ids import TenantId

AT_ONCE = 32
AT_ONCE_OF_TENANT = 4


def ask_system(host: str, port: int) -> list[str]:
    """The addresses of a host by the system's resolver, which blocks. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(slots=True)
class _Share:
    """The places of one tenant, and how many look-ups hold one or wait for one."""

    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE_OF_TENANT))
    users: int = 0


class Lookups:
    """Asks for addresses, for at most 4 hosts of a tenant and 32 of all tenants at a time.

    Name servers belong to whoever owns the name, and may be as slow as they like. A look-up that
    nobody waits for any more cannot be broken off: it holds its place until its thread is done,
    else a tenant would have as many threads as it begins and gives up calls.
    """

    def __init__(self, ask: Callable[[str, int], list[str]] = ask_system) -> None:
        self._ask = ask
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="look-up")
        self._shares: dict[TenantId, _Share] = {}

    async def __call__(self, tenant_id: TenantId, host: str, port: int) -> list[str]:
        """The addresses of a host that a tenant chose, as text.

        Whoever waits for a thread waits behind at most 4 look-ups of each other tenant.
        Raises: OSError and UnicodeError where there are none.
        """
        share = self._shares.setdefault(tenant_id, _Share())
        share.users += 1
        try:
            await share.places.acquire()
        except asyncio.CancelledError:
            self._forget(tenant_id, share)
            raise
        loop = asyncio.get_running_loop()

        def done(_: Future[list[str]]) -> None:
            with suppress(RuntimeError):  # The loop is closed: nobody waits for a place.
                loop.call_soon_threadsafe(self._leave, tenant_id, share)

        found = self._threads.submit(self._ask, host, port)
        found.add_done_callback(done)
        return await asyncio.wrap_future(found)

    def _leave(self, tenant_id: TenantId, share: _Share) -> None:
        share.places.release()
        self._forget(tenant_id, share)

    def _forget(self, tenant_id: TenantId, share: _Share) -> None:
        share.users -= 1
        if not share.users:
            del self._shares[tenant_id]
