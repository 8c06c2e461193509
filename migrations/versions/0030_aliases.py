"""Other ids that stand for a customer."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import CHANGING, belongs_to, create_tenant_table

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_tenant_table(
        "customer_alias",
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("external_id", sa.String, nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("tenant_id", "external_id"),
        grant=CHANGING,
    )
    op.create_index(
        "customer_alias_by_customer", "customer_alias", ["tenant_id", "customer_id", "id"]
    )


def downgrade() -> None:
    op.drop_table("customer_alias")
