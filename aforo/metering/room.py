"""Whether there is room for more events. Where the log cannot keep up for too long, or the disk is
nearly full, senders are told to wait: what was accepted is never dropped."""

import asyncio
import shutil
import time

import structlog

from aforo.metering import backlog
from aforo.sdk.errors import Unavailable
from aforo.storage.scope import Runtime

EVENTS_MAX = 10_000_000
ROWS_MAX = 1_000_000
"""Of the inbox; a row has the events of one tenant and one round."""
LOOK_SECONDS = 2.0
RETRY_SECONDS = 30

log = structlog.get_logger()


class Room:
    """Looks every other second, and remembers in between."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._looked_at = -LOOK_SECONDS
        self._lacks: str | None = None

    async def demand(self) -> None:
        """Raises: `Unavailable` while there is no room."""
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = time.monotonic()
            before, self._lacks = self._lacks, await self._look()
            if self._lacks is not None and before is None:
                log.error("no events are taken", because=self._lacks)
        if self._lacks is not None:
            raise Unavailable(
                f"no events are taken, because {self._lacks}; nothing was changed, try again",
                code="NO_ROOM",
                retry_after_seconds=RETRY_SECONDS,
            )

    async def _look(self) -> str | None:
        """What there is too much of."""
        settings = self._runtime.settings
        percent = await asyncio.to_thread(_used_percent, settings.data_dir)
        if percent >= settings.disk_percent_max:
            return f"the disk of the archive is {percent} % full"
        async with self._runtime.system("count what waits in the inbox") as db:
            waiting = await backlog.events_in_inbox(db, rows_max=ROWS_MAX)
        if waiting.count >= EVENTS_MAX or not waiting.is_all:
            return f"{waiting.count} events wait to reach the log"
        return None


def _used_percent(folder: object) -> int:
    usage = shutil.disk_usage(str(folder))
    # Of what is not kept back for the system, as `df` counts it.
    return round(100 * usage.used / max(usage.used + usage.free, 1))
