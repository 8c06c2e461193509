"""One transaction handed out scope by scope: what several resolvers change is kept together, or
not at all."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aforo.sdk.ids import TenantId
from aforo.storage.actors import Actor
from aforo.storage.audit import write_trail
from aforo.storage.faults import engine_faults
from aforo.storage.redis import TenantLive
from aforo.storage.scope import Runtime, Scope
from aforo.storage.trail import follow, lose


class Savepoints:
    """The scopes of one transaction, each a savepoint, one at a time.

    Whoever asks for a scope while another is open waits for its end. So nobody may wait for a
    second scope while he holds one; resolvers do not, because loaders open scopes of their own.
    """

    def __init__(self, runtime: Runtime, whole: Scope) -> None:
        self.whole = whole
        """The transaction itself, for what is no part of any resolver."""
        self._runtime = runtime
        self._turn = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None
        self._kept: list[TenantLive] = []

    @asynccontextmanager
    async def scope(self, by: Actor) -> AsyncIterator[Scope]:
        """Open a savepoint; what happens in it is undone if it raises, and the rest stays."""
        task = asyncio.current_task()
        assert self._holder is not task, "a scope was opened inside of another one"
        async with self._turn:
            self._holder = task
            live = self._runtime.live.of(self.whole.tenant_id)
            try:
                with engine_faults():
                    async with self.whole.db.begin_nested():
                        follow(self.whole.db.sync_session, by)
                        yield dataclasses.replace(self.whole, live=live)
                        await write_trail(self.whole.db)
            finally:
                self._holder = None
                lose(self.whole.db.sync_session)
                # The next scope starts as empty as a new session: others may have committed.
                self.whole.db.expunge_all()
            self._kept.append(live)

    async def announce(self) -> None:
        """Send the live messages of the savepoints that were kept, after the commit."""
        for live in self._kept:
            await live.flush()


@asynccontextmanager
async def one_transaction(runtime: Runtime, tenant_id: TenantId) -> AsyncIterator[Savepoints]:
    """A transaction of the tenant as savepoints; it commits unless the block raises.

    Raises: `Unavailable`.
    """
    async with runtime.scope(tenant_id) as whole:
        savepoints = Savepoints(runtime, whole)
        yield savepoints
    await savepoints.announce()
