"""The command `aforo`: each subcommand says what it does, and what went wrong in one line."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aforo.sdk.errors import AforoError
from aforo.settings import Settings, SettingsError, from_environment

if TYPE_CHECKING:
    from aforo.doctor import Finding
    from aforo.serve import TlsFiles

app = typer.Typer(
    help="Meters usage, prices it, bills it, watches the margin and acts on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Folder = Annotated[
    Path, typer.Option(envvar="AFORO_DATA_DIR", help="Where the demo keeps its data.")
]
DEFAULT_FOLDER = Path(".aforo")
ADDRESSES = ("AFORO_DATABASE_URL", "AFORO_REDIS_URL", "AFORO_CLICKHOUSE_URL")
INTERRUPTED = 130


def main() -> None:
    """Run the command; an expected fault is one line on stderr and exit code 1."""
    try:
        app()
    except AforoError as error:
        sys.exit(f"aforo: {error.message}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "aforo":
            raise
        sys.exit(
            f"aforo: the package {error.name} is not installed: run `rm -r .venv; make demo` in a "
            "checkout, elsewhere install Aforo anew"
        )
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


@app.command()
def demo(
    *,
    reset: Annotated[
        bool, typer.Option("--reset", help="Start over, without the data of before.")
    ] = False,
    port: Annotated[int, typer.Option(envvar="AFORO_PORT", min=0, max=65535)] = 8080,
    folder: Folder = DEFAULT_FOLDER,
    attach: Annotated[
        bool,
        typer.Option("--attach", help="Fill in and feed the servers that AFORO_*_URL name."),
    ] = False,
    url: Annotated[
        str, typer.Option(help="With --attach: the origin of their API.")
    ] = "http://127.0.0.1:8080",
) -> None:
    """Start everything in one process, with a month of believable usage, on embedded engines."""
    from aforo.demo.run import run_attached, run_demo

    if attach and reset:
        raise SettingsError("--reset is for embedded engines: nothing is deleted on servers")
    if attach:
        run_attached(folder, from_environment(), url=url)
    else:
        run_demo(folder, port=port, reset=reset)


@app.command()
def serve(
    *,
    host: Annotated[str | None, typer.Option(help="AFORO_HOST, or 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="AFORO_PORT, or 8080.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file of the chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy in front of it does the TLS.")
    ] = False,
) -> None:
    """Run the API on the servers that AFORO_*_URL name."""
    from aforo import process
    from aforo.serve import TlsFiles, check_exposure

    if (tls_certificate is None) != (tls_key is None):
        raise SettingsError("--tls-certificate and --tls-key go together: give both or none")
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = dataclasses.replace(from_environment(), **given)  # type: ignore[arg-type]
    tls = TlsFiles(tls_certificate, tls_key) if tls_certificate and tls_key else None
    check_exposure(settings.host, tls=tls, behind_proxy=behind_proxy)
    process.log_to_stderr()
    process.run(lambda: _serve(settings, tls))


@app.command()
def worker() -> None:
    """Run the background jobs, and seal events into the log, on the same servers."""
    from aforo import process

    settings = from_environment()
    process.log_to_stderr()
    process.run(lambda: _work(settings))


@app.command()
def migrate() -> None:
    """Bring the databases up to date, as the owner in AFORO_OWNER_DATABASE_URL."""
    from aforo import process

    settings = from_environment()
    process.run(lambda: _migrate(settings))


@app.command()
def tenant(
    name: Annotated[str, typer.Argument(help="The company's name.")],
    *,
    test: Annotated[
        bool, typer.Option("--test", help="A sandbox, whose numbers are no real money.")
    ] = False,
) -> None:
    """Create a tenant and print its first API key, this once."""
    from aforo import process

    settings = from_environment()
    process.run(lambda: _create_tenant(settings, name, test=test))


@app.command()
def schema() -> None:
    """Print the GraphQL schema."""
    from aforo.api.schema import schema_text

    sys.stdout.write(schema_text())


@app.command()
def plugins(*, as_json: AsJson = False) -> None:
    """List what is loaded, from which distribution, with the settings of each component."""
    from aforo import terminal
    from aforo.plugins import load_registry

    registry = load_registry()
    if as_json:
        print(json.dumps(terminal.described(registry), indent=2))
    else:
        print("\n".join(terminal.plugin_lines(registry)))


@app.command()
def doctor(*, as_json: AsJson = False, folder: Folder = DEFAULT_FOLDER) -> None:
    """Look everything over and say what to do about each fault.

    Looks at the servers that AFORO_*_URL name, else at the demo that runs on the folder.
    """
    from aforo import process, terminal

    settings = _settings_of(folder)
    findings: list[Finding] = []
    process.run(lambda: _examine(settings, findings))
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in findings], indent=2))
    else:
        print("\n".join(terminal.finding_lines(findings)))
    if not all(each.ok for each in findings):
        sys.exit(1)


async def _serve(settings: Settings, tls: "TlsFiles | None") -> None:
    import structlog

    from aforo import serve as http
    from aforo.storage.readiness import ready_runtime
    from aforo.telemetry.export import exported

    def ready() -> None:
        host, port = listener.getsockname()[:2]
        structlog.get_logger().info("the API listens", host=host, port=port)

    listener = http.bind(settings.host, settings.port)
    with listener:
        async with exported(settings, service="aforo-serve"), ready_runtime(settings) as runtime:
            await http.serve(runtime, listener, tls=tls, on_ready=ready)


async def _work(settings: Settings) -> None:
    import structlog

    from aforo import worker as jobs
    from aforo.storage.readiness import ready_runtime
    from aforo.telemetry.export import exported

    async with exported(settings, service="aforo-worker"), ready_runtime(settings) as runtime:
        structlog.get_logger().info("the worker works")
        await jobs.run(runtime)


async def _migrate(settings: Settings) -> None:
    from aforo.storage.readiness import bring_up_to_date

    applied = await bring_up_to_date(settings)
    print("\n".join(f"applied {name}" for name in applied) or "nothing was missing")


async def _create_tenant(settings: Settings, name: str, *, test: bool) -> None:
    from aforo.api.relay import global_id
    from aforo.storage.readiness import ready_runtime
    from aforo.tenants.commands import create_tenant
    from aforo.tenants.models import Environment

    environment = Environment.TEST if test else Environment.LIVE
    async with ready_runtime(settings) as runtime:
        created = await create_tenant(runtime, name=name, environment=environment)
    shown = {
        "tenant": global_id("Tenant", created.tenant.tenant_id),
        "apiKey": created.key.token,
    }
    print(json.dumps(shown, indent=2))


def _settings_of(folder: Path) -> Settings:
    """Of the environment; else of the demo that runs on the folder."""
    from aforo.demo.places import environment_of

    if any(name in os.environ for name in ADDRESSES):
        return from_environment()
    return from_environment(environment_of(folder))


async def _examine(settings: Settings, findings: "list[Finding]") -> None:
    from aforo.doctor import examine

    findings += await examine(settings)
