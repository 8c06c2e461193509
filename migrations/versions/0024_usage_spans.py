"""Which runs of segments are rolled up for a meter."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import REPLACED, belongs_to, create_tenant_table, wall_customers

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_tenant_table(
        "usage_span",
        sa.Column("meter_id", sa.Uuid, nullable=False),
        sa.Column("after_segment_id", sa.BigInteger, nullable=False),
        sa.Column("segment_id", sa.BigInteger, nullable=False),
        sa.Column("span_id", sa.BigInteger, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        belongs_to("meter", "meter_id"),
        sa.UniqueConstraint("tenant_id", "meter_id", "after_segment_id"),
        grant=REPLACED,
    )
    wall_customers("usage_span", inside="true")


def downgrade() -> None:
    op.drop_table("usage_span")
