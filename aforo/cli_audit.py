"""The command `aforo audit`: whether the audit log is as it was written."""

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from aforo.settings import Settings, from_environment

if TYPE_CHECKING:
    from aforo.storage.audit_check import Checked

audit_app = typer.Typer(help="The audit log.", no_args_is_help=True)


@audit_app.callback()
def audit() -> None:
    """Make sure that the audit log is as it was written."""


@audit_app.command()
def verify(
    *,
    tenant: Annotated[
        str | None, typer.Option(help="Only of this one, by its id as `aforo tenant` prints it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Recompute every chain, and name the first entry of each that is not as it was.

    Holds them to the heads that the workers have published in AFORO_DATA_DIR. Exit code 1 if
    anything is wrong.
    """
    from aforo import process, terminal

    settings = from_environment()
    found: list[Checked] = []
    process.run(lambda: _verify(settings, tenant, found))
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=2, default=str))
    else:
        print("\n".join(terminal.audit_lines(found)))
    if any(each.fault for each in found):
        sys.exit(1)


async def _verify(settings: Settings, tenant: str | None, found: "list[Checked]") -> None:
    import strawberry

    from aforo.api.parts.relay import local_id
    from aforo.storage.audit_check import check
    from aforo.storage.readiness import ready_runtime

    tenant_id = local_id("Tenant", strawberry.ID(tenant), field="tenant") if tenant else None
    async with ready_runtime(settings) as runtime:
        found += await check(runtime, tenant_id)
