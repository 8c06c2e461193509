"""The client for programs on asyncio: the same, in threads, so that no call holds up the loop."""

import asyncio
import os
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Self

from aforo_client.client import FLUSH_SECONDS, Client
from aforo_client.options import Options
from aforo_client.sender import OnVerdict
from aforo_client.stats import Stats


class AsyncClient:
    """`Client` with methods to await; what they do, take and raise is the same."""

    def __init__(
        self,
        url: str,
        key: str,
        spool: str | os.PathLike[str],
        *,
        on_verdict: OnVerdict | None = None,
        options: Options | None = None,
    ) -> None:
        """Open the spool, at the start of the program: this waits for the disk."""
        self._client = Client(url, key, spool, on_verdict=on_verdict, options=options)

    def __repr__(self) -> str:
        """Without the key."""
        return f"Async{self._client!r}"

    async def track(
        self,
        type: str,  # noqa: A002 (Aforo's own word.)
        *,
        customer: str | None = None,
        api_key: str | None = None,
        properties: Mapping[str, object] | None = None,
        occurred_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Keep an event, to be sent soon; gives its idempotency key."""
        return await asyncio.to_thread(
            self._client.track,
            type,
            customer=customer,
            api_key=api_key,
            properties=properties,
            occurred_at=occurred_at,
            idempotency_key=idempotency_key,
        )

    async def flush(self, timeout: float = FLUSH_SECONDS) -> bool:  # noqa: ASYNC109 (As in Client.)
        """Send at once what waits; whether all of it has its verdict within so many seconds."""
        return await asyncio.to_thread(self._client.flush, timeout)

    def stats(self) -> Stats:
        """What this process has done so far."""
        return self._client.stats()

    async def close(self, timeout: float = FLUSH_SECONDS) -> bool:  # noqa: ASYNC109
        """Flush and stop; whether everything was sent."""
        return await asyncio.to_thread(self._client.close, timeout)

    async def __aenter__(self) -> Self:
        """Close it at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flush and stop."""
        await self.close()
