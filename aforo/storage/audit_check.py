"""Whether the audit log is as it was written: the chain recomputed, and held to its heads."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.storage.audit import AuditEntry
from aforo.storage.audit_chain import GENESIS, hash_of, published
from aforo.storage.scope import Runtime

PAGE = 1_000
PUBLISHED_TRIES = 5
PUBLISHED_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of one tenant's chain."""

    tenant_id: UUID
    entries: int
    """Sealed ones that hold together, from the first on."""
    waiting: int
    """Entries that are not sealed yet."""
    fault: str | None
    """What is wrong with the first entry that does not fit; None where all do."""
    entry_id: UUID | None = None
    """The first entry that does not fit, where it is there."""


async def check(runtime: Runtime, tenant_id: UUID | None = None) -> list[Checked]:
    """Recompute the chain of every tenant, or of one; by the heads published in the data folder."""
    heads = _heads(runtime)
    tenants = {tenant_id} if tenant_id else {*await _tenants(runtime), *heads}
    checked = []
    for each in sorted(tenants):
        found = await _check(runtime, each, heads[each])
        for _ in range(PUBLISHED_TRIES):
            if found.fault != _UNPUBLISHED:
                break
            # A sealer publishes right after it has committed: it may just be about to.
            await asyncio.sleep(PUBLISHED_PAUSE_SECONDS)
            found = await _check(runtime, each, _heads(runtime)[each])
        checked.append(found)
    return checked


_UNPUBLISHED = (
    "it stands past the last published head: it was not sealed by a worker, or the worker's data "
    "folder is not the one that is looked at here"
)


async def _check(runtime: Runtime, tenant_id: UUID, heads: dict[int, set[bytes]]) -> Checked:
    waiting = await _waiting(runtime, tenant_id)
    position, previous = 0, GENESIS
    last_published = max(heads, default=0)

    def broken(fault: str, entry: AuditEntry | None = None) -> Checked:
        return Checked(tenant_id, position, waiting, fault, entry.id if entry else None)

    async for entry in _sealed(runtime, tenant_id):
        if entry.position != position + 1:
            return broken(f"entry {position + 1} is gone: entry {entry.position} follows", entry)
        if entry.previous_hash != previous:
            return broken(f"entry {entry.position} does not follow the entry before it", entry)
        found = hash_of(entry, position=position + 1, previous=previous)
        if entry.hash != found:
            return broken(f"entry {entry.position} was changed: its hash is another one", entry)
        if heads.get(position + 1, {found}) != {found}:
            return broken(
                f"entry {entry.position} is not the one that was published: the chain was made "
                "anew",
                entry,
            )
        if position + 1 > last_published:
            return broken(_UNPUBLISHED, entry)
        position, previous = position + 1, found
    if position < last_published:
        return broken(
            f"the log ends at entry {position}, but entry {last_published} was published: "
            f"entry {position + 1} and what followed is gone"
        )
    return Checked(tenant_id, position, waiting, None)


async def _sealed(runtime: Runtime, tenant_id: UUID) -> AsyncIterator[AuditEntry]:
    after = -1
    while True:
        async with runtime.system("verify the audit log") as db:
            rows = await db.scalars(
                sa.select(AuditEntry)
                .where(col(AuditEntry.tenant_id) == tenant_id, col(AuditEntry.position) > after)
                .order_by(col(AuditEntry.position))
                .limit(PAGE)
            )
            page = list(rows)
        for row in page:
            yield row
        if len(page) < PAGE:
            return
        after = page[-1].position or 0


async def _waiting(runtime: Runtime, tenant_id: UUID) -> int:
    async with runtime.system("count what waits for the sealer") as db:
        count = await db.scalar(
            sa.select(sa.func.count())
            .select_from(AuditEntry)
            .where(col(AuditEntry.tenant_id) == tenant_id, col(AuditEntry.position).is_(None))
        )
    return int(count or 0)


async def _tenants(runtime: Runtime) -> list[UUID]:
    async with runtime.system("list the tenants of the audit log") as db:
        return list(await db.scalars(sa.select(col(AuditEntry.tenant_id)).distinct()))


def _heads(runtime: Runtime) -> dict[UUID, dict[int, set[bytes]]]:
    heads: dict[UUID, dict[int, set[bytes]]] = defaultdict(lambda: defaultdict(set))
    for head in published(runtime.settings.data_dir):
        heads[head.tenant_id][head.position].add(head.hash)
    return heads
