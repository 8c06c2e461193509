"""Bill runs, invoices, wallets."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.tenancy import (
    APP_ROLE,
    CHANGING,
    REPLACED,
    belongs_to,
    create_tenant_table,
)

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = (
    "bill_run",
    "parked_account",
    "invoice",
    "invoice_line",
    "invoice_tax",
    "invoice_series",
    "tax_settings",
    "wallet",
    "wallet_grant",
    "wallet_entry",
)


def upgrade() -> None:
    create_tenant_table(
        "bill_run",
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("watermark", sa.BigInteger, nullable=True),
        sa.Column("invoices", sa.Integer, nullable=False),
        sa.Column("parked", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", sa.String, nullable=True),
        grant=CHANGING,
    )
    create_tenant_table(
        "parked_account",
        sa.Column("bill_run_id", sa.Uuid, nullable=False),
        sa.Column("subscription_id", sa.Uuid, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        belongs_to("bill_run", "bill_run_id"),
        belongs_to("subscription", "subscription_id"),
    )
    op.create_index("parked_account_by_run", "parked_account", ["tenant_id", "bill_run_id", "id"])
    create_tenant_table(
        "invoice",
        sa.Column("bill_run_id", sa.Uuid, nullable=False),
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("subscription_id", sa.Uuid, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("number", sa.String, nullable=True),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("watermark", sa.BigInteger, nullable=False),
        sa.Column("subtotal", sa.Numeric, nullable=False),
        sa.Column("discount", sa.Numeric, nullable=False),
        sa.Column("tax", sa.Numeric, nullable=False),
        sa.Column("total", sa.Numeric, nullable=False),
        sa.Column("from_wallet", sa.Numeric, nullable=False),
        sa.Column("amount_due", sa.Numeric, nullable=False),
        sa.Column("cogs", sa.Numeric, nullable=False),
        sa.Column("uncosted_events", sa.Integer, nullable=False),
        sa.Column("finalized_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tax_failure", sa.String, nullable=True),
        belongs_to("bill_run", "bill_run_id"),
        belongs_to("customer", "customer_id"),
        belongs_to("subscription", "subscription_id"),
        sa.UniqueConstraint("tenant_id", "number"),
        sa.UniqueConstraint("tenant_id", "subscription_id", "period_start"),
        grant=f"{CHANGING}, DELETE",
    )
    op.create_index("invoice_by_customer", "invoice", ["tenant_id", "customer_id", "id"])
    op.create_index(
        "invoice_open",
        "invoice",
        ["tenant_id", "subscription_id"],
        postgresql_where=sa.text("state <> 'FINALIZED'"),
    )
    create_tenant_table(
        "invoice_line",
        sa.Column("invoice_id", sa.Uuid, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("rate_plan_line_id", sa.Uuid, nullable=True),
        sa.Column("meter_id", sa.Uuid, nullable=True),
        sa.Column("discount_id", sa.Uuid, nullable=True),
        sa.Column("quantity", sa.Numeric, nullable=False),
        sa.Column("unrounded", sa.Numeric, nullable=False),
        sa.Column("amount", sa.Numeric, nullable=False),
        sa.Column("discounted", sa.Numeric, nullable=False),
        sa.Column("tax", sa.Numeric, nullable=False),
        sa.Column("tax_category", sa.String, nullable=True),
        sa.Column("steps", JSONB, nullable=False),
        sa.Column("event_count", sa.Integer, nullable=False),
        sa.Column("event_xor", sa.String, nullable=False),
        belongs_to("invoice", "invoice_id"),
        sa.UniqueConstraint("tenant_id", "invoice_id", "position"),
        grant=REPLACED,
    )
    create_tenant_table(
        "invoice_tax",
        sa.Column("invoice_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("jurisdiction", sa.String, nullable=False),
        sa.Column("rate", sa.Numeric, nullable=False),
        sa.Column("inclusive", sa.Boolean, nullable=False),
        sa.Column("base", sa.Numeric, nullable=False),
        sa.Column("amount", sa.Numeric, nullable=False),
        belongs_to("invoice", "invoice_id"),
        grant=REPLACED,
    )
    create_tenant_table(
        "invoice_series",
        sa.Column("prefix", sa.String, nullable=False),
        sa.Column("next_number", sa.Integer, nullable=False),
        sa.UniqueConstraint("tenant_id", "prefix"),
        grant=CHANGING,
    )
    create_tenant_table(
        "tax_settings",
        sa.Column("engine", sa.String, nullable=False),
        sa.Column("settings", JSONB, nullable=False),
    )
    create_tenant_table(
        "wallet",
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("tenant_id", "customer_id", "currency"),
        grant=CHANGING,
    )
    create_tenant_table(
        "wallet_grant",
        sa.Column("wallet_id", sa.Uuid, nullable=False),
        sa.Column("amount", sa.Numeric, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reference", sa.String, nullable=True),
        belongs_to("wallet", "wallet_id"),
        sa.UniqueConstraint("tenant_id", "wallet_id", "reference"),
    )
    op.create_index("wallet_grant_by_wallet", "wallet_grant", ["tenant_id", "wallet_id"])
    create_tenant_table(
        "wallet_entry",
        sa.Column("wallet_id", sa.Uuid, nullable=False),
        sa.Column("grant_id", sa.Uuid, nullable=True),
        sa.Column("invoice_id", sa.Uuid, nullable=True),
        sa.Column("amount", sa.Numeric, nullable=False),
        belongs_to("wallet_grant", "grant_id"),
        belongs_to("invoice", "invoice_id"),
        belongs_to("wallet", "wallet_id"),
    )
    op.create_index("wallet_entry_by_wallet", "wallet_entry", ["tenant_id", "wallet_id"])
    _freeze_finalised_invoices()


def _freeze_finalised_invoices() -> None:
    """A finalised invoice, its lines and its taxes can be read, and nothing else, by anyone
    who works under the application's role."""
    open_invoice = (
        "EXISTS (SELECT FROM invoice AS held WHERE held.tenant_id = {table}.tenant_id "
        "AND held.id = {table}.invoice_id AND held.state <> 'FINALIZED')"
    )
    for verb in ("UPDATE", "DELETE"):
        check = " WITH CHECK (true)" if verb == "UPDATE" else ""
        op.execute(
            f"CREATE POLICY finalised_stays_{verb.lower()} ON invoice AS RESTRICTIVE "
            f"FOR {verb} TO {APP_ROLE} USING (state <> 'FINALIZED'){check}"
        )
        for table in ("invoice_line", "invoice_tax"):
            op.execute(
                f"CREATE POLICY finalised_stays_{verb.lower()} ON {table} AS RESTRICTIVE "
                f"FOR {verb} TO {APP_ROLE} USING ({open_invoice.format(table=table)}){check}"
            )
    for table in ("invoice_line", "invoice_tax"):
        op.execute(
            f"CREATE POLICY finalised_stays_insert ON {table} AS RESTRICTIVE "
            f"FOR INSERT TO {APP_ROLE} WITH CHECK ({open_invoice.format(table=table)})"
        )


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
