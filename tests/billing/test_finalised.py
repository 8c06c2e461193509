"""A finalised invoice is closed: to its own tenant's code as much as to anybody."""

from uuid import uuid4

import pytest
import sqlalchemy as sa

from aforo.billing.models import InvoiceState
from aforo.sdk import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from tests.billing.trade import (
    NOVEMBER,
    OCTOBER,
    Buyer,
    RunJobs,
    bill_now,
    invoices_of,
    lines_of,
    open_trade,
    tax_everything,
)

pytestmark = pytest.mark.anyio

CHANGES = {
    "its amount": "UPDATE invoice SET amount_due = 0 WHERE id = :invoice",
    "its state": "UPDATE invoice SET state = 'DRAFT' WHERE id = :invoice",
    "its being": "DELETE FROM invoice WHERE id = :invoice",
    "its lines": "DELETE FROM invoice_line WHERE invoice_id = :invoice",
    "its taxes": "DELETE FROM invoice_tax WHERE invoice_id = :invoice",
}
ANOTHER_LINE = """
INSERT INTO invoice_line SELECT (line).* FROM (
    SELECT jsonb_populate_record(
               held, jsonb_build_object('id', CAST(:id AS text), 'position', 99)
           ) AS line
      FROM invoice_line AS held WHERE invoice_id = :invoice LIMIT 1
) AS copies
"""


@pytest.mark.parametrize("is_final", [True, False])
@pytest.mark.parametrize("change", CHANGES)
async def test_what_is_final_cannot_be_changed_and_a_draft_can(
    *,
    runtime: Runtime,
    tenant_id: TenantId,
    run_jobs: RunJobs,
    clock: MovableClock,
    is_final: bool,
    change: str,
) -> None:
    clock.move_to(NOVEMBER)
    await tax_everything(runtime, tenant_id, "0.10")
    grace_seconds = 0 if is_final else 3600
    buyer = Buyer(name="a", starts_at=OCTOBER, grace_seconds=grace_seconds)
    await open_trade(runtime, tenant_id, [buyer])
    await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert (invoice.state is InvoiceState.FINALIZED) is is_final
    async with runtime.scope(tenant_id) as scope:
        if change == "its being":  # What hangs on it goes first, as far as it may.
            for name in ("its lines", "its taxes"):
                await scope.db.execute(sa.text(CHANGES[name]), {"invoice": invoice.id})
        result = await scope.db.execute(
            sa.text(f"{CHANGES[change]} RETURNING id"), {"invoice": invoice.id}
        )
        assert bool(result.all()) is not is_final


async def test_a_final_invoice_takes_no_more_lines(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    with pytest.raises(sa.exc.ProgrammingError, match="row-level security"):
        async with runtime.scope(tenant_id) as scope:
            await scope.db.execute(
                sa.text(ANOTHER_LINE), {"invoice": invoice.id, "id": str(uuid4())}
            )
    assert len(await lines_of(runtime, tenant_id, invoice)) == 2
