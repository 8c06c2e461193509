"""Fills a tenant in: catalogue, customers, a month and more of usage, the bill of the month."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from aforo import worker
from aforo.billing.commands import (
    create_wallet,
    grant_credit,
    set_tax_engine,
    start_bill_run,
)
from aforo.billing.models import BillRunState
from aforo.billing.queries import bill_runs_by_id
from aforo.demo.cast import CAST, TAX_SETTINGS, Member
from aforo.demo.catalogue import Catalogue, create_catalogue
from aforo.demo.places import DemoError
from aforo.demo.usage import history
from aforo.metering.commands import ingest
from aforo.metering.queries import is_in_log, last_received
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.storage.queue import due_jobs
from aforo.storage.scope import Runtime, Scope
from aforo.subscriptions.commands import (
    create_agent,
    create_customer,
    create_subscription,
    create_team,
    register_customer_key,
)
from aforo.subscriptions.periods import billing_period
from aforo.tenants.commands import NewTenant, create_tenant

TENANT_NAME = "Halcyon AI"
SEED = "halcyon"
BATCH_EVENTS = 1_000
SETTLE_SECONDS_MAX = 300
POLL_SECONDS = 0.1


class Progress(Protocol):
    """Shows how far a step has come."""

    def step(
        self, title: str, *, total: int | None = None
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Show a step as long as it lasts; what it gives is called with what has been done."""
        ...


@dataclass(frozen=True, slots=True)
class _Lived:
    """The periods of a member that matter: its subscriptions start in the one before."""

    since: datetime
    running: Period


async def seed(runtime: Runtime, progress: Progress) -> NewTenant:
    """Create the demo's tenant with all that belongs to it, and give it back with its key.

    Works on any runtime, also beside workers. Raises: `DemoError` where something is refused.
    """
    now = runtime.clock.now()
    lives = {member.external_id: _lived(member, now) for member in CAST}
    first = min(life.since for life in lives.values())
    with progress.step("Creating the catalogue and the customers"):
        created = await create_tenant(runtime, name=TENANT_NAME)
        tenant_id = TenantId(created.tenant.tenant_id)
        async with runtime.scope(tenant_id) as scope:
            catalogue = await create_catalogue(scope, since=first - timedelta(days=1))
            await set_tax_engine(scope, engine="manual", settings=TAX_SETTINGS)
            for member in CAST:
                await _create_member(
                    scope,
                    member,
                    catalogue,
                    since=lives[member.external_id].since,
                    key_pepper=runtime.settings.key_pepper,
                )
    events = sorted(_events(lives, now), key=lambda event: str(event["occurredAt"]))
    with progress.step("Sending two months of usage", total=len(events)) as advance:
        for start in range(0, len(events), BATCH_EVENTS):
            await _send(runtime, tenant_id, events[start : start + BATCH_EVENTS])
            advance(min(BATCH_EVENTS, len(events) - start))
    with progress.step("Sealing events into the log and watching the margins"):
        await settle(runtime, tenant_id)
    with progress.step("Billing the closed month"):
        await _bill(runtime, tenant_id)
    return created


async def settle(runtime: Runtime, tenant_id: TenantId) -> None:
    """Return once everything acknowledged is in the log and nothing is due, whoever does it."""
    async with asyncio.timeout(SETTLE_SECONDS_MAX):
        while True:
            await worker.drain(runtime, tenant_id)
            async with runtime.scope(tenant_id) as scope:
                arrived = await is_in_log(scope, await last_received(scope))
            if arrived and not await due_jobs(runtime, tenant_id):
                return
            await asyncio.sleep(POLL_SECONDS)


def _lived(member: Member, now: datetime) -> _Lived:
    running = billing_period(anchor_day=1, time_zone=member.time_zone, at=now)
    before = billing_period(
        anchor_day=member.joined_on,
        time_zone=member.time_zone,
        at=running.start - timedelta(microseconds=1),
    )
    return _Lived(since=before.start, running=running)


def _events(lives: Mapping[str, _Lived], now: datetime) -> Iterable[dict[str, Any]]:
    for member in CAST:
        life = lives[member.external_id]
        yield from history(member, since=life.since, running=life.running, now=now, seed=SEED)


async def _create_member(
    scope: Scope, member: Member, catalogue: Catalogue, *, since: datetime, key_pepper: str
) -> None:
    customer = await create_customer(
        scope,
        external_id=member.external_id,
        name=member.name,
        currency=member.currency,
        time_zone=member.time_zone,
        country=member.country,
        region=member.region,
        segment=member.segment,
        email=f"billing@{member.external_id}.example",
    )
    for offering in member.offerings:
        await create_subscription(
            scope,
            customer_id=customer.id,
            offering_id=catalogue.offerings[offering],
            starts_at=since,
            billing_mode=member.billing_mode,
            anchor_day=1,
            grace_seconds=0,
            discount_ids=[catalogue.discounts[code] for code in member.discounts],
        )
    if member.credit is not None:
        wallet = await create_wallet(scope, customer_id=customer.id, currency=member.currency)
        await grant_credit(scope, wallet_id=wallet.id, amount=member.credit)
    if member.habits.key is not None:
        await _register_key(
            scope, customer.id, member.habits.key, since=since, key_pepper=key_pepper
        )


async def _register_key(
    scope: Scope, customer_id: UUID, key: str, *, since: datetime, key_pepper: str
) -> None:
    team = await create_team(scope, customer_id=customer_id, code="support", name="Support")
    agent = await create_agent(scope, team_id=team.id, code="triage-bot", name="Triage bot")
    await register_customer_key(
        scope,
        customer_id=customer_id,
        agent_id=agent.id,
        name="Triage bot's key",
        key=key,
        pepper=key_pepper,
        valid_from=since,
    )


async def _send(runtime: Runtime, tenant_id: TenantId, batch: list[dict[str, Any]]) -> None:
    answer = await ingest(runtime, tenant_id, batch)
    if answer.accepted != len(batch):
        first = answer.verdicts[0]
        raise DemoError(
            f"{len(answer.verdicts)} of {len(batch)} of the demo's events were not accepted, "
            f"the first as {first.kind}: {first.message}"
        )


async def _bill(runtime: Runtime, tenant_id: TenantId) -> None:
    """Bill every period that has ended, and wait for the invoices."""
    async with runtime.scope(tenant_id) as scope:
        run_id = (await start_bill_run(scope, until=scope.now)).id
    async with asyncio.timeout(SETTLE_SECONDS_MAX):
        while True:
            await settle(runtime, tenant_id)
            async with runtime.scope(tenant_id) as scope:
                run = (await bill_runs_by_id(scope, [run_id]))[run_id]
            if run.state is not BillRunState.QUEUED:
                break
            await asyncio.sleep(POLL_SECONDS)
    if run.state is BillRunState.FAILED or run.parked:
        raise DemoError(
            f"the demo's month cannot be billed: {run.failure or f'{run.parked} accounts parked'}"
        )
