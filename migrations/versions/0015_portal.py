"""Portal tokens, and the wall around what the users of one customer reach."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import (
    CUSTOMER,
    belongs_to,
    create_tenant_table,
    open_to_system,
    wall_customers,
)

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

SHARED = ("tenant", "meter", "segment")
BY_CUSTOMER = ("team", "customer_key", "subscription", "invoice", "wallet")
BELOW = (
    # A row is inside where the row of the other table is that it names, or that names it.
    ("agent", "team_id", "team", "id"),
    ("subscription_discount", "subscription_id", "subscription", "id"),
    ("invoice_line", "invoice_id", "invoice", "id"),
    ("invoice_tax", "invoice_id", "invoice", "id"),
    ("wallet_grant", "wallet_id", "wallet", "id"),
    ("wallet_entry", "wallet_id", "wallet", "id"),
    ("offering", "id", "subscription", "offering_id"),
    ("offering_entitlement", "offering_id", "offering", "id"),
    ("entitlement", "id", "offering_entitlement", "entitlement_id"),
    ("discount", "id", "subscription_discount", "discount_id"),
)


def upgrade() -> None:
    create_tenant_table(
        "portal_token",
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("environment", sa.String(32), nullable=False),
        sa.Column("public_id", sa.String(32), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("public_id"),
        grant="SELECT, INSERT, UPDATE, DELETE",
    )
    op.create_index(
        "portal_token_by_customer", "portal_token", ["tenant_id", "customer_id", "expires_at"]
    )
    open_to_system("portal_token", grant="SELECT")
    # Whatever is there is hidden; what is made from now on is by its own migration.
    for name in _walled():
        wall_customers(name)
    for name in SHARED:
        wall_customers(name, inside="true")
    wall_customers("customer", inside=f"id::text = {CUSTOMER}")
    for name in BY_CUSTOMER:
        wall_customers(name, inside=f"customer_id::text = {CUSTOMER}")
    for name, column, other, of in BELOW:
        # The other table's own wall holds in here too.
        inside = (
            f"EXISTS (SELECT FROM {other} AS other WHERE other.tenant_id = {name}.tenant_id "
            f"AND other.{of} = {name}.{column})"
        )
        wall_customers(name, inside=inside)


def downgrade() -> None:
    for name in _walled():
        op.execute(f"DROP POLICY IF EXISTS customer ON {name}")
    op.drop_table("portal_token")


def _walled() -> list[str]:
    query = sa.text("SELECT tablename FROM pg_policies WHERE policyname = 'tenant' ORDER BY 1")
    return list(op.get_bind().scalars(query))
