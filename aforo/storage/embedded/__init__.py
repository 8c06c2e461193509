"""The embedded engines: PostgreSQL, Redis and ClickHouse as children of this process."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from aforo.storage.embedded.clickhouse import ClickHouse
    from aforo.storage.embedded.postgres import Postgres
    from aforo.storage.embedded.redis import Redis

__all__ = ["EmbeddedEngines"]


class _Engine(Protocol):
    def stop(self) -> None: ...


EngineT = TypeVar("EngineT", bound=_Engine)


@dataclass(frozen=True, slots=True)
class EmbeddedEngines:
    """The three running engines of one folder; a context manager that stops them."""

    folder: Path
    postgres: "Postgres" = field(repr=False)
    redis: "Redis" = field(repr=False)
    clickhouse: "ClickHouse" = field(repr=False)
    _lock: IO[str] = field(repr=False)

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        tcp: bool = False,
        postgres_port: int = 0,
        redis_port: int = 0,
        clickhouse_port: int = 0,
        fsync: bool = True,
        on_progress: Callable[[str], None] | None = None,
        on_fault: Callable[[str], None] | None = None,
    ) -> Self:
        """Start all three at once on a folder, made at the first start, and wait for them.

        PostgreSQL and Redis listen on private sockets, with `tcp` on loopback ports and with
        passwords; ClickHouse always listens on loopback. Port 0 takes a free one. `on_progress`
        is told each engine that is ready; `on_fault` is told, from another thread, of an engine
        that died too often to be started again. Blocks; call it before an event loop runs.
        Raises: `EngineError`, one sentence, and then nothing is left running.
        """
        # Here and not above, because ClickHouse's own process imports this package too.
        from aforo.storage.embedded import clickhouse, places, postgres, redis  # noqa: PLC0415

        root = places.make_private(folder.absolute())
        for name in ("run", "log", "secrets"):
            places.make_private(root / name)
        with ExitStack() as cleanup:

            def begin(name: str, start: Callable[[], EngineT]) -> EngineT:
                engine = start()
                cleanup.callback(engine.stop)
                if on_progress is not None:
                    on_progress(f"{name} is ready")
                return engine

            lock = cleanup.enter_context(places.lock(root))
            ports = (postgres_port, redis_port) if tcp else (None, None)
            with ThreadPoolExecutor(3) as pool:
                first = pool.submit(
                    begin,
                    "PostgreSQL",
                    lambda: postgres.start(root, port=ports[0], fsync=fsync, on_fault=on_fault),
                )
                second = pool.submit(
                    begin, "Redis", lambda: redis.start(root, port=ports[1], on_fault=on_fault)
                )
                third = pool.submit(
                    begin,
                    "ClickHouse",
                    lambda: clickhouse.start(root, port=clickhouse_port, on_fault=on_fault),
                )
            engines = cls(root, first.result(), second.result(), third.result(), lock)
            cleanup.pop_all()
        return engines

    @property
    def database_url(self) -> str:
        """PostgreSQL as the application's login, for SQLAlchemy over asyncpg."""
        return self.postgres.url

    @property
    def owner_database_url(self) -> str:
        """PostgreSQL as the owner of the database, who migrates it."""
        return self.postgres.owner_url

    @property
    def redis_url(self) -> str:
        """Redis, for redis-py."""
        return self.redis.url

    @property
    def clickhouse_url(self) -> str:
        """ClickHouse over HTTP: `http://user:password@127.0.0.1:port/aforo`."""
        return self.clickhouse.url

    @property
    def faults(self) -> tuple[str, ...]:
        """A sentence for each engine that is down for good."""
        engines = (self.postgres, self.redis, self.clickhouse)
        return tuple(engine.supervisor.fault for engine in engines if engine.supervisor.fault)

    def stop(self) -> None:
        """Stop all three in order and give the folder back; doing it twice does no harm."""
        with ExitStack() as cleanup:
            cleanup.callback(self._lock.close)
            with ThreadPoolExecutor(3) as pool:
                for engine in (self.clickhouse, self.redis, self.postgres):
                    pool.submit(engine.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
