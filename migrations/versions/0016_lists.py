"""Every list has an index for each of its orders and conditions."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

ADDED = {
    "customer_by_sort_name": ("customer", "sort_name"),
    "customer_by_segment": ("customer", "segment"),
    "customer_by_country": ("customer", "country"),
    "customer_by_currency": ("customer", "currency"),
    "customer_key_by_customer": ("customer_key", "customer_id"),
    "subscription_by_customer_id": ("subscription", "customer_id"),
    "subscription_by_offering": ("subscription", "offering_id"),
    "subscription_by_start": ("subscription", "starts_at"),
    "invoice_by_state": ("invoice", "state"),
    "invoice_by_period_start": ("invoice", "period_start"),
    "signal_by_detector": ("signal", "detector"),
    "signal_by_level": ("signal", "level"),
    "orchestration_actions_by_signal": ("orchestration_actions", "signal_id"),
    "orchestration_actions_by_tier": ("orchestration_actions", "tier"),
    "bill_run_by_state": ("bill_run", "state"),
}
WIDENED = {
    "quarantined_event_by_code": ("quarantined_event", "code"),
    "wallet_grant_by_wallet": ("wallet_grant", "wallet_id"),
}


def upgrade() -> None:
    op.add_column(
        "customer",
        sa.Column(
            "sort_name",
            sa.String(collation="C"),
            sa.Computed("lower(name)", persisted=True),
            nullable=False,
        ),
    )
    op.drop_index("customer_by_name", "customer")
    for name, (table, _) in WIDENED.items():
        op.drop_index(name, table)
    for name, (table, column) in (ADDED | WIDENED).items():
        op.create_index(name, table, ["tenant_id", column, "id"])


def downgrade() -> None:
    for name, (table, _) in (ADDED | WIDENED).items():
        op.drop_index(name, table)
    for name, (table, column) in WIDENED.items():
        op.create_index(name, table, ["tenant_id", column])
    op.create_index("customer_by_name", "customer", ["tenant_id", "name", "id"])
    op.drop_column("customer", "sort_name")
