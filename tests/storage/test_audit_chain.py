"""The chain of the audit log: sealed in order, and whatever is done to it afterwards is found."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import col

from aforo.sdk.ids import TenantId
from aforo.storage import audit_chain, audit_check
from aforo.storage.actors import Actor, ActorKind
from aforo.storage.audit import AuditEntry, Outcome, Thing
from aforo.storage.audit_chain import GENESIS, Head, hash_of
from aforo.storage.audit_check import Checked
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.tenants.commands import create_tenant

pytestmark = pytest.mark.anyio

WHO = Actor(ActorKind.MEMBER, id=new_id(), label="ada@acme.test", address="192.0.2.7")
Tamper = Callable[..., Awaitable[None]]


@pytest.fixture
def kept(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The runtime with a data folder of its own; nobody waits for a head that never comes."""
    monkeypatch.setattr(audit_check, "PUBLISHED_PAUSE_SECONDS", 0)
    return dataclasses.replace(
        runtime, settings=dataclasses.replace(runtime.settings, data_dir=tmp_path)
    )


@pytest.fixture
async def owner(engines: EmbeddedEngines, kept: Runtime) -> AsyncIterator[AsyncConnection]:
    """Whoever owns the schema, and so can get past every wall of it."""
    engine = create_async_engine(engines.owner_database_url, poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


@pytest.fixture
async def sealed(kept: Runtime, tenant_id: TenantId) -> list[AuditEntry]:
    """Six entries of the tenant in its chain: that of its making, and five more."""
    for written in (3, 2):
        await write(kept, tenant_id, written)
        async with asyncio.timeout(60):  # Another test's transaction may hold the entries back.
            while any(each.position is None for each in await chain(kept, tenant_id)):
                await audit_chain.seal(kept)
    return await chain(kept, tenant_id)


@pytest.fixture
def tamper(owner: AsyncConnection, tenant_id: TenantId) -> Tamper:
    """Run statements on the tenant's entries as the owner, who has taken the walls down."""

    async def run(*statements: str) -> None:
        await owner.execute(sa.text("ALTER TABLE audit_entry NO FORCE ROW LEVEL SECURITY"))
        for statement in statements:
            done = await owner.execute(sa.text(statement), {"tenant": tenant_id})
            assert done.rowcount, "nothing was tampered with"
        await owner.execute(sa.text("ALTER TABLE audit_entry FORCE ROW LEVEL SECURITY"))
        await owner.commit()

    return run


async def write(runtime: Runtime, tenant_id: TenantId, count: int) -> None:
    for number in range(count):
        async with runtime.scope(tenant_id, WHO) as scope:
            await scope.record("signIn", Thing("Member", WHO.id, after={"try": number}))


async def chain(runtime: Runtime, tenant_id: TenantId) -> list[AuditEntry]:
    async with runtime.scope(tenant_id) as scope:
        query = sa.select(AuditEntry).order_by(col(AuditEntry.position))
        return list(await scope.db.scalars(query))


async def verdict(runtime: Runtime, tenant_id: TenantId) -> Checked:
    (checked,) = await audit_check.check(runtime, tenant_id)
    return checked


async def test_entries_are_chained_in_their_order_and_every_head_is_published(
    kept: Runtime, tenant_id: TenantId, sealed: list[AuditEntry]
) -> None:
    assert [entry.position for entry in sealed] == [1, 2, 3, 4, 5, 6]
    assert [entry.seq for entry in sealed] == sorted(entry.seq for entry in sealed)
    assert [entry.previous_hash for entry in sealed] == [
        GENESIS,
        *[entry.hash for entry in sealed[:-1]],
    ]
    heads = [
        head
        for head in audit_chain.published(kept.settings.data_dir)
        if head.tenant_id == tenant_id
    ]
    assert heads == [Head(tenant_id, place, sealed[place - 1].hash or b"") for place in (4, 6)]
    assert await verdict(kept, tenant_id) == Checked(tenant_id, 6, 0, None)


async def test_an_entry_waits_for_every_older_transaction(
    kept: Runtime, tenant_id: TenantId, sealed: list[AuditEntry]
) -> None:
    async with kept.scope(tenant_id, WHO) as early:
        await early.record("signIn")
        await write(kept, tenant_id, 1)
        await audit_chain.seal(kept)
        assert len([each for each in await chain(kept, tenant_id) if each.position]) == 6
        checked = await verdict(kept, tenant_id)
        assert (checked.entries, checked.waiting, checked.fault) == (6, 1, None)
    await audit_chain.seal(kept)
    assert await verdict(kept, tenant_id) == Checked(tenant_id, 8, 0, None)


async def test_two_sealers_at_once_make_one_chain(kept: Runtime, tenant_id: TenantId) -> None:
    await write(kept, tenant_id, 20)
    await asyncio.gather(*(audit_chain.seal(kept) for _ in range(5)))
    await audit_chain.seal(kept)
    assert await verdict(kept, tenant_id) == Checked(tenant_id, 21, 0, None)


THIRD = "tenant_id = :tenant AND position = 3"


@pytest.mark.parametrize(
    ("statements", "entries", "said"),
    [
        ([f"UPDATE audit_entry SET actor_label = 'eve' WHERE {THIRD}"], 2, "entry 3 was changed"),
        ([f"UPDATE audit_entry SET address = NULL WHERE {THIRD}"], 2, "entry 3 was changed"),
        (
            [f"UPDATE audit_entry SET created_at = created_at - interval '1 s' WHERE {THIRD}"],
            2,
            "entry 3 was changed",
        ),
        ([f"UPDATE audit_entry SET changes = '[]' WHERE {THIRD}"], 2, "entry 3 was changed"),
        ([f"UPDATE audit_entry SET hash = previous_hash WHERE {THIRD}"], 2, "entry 3 was changed"),
        (
            [f"UPDATE audit_entry SET previous_hash = hash WHERE {THIRD}"],
            2,
            "entry 3 does not follow",
        ),
        ([f"DELETE FROM audit_entry WHERE {THIRD}"], 2, "entry 3 is gone"),
        (["DELETE FROM audit_entry WHERE tenant_id = :tenant AND position = 1"], 0, "1 is gone"),
        (
            [
                f"DELETE FROM audit_entry WHERE {THIRD}",
                "UPDATE audit_entry SET position = -position "
                "WHERE tenant_id = :tenant AND position > 3",
                "UPDATE audit_entry SET position = -position - 1 "
                "WHERE tenant_id = :tenant AND position < 0",
            ],
            2,
            "entry 3 does not follow",
        ),
        (  # Two change places.
            [
                f"UPDATE audit_entry SET position = 99 WHERE {THIRD}",
                "UPDATE audit_entry SET position = 3 WHERE tenant_id = :tenant AND position = 4",
                "UPDATE audit_entry SET position = 4 WHERE tenant_id = :tenant AND position = 99",
            ],
            2,
            "entry 3 does not follow",
        ),
        (  # The tail is cut off: what is left is a chain without a fault.
            ["DELETE FROM audit_entry WHERE tenant_id = :tenant AND position > 4"],
            4,
            "the log ends at entry 4, but entry 6 was published",
        ),
        (["DELETE FROM audit_entry WHERE tenant_id = :tenant"], 0, "the log ends at entry 0"),
    ],
)
async def test_whatever_the_owner_does_to_the_rows_is_found(
    *,
    kept: Runtime,
    tenant_id: TenantId,
    sealed: list[AuditEntry],
    tamper: Tamper,
    statements: list[str],
    entries: int,
    said: str,
) -> None:
    await tamper(*statements)
    checked = await verdict(kept, tenant_id)
    assert said in (checked.fault or "")
    assert checked.entries == entries


COPY = """
INSERT INTO audit_entry (tenant_id, id, created_at, action, outcome, actor_kind, actor_label,
                         changes, omitted, position, previous_hash, hash)
SELECT tenant_id, gen_random_uuid(), created_at, 'planted', outcome, actor_kind, actor_label,
       changes, omitted, %(position)s, previous_hash, hash
  FROM audit_entry WHERE tenant_id = :tenant AND position = 6
"""


async def test_an_entry_that_is_put_in_between_is_found(
    kept: Runtime, tenant_id: TenantId, sealed: list[AuditEntry], tamper: Tamper
) -> None:
    await tamper(
        "UPDATE audit_entry SET position = position + 100 "
        "WHERE tenant_id = :tenant AND position > 2",
        COPY.replace("position = 6", "position = 106") % {"position": 3},
        "UPDATE audit_entry SET position = position - 99 "
        "WHERE tenant_id = :tenant AND position > 100",
    )
    checked = await verdict(kept, tenant_id)
    assert "entry 3 does not follow" in (checked.fault or "")


async def test_a_chain_that_was_computed_anew_is_not_the_one_that_was_published(
    kept: Runtime, tenant_id: TenantId, sealed: list[AuditEntry], tamper: Tamper
) -> None:
    """Whoever can write and knows how to hash: only what is kept elsewhere gives him away."""
    forged = sealed[2:]
    forged[0].actor_label = "eve"
    previous = sealed[1].hash or b""
    statements = []
    for entry in forged:
        assert entry.position is not None
        found = hash_of(entry, position=entry.position, previous=previous)
        statements.append(
            f"UPDATE audit_entry SET actor_label = '{entry.actor_label}', "
            f"previous_hash = '\\x{previous.hex()}', hash = '\\x{found.hex()}' "
            f"WHERE tenant_id = :tenant AND position = {entry.position}"
        )
        previous = found
    await tamper(*statements)
    checked = await verdict(kept, tenant_id)
    assert "entry 4 is not the one that was published" in (checked.fault or "")


async def test_an_entry_that_no_sealer_put_at_the_end_is_found(
    kept: Runtime, tenant_id: TenantId, sealed: list[AuditEntry], tamper: Tamper
) -> None:
    last = sealed[-1]
    planted = AuditEntry.model_validate(last.model_dump() | {"id": UUID(int=7)})
    found = hash_of(planted, position=7, previous=last.hash or b"")
    await tamper(
        "INSERT INTO audit_entry (tenant_id, id, created_at, action, outcome, reason, actor_kind, "
        "actor_id, actor_label, request_id, address, user_agent, changes, omitted, position, "
        f"previous_hash, hash) SELECT tenant_id, '{UUID(int=7)}', created_at, action, outcome, "
        "reason, actor_kind, actor_id, actor_label, request_id, address, user_agent, changes, "
        f"omitted, 7, hash, '\\x{found.hex()}' FROM audit_entry "
        "WHERE tenant_id = :tenant AND position = 6"
    )
    checked = await verdict(kept, tenant_id)
    assert checked.entries == 6
    assert checked.entry_id == UUID(int=7)
    assert "past the last published head" in (checked.fault or "")


async def test_the_application_can_neither_change_nor_delete_nor_place_an_entry(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    for statement, said in (
        ("UPDATE audit_entry SET action = 'x'", "permission denied"),
        ("UPDATE audit_entry SET position = 1", "permission denied"),
        ("DELETE FROM audit_entry", "permission denied"),
        ("TRUNCATE audit_entry", "permission denied"),
        (
            "INSERT INTO audit_entry (id, action, outcome, actor_kind, actor_label, changes, "
            "omitted, position) VALUES (gen_random_uuid(), 'x', 'DONE', 'JOB', '', '[]', 0, 9)",
            "row-level security",
        ),
    ):
        with pytest.raises(sa.exc.ProgrammingError, match=said):
            async with runtime.scope(tenant_id) as scope:
                await scope.db.execute(sa.text(statement))
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        async with runtime.system("a test") as db:
            await db.execute(sa.text("UPDATE audit_entry SET action = 'x'"))


async def test_heads_of_a_sealer_that_died_are_published_by_the_next_one(
    kept: Runtime, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(audit_chain, "publish", lambda *_: None)
        await audit_chain.seal(kept)
    assert "past the last" in ((await verdict(kept, tenant_id)).fault or "")
    await audit_chain.publish_all(kept)
    assert await verdict(kept, tenant_id) == Checked(tenant_id, 1, 0, None)
    lines = sum(1 for _ in audit_chain.published(kept.settings.data_dir))
    await audit_chain.publish_all(kept)
    assert sum(1 for _ in audit_chain.published(kept.settings.data_dir)) == lines


async def test_a_line_that_a_crash_cut_off_is_no_head(
    kept: Runtime, tenant_id: TenantId, sealed: list[AuditEntry]
) -> None:
    (file,) = (kept.settings.data_dir / "audit").glob("heads-*.jsonl")
    assert file.stat().st_mode & 0o777 == 0o600
    with file.open("a") as opened:
        opened.write('{"tenant": "')
    assert await verdict(kept, tenant_id) == Checked(tenant_id, 6, 0, None)


async def test_the_chains_of_two_tenants_are_apart(
    kept: Runtime, tenant_id: TenantId, sealed: list[AuditEntry], tamper: Tamper
) -> None:
    other = TenantId((await create_tenant(kept, name="Other")).tenant.tenant_id)
    await write(kept, other, 2)
    await audit_chain.seal(kept)
    await tamper(f"DELETE FROM audit_entry WHERE {THIRD}")
    assert (await verdict(kept, other)).fault is None
    assert (await verdict(kept, other)).entries == 3


def test_the_hash_is_over_a_form_that_others_can_compute() -> None:
    """The same as docs/audit.md says: change one, change the other."""
    values: dict[str, Any] = {"actor_label": "ada", "changes": "[]"}
    assert hash_of(entry_of(**values), position=1, previous=GENESIS).hex() == (
        "2ecf763d07f57782d3612d3014ca949d804161ee8ae365734fe1ee9953b2ba20"
    )


def entry_of(**given: Any) -> AuditEntry:
    return AuditEntry(
        tenant_id=UUID(int=1),
        id=UUID(int=2),
        created_at=datetime(2026, 11, 20, 12, tzinfo=UTC),
        action="createProduct",
        outcome=Outcome.DONE,
        actor_kind=ActorKind.API_KEY,
        **given,
    )
