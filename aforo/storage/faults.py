"""An engine that is down, told apart from a bug: it becomes `Unavailable`, to be tried again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
import sqlalchemy as sa
from clickhouse_connect.driver.exceptions import OperationalError

from aforo.sdk.errors import Unavailable

RETRY_AFTER_SECONDS = 2

# Connection refused, reset, timed out; the server is starting, stopping, full, or cut us off.
_GONE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
)


@contextmanager
def engine_faults() -> Iterator[None]:
    """Raise `Unavailable` for an engine that cannot be reached; everything else as it is."""
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise _unavailable("PostgreSQL has no free connection") from error
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated or isinstance(_cause(error), _GONE):
            raise _unavailable("PostgreSQL cannot be reached") from error
        raise
    except OperationalError as error:
        raise _unavailable("ClickHouse cannot be reached") from error
    except (ConnectionError, TimeoutError, *_GONE[2:]) as error:
        raise _unavailable("an engine cannot be reached") from error


@asynccontextmanager
async def answered_within(seconds: float) -> AsyncIterator[None]:
    """Raise `Unavailable` where the engines take longer: a frozen one refuses nothing, and whoever
    waits for it would wait as long. What was asked for may have been done, so it is to be safe to
    ask again."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unavailable(
            f"an engine gave no answer within {seconds:g} s; try again",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        ) from error


def _cause(error: sa.exc.DBAPIError) -> BaseException | None:
    # SQLAlchemy wraps asyncpg's error in its dialect's own, which keeps it as the cause.
    return error.orig.__cause__ if error.orig is not None else None


def _unavailable(message: str) -> Unavailable:
    return Unavailable(
        f"{message}; nothing was changed, try again", retry_after_seconds=RETRY_AFTER_SECONDS
    )
