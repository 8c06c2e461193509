"""Where the metrics can be read and the traces go, for as long as a process lives."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from prometheus_client import start_http_server

from aforo.sdk.errors import AforoError
from aforo.settings import Settings
from aforo.telemetry import tracing


class MetricsPortError(AforoError):
    """The metrics cannot be served where they should be."""

    code = "LISTEN"


@asynccontextmanager
async def exported(settings: Settings, *, service: str) -> AsyncIterator[None]:
    """Serve metrics on AFORO_METRICS_PORT and send traces to AFORO_OTLP_ENDPOINT, where given.

    Goes around the opening of the runtime, whose engines are traced only if tracing is on.
    Raises: `MetricsPortError`.
    """
    if settings.otlp_endpoint is not None:
        tracing.start(settings.otlp_endpoint, service=service)
    try:
        async with _metrics(settings):
            yield
    finally:
        await to_thread.run_sync(tracing.stop)


@asynccontextmanager
async def _metrics(settings: Settings) -> AsyncIterator[None]:
    host, port = settings.metrics_host, settings.metrics_port
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise MetricsPortError(
            f"port {port} of {host} cannot be used for metrics: {error.strerror}; "
            "choose another AFORO_METRICS_PORT, one for each process"
        ) from error
    try:
        yield
    finally:
        await to_thread.run_sync(server.shutdown)
        server.server_close()
        await to_thread.run_sync(thread.join)
