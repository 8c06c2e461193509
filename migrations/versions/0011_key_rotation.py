"""API keys: when they were last used, and the secret before the last rotation."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("api_key", sa.Column("last_used_at", MOMENT, nullable=True))
    op.add_column("api_key", sa.Column("previous_secret_hash", sa.LargeBinary, nullable=True))
    op.add_column("api_key", sa.Column("previous_until", MOMENT, nullable=True))


def downgrade() -> None:
    for name in ("previous_until", "previous_secret_hash", "last_used_at"):
        op.drop_column("api_key", name)
