"""What a scope writes is followed, by whatever way it is written."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from aforo.billing.models import InvoiceSeries
from aforo.catalog.models import Product
from aforo.sdk.ids import TenantId
from aforo.storage.actors import Actor, ActorKind
from aforo.storage.audit import AuditEntry
from aforo.storage.jobs import JobName
from aforo.storage.scope import Runtime, Scope
from aforo.storage.tables import new_id
from aforo.storage.trail import ROWS_MAX
from aforo.storage.values import cut, shown
from aforo.subscriptions.models import Customer

pytestmark = pytest.mark.anyio

BY = Actor(ActorKind.OPERATOR, operation="test")


async def told(runtime: Runtime, tenant_id: TenantId) -> list[dict[str, Any]]:
    """The changes of the entry that was written last."""
    async with runtime.scope(tenant_id) as scope:
        entry = await last(scope)
        return [] if entry is None else msgspec.json.decode(entry.changes)


async def last(scope: Scope) -> AuditEntry | None:
    entry: AuditEntry | None = await scope.db.scalar(
        sa.select(AuditEntry)
        .where(col(AuditEntry.action) == "test")
        .order_by(col(AuditEntry.seq).desc())
        .limit(1)
    )
    return entry


def named(changes: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """The names before and after."""
    sides = [(each["before"] or {}, each["after"] or {}) for each in changes]
    return [(before.get("name"), after.get("name")) for before, after in sides]


async def test_an_insert_of_several_values_is_told_row_by_row(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    rows = [{"id": new_id(), "code": f"p{each}", "name": f"P{each}"} for each in range(3)]
    async with runtime.scope(tenant_id, BY) as scope:
        await scope.db.execute(insert(Product).values(rows))
    assert named(await told(runtime, tenant_id)) == [(None, "P0"), (None, "P1"), (None, "P2")]
    async with runtime.scope(tenant_id, BY) as scope:
        more = [{"id": new_id(), "code": f"q{each}", "name": f"Q{each}"} for each in range(2)]
        await scope.db.execute(sa.insert(Product), more)
    assert named(await told(runtime, tenant_id)) == [(None, "Q0"), (None, "Q1")]


async def test_an_insert_that_does_nothing_is_not_told_and_one_that_updates_is(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async with runtime.scope(tenant_id, BY) as scope:
        scope.db.add(Product(code="p", name="first"))
    row = {"id": new_id(), "code": "p", "name": "second"}
    async with runtime.scope(tenant_id, BY) as scope:
        await scope.db.execute(insert(Product).values(row).on_conflict_do_nothing())
    assert named(await told(runtime, tenant_id)) == [(None, "first")]
    async with runtime.scope(tenant_id, BY) as scope:
        series = InvoiceSeries(prefix="INV")
        scope.db.add(series)
    async with runtime.scope(tenant_id, BY) as scope:
        upsert = insert(InvoiceSeries).values(id=series.id, prefix="NEW")
        await scope.db.execute(
            upsert.on_conflict_do_update(index_elements=["tenant_id", "id"], set_={"prefix": "NEW"})
        )
    (change,) = await told(runtime, tenant_id)
    assert (change["before"], change["after"]) == ({"prefix": "INV"}, {"prefix": "NEW"})


async def test_an_update_past_the_session_is_told_with_what_was_before(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async with runtime.scope(tenant_id) as scope:
        customer = Customer(external_id="acme", name="Acme", currency="USD", time_zone="UTC")
        scope.db.add(customer)
    async with runtime.scope(tenant_id, BY) as scope:
        await scope.db.execute(
            sa.update(Customer).where(col(Customer.name) == "Acme").values(name="Acme Inc.")
        )
    (change,) = await told(runtime, tenant_id)
    assert (change["type"], change["id"]) == ("Customer", str(customer.id))
    assert named([change]) == [("Acme", "Acme Inc.")]
    assert "currency" not in change["before"]  # It stayed as it was.


async def test_several_writes_of_a_row_are_one_change_and_what_is_undone_is_none(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async with runtime.scope(tenant_id, BY) as scope:
        kept = Customer(external_id="acme", name="Acme", currency="USD", time_zone="UTC")
        scope.db.add(kept)
        await scope.db.flush()
        kept.name = "Acme Inc."
        await scope.db.flush()
        async with scope.db.begin_nested() as savepoint:
            scope.db.add(Product(code="p", name="undone"))
            await scope.db.flush()
            await savepoint.rollback()
    assert named(await told(runtime, tenant_id)) == [(None, "Acme Inc.")]


async def test_what_cannot_be_followed_is_counted(runtime: Runtime, tenant_id: TenantId) -> None:
    async with runtime.scope(tenant_id, BY) as scope:
        await scope.db.execute(
            sa.text("INSERT INTO product (id, code, name) VALUES (gen_random_uuid(), 'p', 'P')")
        )
    assert await told(runtime, tenant_id) == [
        {"type": "SQL", "id": None, "before": None, "after": {"rows": 1}}
    ]


async def test_an_entry_is_bounded(runtime: Runtime, tenant_id: TenantId) -> None:
    async with runtime.scope(tenant_id, BY) as scope:
        for number in range(ROWS_MAX + 7):
            scope.db.add(Product(code=f"p{number}", name="x" * 5_000))
    changes = await told(runtime, tenant_id)
    assert len(changes) == ROWS_MAX
    assert max(len(change["after"]["name"]) for change in changes) < 600
    async with runtime.scope(tenant_id) as scope:
        entry = await last(scope)
    assert entry is not None
    assert entry.omitted == 7


async def test_jobs_and_queries_leave_nothing(runtime: Runtime, tenant_id: TenantId) -> None:
    async with runtime.scope(tenant_id, BY) as scope:
        await scope.enqueue(JobName.BILL_DUE, until="2026-12-01T00:00:00+00:00")
        await scope.db.scalars(sa.select(Product))
    async with runtime.scope(tenant_id, BY.doing(None)) as scope:
        scope.db.add(Product(code="p", name="P"))
    assert await told(runtime, tenant_id) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (2**60, str(2**60)),
        ("a\0b", "a�b"),
        (b"secret", "[6 bytes]"),
        (ActorKind.JOB, "JOB"),
        (datetime(2026, 11, 20, 12, tzinfo=UTC), "2026-11-20T12:00:00Z"),
        ({"b": [1, {"a": 1.5}]}, {"b": [1, {"a": "1.5"}]}),
        (["x" * 3_000], cut(f'["{"x" * 500}… (3000 characters)"]', 10_000)),
    ],
)
def test_values_are_shown_plain_and_short(value: object, expected: object) -> None:
    found = shown(value)
    assert found == expected or msgspec.json.encode(found).decode() == expected


def test_a_secret_is_shown_as_one() -> None:
    assert shown(b"x", secret=True) == "[secret]"
    assert shown(None, secret=True) is None
