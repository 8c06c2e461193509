"""How a process of Aforo lives: its event loop, the signals that end it, and its log."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable, Collection, Coroutine, Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog
import uvicorn

from aforo.telemetry import tracing
from aforo.telemetry.redact import redacted

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_FILES_KEPT = 1


def run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run to the end, or until a signal cancels it; the cancelled work cleans up in peace.

    Further signals change nothing: what cleans up is bounded by itself.
    """
    new_loop = uvicorn.Config(app="", loop="uvloop", log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_until_signalled(main))


def settle() -> None:
    """Once everything is loaded: what is there by now stays, so the collector of garbage need not
    look through it again and again while requests wait."""
    gc.collect()
    gc.freeze()


def stop_signals() -> Collection[signal.Signals]:
    """What ends this process: not a hang-up that whoever started it chose to ignore."""
    is_kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return STOP_SIGNALS[:-1] if is_kept else STOP_SIGNALS


def log_to_stderr(**of_each: object) -> None:
    """One line per entry: for people on a terminal, else as JSON; with what is to be `of_each`."""
    renderer: structlog.typing.Processor = (
        # Its default shows the locals of every frame, and with them secrets.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    _configure(logging.StreamHandler(sys.stderr), renderer, of_each)


def log_to_file(path: Path) -> None:
    """JSON lines in a file that only its owner reads, and that does not grow without end."""
    path.touch(mode=0o600)
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES_KEPT)
    _configure(handler, structlog.processors.JSONRenderer(), {})


async def _until_signalled(main: Callable[[], Coroutine[None, None, None]]) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(main())
    signalled = False

    def stop() -> None:
        nonlocal signalled
        if not signalled:
            signalled = True
            work.cancel()

    handled = stop_signals()
    for each in handled:
        loop.add_signal_handler(each, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not signalled:
            raise
    finally:
        for each in handled:
            loop.remove_signal_handler(each)


def _with_trace(
    _logger: object, _method: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if (trace := tracing.trace_id()) is not None:
        entry["trace_id"] = trace
    return entry


def _configure(
    handler: logging.Handler,
    renderer: structlog.typing.Processor,
    of_each: Mapping[str, object],
) -> None:
    def with_what_is_of_each(
        _logger: object, _method: str, entry: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        entry.update(of_each)
        return entry

    shared: list[structlog.typing.Processor] = [
        with_what_is_of_each,
        structlog.contextvars.merge_contextvars,
        _with_trace,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redacted,  # After it: a traceback quotes what failed.
    ]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("aforo").setLevel(logging.INFO)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
