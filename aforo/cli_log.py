"""The commands `aforo verify` and `aforo rebuild`: the event log and its copies."""

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from aforo.settings import Settings, from_environment

if TYPE_CHECKING:
    from aforo.metering.rebuild import Rebuilt
    from aforo.metering.verify import Verified

OfTenant = Annotated[
    str | None, typer.Option(help="Only of this one, by its id as `aforo tenant` prints it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def verify(*, tenant: OfTenant = None, as_json: AsJson = False) -> None:
    """Recompute the event log: segments, archive files, ClickHouse and roll-ups.

    Names each difference; exit code 1 if there is one. The archive is that of AFORO_DATA_DIR.
    """
    from aforo import process

    settings = from_environment()
    found: list[Verified] = []
    process.run(lambda: _verify(settings, tenant, found))
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=2, default=str))
    else:
        for each in found:
            told = f"{each.segments} segments, {each.events} events, {each.spans} roll-ups"
            print(f"{'FAULT' if each.faults else 'ok   '}  {each.tenant_id}  {told}")
            for fault in each.faults:
                print(f"{'':5}  → {fault}")
        if not found:
            print("the log is empty")
    if any(each.faults for each in found):
        sys.exit(1)


def rebuild(*, tenant: OfTenant = None) -> None:
    """Bring ClickHouse to what the archive in AFORO_DATA_DIR says, events and roll-ups.

    What is right is left alone: cut off, it goes on where it was.
    """
    from aforo import process

    settings = from_environment()
    process.run(lambda: _rebuild(settings, tenant))


async def _verify(settings: Settings, tenant: str | None, found: "list[Verified]") -> None:
    from aforo.metering.verify import verify as verified
    from aforo.storage.readiness import ready_runtime

    async with ready_runtime(settings) as runtime:
        found += await verified(runtime, _id(tenant))


async def _rebuild(settings: Settings, tenant: str | None) -> None:
    from aforo.metering.rebuild import rebuild as rebuilt
    from aforo.storage.readiness import ready_runtime

    async with ready_runtime(settings) as runtime:
        done = await rebuilt(runtime, _id(tenant), on_progress=_tell)
    if not done:
        print("the log is empty")


def _tell(done: "Rebuilt") -> None:
    print(
        f"{done.tenant_id}  {done.segments} segments looked at, {done.written} written, "
        f"{done.spans} roll-ups made",
        flush=True,
    )


def _id(tenant: str | None) -> UUID | None:
    import strawberry

    from aforo.api.parts.relay import local_id

    return local_id("Tenant", strawberry.ID(tenant), field="tenant") if tenant else None
