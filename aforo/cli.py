"""The command `aforo`: each subcommand says what it does, and what went wrong in one line."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aforo.cli_audit import audit_app
from aforo.cli_import import import_file
from aforo.cli_log import rebuild, verify
from aforo.cli_people import reset_password
from aforo.cli_servers import PluginFiles, serve, worker
from aforo.sdk.errors import AforoError, Invalid
from aforo.settings import Settings, SettingsError, from_environment

if TYPE_CHECKING:
    from aforo.doctor import Finding

app = typer.Typer(
    help="Meters usage, prices it, bills it, watches the margin and acts on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

plugins_app = typer.Typer(help="List, write and check plugins.", add_completion=False)
app.add_typer(audit_app, name="audit")
app.command()(reset_password)
app.command()(verify)
app.command()(rebuild)
app.command("import")(import_file)
app.add_typer(plugins_app, name="plugins", invoke_without_command=True)
schema_app = typer.Typer()
app.add_typer(schema_app, name="schema")

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Folder = Annotated[
    Path, typer.Option(envvar="AFORO_DATA_DIR", help="Where the demo keeps its data.")
]
Releases = Annotated[Path, typer.Option(help="The schemas of the releases, a file each.")]
DEFAULT_RELEASES = Path("docs/schema/releases")
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
    plugin: PluginFiles = None,
) -> None:
    """Start everything in one process, with a month of believable usage, on embedded engines."""
    from aforo.demo.run import run_attached, run_demo

    if attach and reset:
        raise SettingsError("--reset is for embedded engines: nothing is deleted on servers")
    if attach:
        run_attached(folder, from_environment(), url=url, plugin_files=plugin or ())
    else:
        run_demo(folder, port=port, reset=reset, plugin_files=plugin or ())


app.command()(serve)
app.command()(worker)


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
    owner: Annotated[
        str | None, typer.Option(help="E-mail address of its first owner, who is invited.")
    ] = None,
) -> None:
    """Create a tenant and print its first API key, and its owner's invitation, this once."""
    from aforo import process

    settings = from_environment()
    process.run(lambda: _create_tenant(settings, name, test=test, owner=owner))


@schema_app.callback(invoke_without_command=True)
def schema(
    context: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version of the schema instead.")
    ] = False,
) -> None:
    """Print the GraphQL schema, or see what changed in it."""
    from aforo.api.schema import schema_text
    from aforo.api.sdl import schema_version

    if context.invoked_subcommand is None:
        sys.stdout.write(f"{schema_version()}\n" if version else schema_text())


@schema_app.command("diff")
def schema_diff(
    old: Annotated[Path, typer.Argument(help="The schema of before.")],
    new: Annotated[
        Path | None, typer.Argument(help="The schema of after; that of this code if not given.")
    ] = None,
) -> None:
    """List what changed between two schemas; exit code 1 where it may break a client."""
    from aforo.api.schema import schema_text
    from aforo.api.schema_changes import Severity, changes_between, report

    changes = changes_between(_text_of(old), _text_of(new) if new else schema_text())
    print("\n".join(report(changes)) or "Nothing changed.")
    if any(each.severity is Severity.BREAKING for each in changes):
        sys.exit(1)


@schema_app.command("changelog")
def schema_changelog(*, releases: Releases = DEFAULT_RELEASES) -> None:
    """Print the changes from release to release, and up to this code."""
    from aforo.api.schema import schema_text
    from aforo.api.schema_changes import changelog_page

    sys.stdout.write(changelog_page(_released(releases), schema_text()))


@schema_app.command("check")
def schema_check(
    *,
    releases: Releases = DEFAULT_RELEASES,
    changelog: Annotated[Path, typer.Option(help="Where breaking changes are declared.")] = Path(
        "CHANGELOG.md"
    ),
) -> None:
    """Refuse breaking changes since the last release that the changelog does not declare."""
    from aforo.api.schema import schema_text
    from aforo.api.schema_changes import check_declared

    check_declared(_released(releases), schema_text(), _text_of(changelog))


@schema_app.command("events")
def schema_events(
    *,
    table: Annotated[
        bool, typer.Option("--table", help="Print the table of the manual instead.")
    ] = False,
) -> None:
    """Print the JSON schema of the bodies of webhooks."""
    from aforo.storage.event_docs import event_schema, event_table

    sys.stdout.write(event_table() if table else event_schema())


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from error


def _released(folder: Path) -> dict[str, str]:
    return {path.stem: _text_of(path) for path in folder.glob("*.graphql")}


@plugins_app.callback()
def plugins(context: typer.Context, *, as_json: AsJson = False, plugin: PluginFiles = None) -> None:
    """List what is loaded, from which distribution, with the settings of each component."""
    if context.invoked_subcommand is not None:
        return
    from aforo import terminal
    from aforo.plugins import load_registry

    registry = load_registry(files=plugin or ())
    if as_json:
        print(json.dumps(terminal.described(registry), indent=2))
    else:
        print("\n".join(terminal.plugin_lines(registry)))


@plugins_app.command("new")
def plugins_new(
    name: Annotated[str, typer.Argument(help="Name of the distribution, such as acme-pricing.")],
    *,
    kind: Annotated[str, typer.Option(help="pricing, tax, gateway, detector, notifier or ai.")],
    folder: Annotated[Path, typer.Option(help="Where its folder is made.")] = Path(),
) -> None:
    """Write a plugin to begin with: it installs, its tests pass, and it works at once."""
    from aforo.plugins.new import write_plugin

    written = write_plugin(kind, name, folder=folder)
    print(f"{written.folder} holds {written.key}. Next: pip install -e {written.folder}")


@plugins_app.command("check")
def plugins_check(*, as_json: AsJson = False, plugin: PluginFiles = None) -> None:
    """Hold every loaded component to the contract of its kind; exit code 1 if one breaks it."""
    from aforo.plugins import check, load_registry

    verdicts = check.check_all(load_registry(files=plugin or ()))
    if as_json:
        print(json.dumps([check.described(each) for each in verdicts], indent=2))
    else:
        print("\n".join(check.verdict_lines(verdicts)))
    if not all(each.ok for each in verdicts):
        sys.exit(1)


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


async def _migrate(settings: Settings) -> None:
    from aforo.storage.readiness import bring_up_to_date

    applied = await bring_up_to_date(settings)
    print("\n".join(f"applied {name}" for name in applied) or "nothing was missing")


async def _create_tenant(settings: Settings, name: str, *, test: bool, owner: str | None) -> None:
    from aforo.api.parts.relay import global_id
    from aforo.storage.readiness import ready_runtime
    from aforo.tenants.commands import create_tenant
    from aforo.tenants.models import Environment

    environment = Environment.TEST if test else Environment.LIVE
    async with ready_runtime(settings) as runtime:
        created = await create_tenant(
            runtime, name=name, environment=environment, owner_email=owner
        )
    shown = {
        "tenant": global_id("Tenant", created.tenant.tenant_id),
        "apiKey": created.key.token,
    }
    if created.invitation is not None:
        shown["invitation"] = created.invitation.token
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
