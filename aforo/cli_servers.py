"""The commands `aforo serve` and `aforo worker`: the processes that run on servers."""

import dataclasses
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aforo.settings import PORT_MAX, Settings, SettingsError, from_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aforo.forks import Fork
    from aforo.serve import TlsFiles

PROCESSES_MAX = 64

PluginFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", help="Load a plugin of a single file, for trying things out; may be repeated."
    ),
]


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="AFORO_HOST, or 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="AFORO_PORT, or 8080.")] = None,
    processes: Annotated[
        int,
        typer.Option(min=1, max=PROCESSES_MAX, help="How many share the port: one for each core."),
    ] = 1,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file of the chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy in front of it does the TLS.")
    ] = False,
    plugin: PluginFiles = None,
) -> None:
    """Run the API on the servers that AFORO_*_URL name."""
    from aforo import process
    from aforo.serve import TlsFiles, bind, check_exposure

    if (tls_certificate is None) != (tls_key is None):
        raise SettingsError("--tls-certificate and --tls-key go together: give both or none")
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = dataclasses.replace(from_environment(), **given)  # type: ignore[arg-type]
    _check_metrics_ports(settings, processes)
    tls = TlsFiles(tls_certificate, tls_key) if tls_certificate and tls_key else None
    check_exposure(settings.host, tls=tls, behind_proxy=behind_proxy)
    files = _tried_out(settings, plugin)
    process.log_to_stderr()
    listener = bind(settings.host, settings.port)
    with listener:
        if processes == 1:
            process.run(lambda: _serve(settings, listener, tls, files))
        else:
            _serve_as_several(processes, settings, listener, tls, files)


def worker(*, plugin: PluginFiles = None) -> None:
    """Run the background jobs, and seal events into the log, on the same servers."""
    from aforo import process

    settings = from_environment()
    files = _tried_out(settings, plugin)
    process.log_to_stderr()
    process.run(lambda: work(settings, files))


async def work(settings: Settings, plugin_files: "Sequence[Path]") -> None:
    """Be a worker until cancelled."""
    import structlog

    from aforo import worker as jobs
    from aforo.storage.readiness import ready_runtime
    from aforo.telemetry.export import exported

    async with (
        exported(settings, service="aforo-worker"),
        ready_runtime(settings, plugin_files=plugin_files) as runtime,
    ):
        structlog.get_logger().info("the worker works")
        await jobs.run(runtime)


def _check_metrics_ports(settings: Settings, processes: int) -> None:
    if settings.metrics_port is not None and settings.metrics_port + processes - 1 > PORT_MAX:
        raise SettingsError(
            f"--processes {processes} needs as many ports from AFORO_METRICS_PORT on, and "
            f"{settings.metrics_port} is too high for that"
        )


def _tried_out(settings: Settings, files: list[Path] | None) -> "Sequence[Path]":
    if files and settings.production:
        raise SettingsError(
            "--plugin is for trying things out: with AFORO_PRODUCTION install the plugin as a "
            "distribution (`aforo plugins new` writes one)"
        )
    return files or ()


def _serve_as_several(
    processes: int,
    settings: Settings,
    listener: socket.socket,
    tls: "TlsFiles | None",
    plugin_files: "Sequence[Path]",
) -> None:
    from aforo import process
    from aforo.forks import run_several

    def serve_as_one(fork: "Fork") -> None:
        ours = settings
        if settings.metrics_port is not None:
            ours = dataclasses.replace(settings, metrics_port=settings.metrics_port + fork.number)
        process.log_to_stderr(process=fork.number)
        process.run(lambda: _serve(ours, listener, tls, plugin_files, fork))

    # Nobody would answer who connects to a socket that we alone hold.
    if code := run_several(serve_as_one, count=processes, on_stop=listener.close):
        sys.exit(code)


async def _serve(
    settings: Settings,
    listener: socket.socket,
    tls: "TlsFiles | None",
    plugin_files: "Sequence[Path]",
    fork: "Fork | None" = None,
) -> None:
    import structlog

    from aforo import process
    from aforo import serve as http
    from aforo.storage.readiness import ready_runtime
    from aforo.telemetry.export import exported

    def ready() -> None:
        process.settle()
        host, port = listener.getsockname()[:2]
        structlog.get_logger().info("the API listens", host=host, port=port, pid=os.getpid())
        if fork is not None:
            fork.ready()

    if fork is not None:
        fork.follow_parent()
    async with (
        exported(settings, service="aforo-serve"),
        ready_runtime(settings, plugin_files=plugin_files) as runtime,
    ):
        await http.serve(runtime, listener, tls=tls, on_ready=ready)
