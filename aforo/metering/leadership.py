"""Who seals: of all processes one, for as long as it shows that it lives."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aforo.sdk.errors import Unavailable
from aforo.storage.endings import end_all
from aforo.storage.faults import RETRY_AFTER_SECONDS, engine_faults
from aforo.storage.scope import Runtime

LOCK = 4_613_002
LIFE_SECONDS = 3.0
IDLE_SECONDS_MAX = 15
"""After so long without a sign of life PostgreSQL lets another process lead."""


@dataclass(frozen=True, slots=True)
class Leader:
    """The right to seal, for as long as the connection that holds the lock lives."""

    connection: AsyncConnection
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def assert_held(self) -> None:
        """Raises: `Unavailable` where the connection, and the lock with it, is gone."""
        async with self._turn:
            if self.connection.invalidated:  # A new one in its place would not hold the lock.
                raise Unavailable(
                    "another process may seal by now", retry_after_seconds=RETRY_AFTER_SECONDS
                )
            await self.connection.execute(sa.text("SELECT 1"))
            await self.connection.commit()

    async def show_life(self) -> None:
        """Keep the connection from being idle for too long, until cancelled or it is gone."""
        while True:
            await asyncio.sleep(LIFE_SECONDS)
            try:
                with engine_faults():
                    await self.assert_held()
            except Unavailable:
                return  # Whoever leads finds it out the same way, before his next round.


@asynccontextmanager
async def leadership(runtime: Runtime) -> AsyncIterator[Leader | None]:
    """The right to seal, or None where another process has it.

    Raises: `Unavailable` where PostgreSQL cannot be reached, or has cut the connection.
    """
    with engine_faults():
        async with _lock(runtime) as leader:
            yield leader


@asynccontextmanager
async def _lock(runtime: Runtime) -> AsyncIterator[Leader | None]:
    async with runtime.cross_tenant.connect() as connection:
        try:
            if not await connection.scalar(sa.text(f"SELECT pg_try_advisory_lock({LOCK})")):
                await connection.commit()
                yield None
                return
            # A leader that is frozen, or behind a network that is gone, does not hang up.
            await connection.execute(
                sa.text(f"SET idle_session_timeout = {round(IDLE_SECONDS_MAX * 1000)}")
            )
            await connection.commit()
            leader = Leader(connection)
            life = asyncio.create_task(leader.show_life())
            try:
                yield leader
            finally:
                await end_all([life])
            if not connection.invalidated:
                await connection.execute(sa.text("RESET idle_session_timeout"))
                await connection.commit()
                await connection.execute(sa.text(f"SELECT pg_advisory_unlock({LOCK})"))
                await connection.commit()
        except BaseException:
            # It may hold the lock, also where we were stopped before we were told: in the pool it
            # would keep everybody from leading.
            await asyncio.shield(connection.invalidate())
            raise
