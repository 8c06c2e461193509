"""The properties by whose values a meter's usage can be told apart."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "meter", sa.Column("dimensions", JSONB, server_default=sa.text("'[]'"), nullable=False)
    )
    op.alter_column("meter", "dimensions", server_default=None)


def downgrade() -> None:
    op.drop_column("meter", "dimensions")
