"""How far each partition of the topic of events has been read."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import CHANGING, open_to_system

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "topic_place",
        sa.Column("topic", sa.String(249), nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("read_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition"),
    )
    op.execute("ALTER TABLE topic_place ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE topic_place FORCE ROW LEVEL SECURITY")
    open_to_system("topic_place", grant=CHANGING)


def downgrade() -> None:
    op.drop_table("topic_place")
