"""Identity providers of tenants, who their people are there, and sign-ins that were finished."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from migrations.tenancy import REPLACED, belongs_to, create_tenant_table

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TABLES = ("identity_provider", "external_login", "used_state")


def upgrade() -> None:
    create_tenant_table(
        "identity_provider",
        sa.Column("issuer", sa.String, nullable=False),
        sa.Column("client_id", sa.String, nullable=False),
        sa.Column("client_secret", sa.LargeBinary, nullable=False),
        sa.Column("domains", ARRAY(sa.String), nullable=False),
        sa.Column("default_role", sa.String(32), nullable=True),
        sa.UniqueConstraint("tenant_id"),
        grant="SELECT, INSERT, UPDATE, DELETE",
    )
    create_tenant_table(
        "external_login",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("issuer", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        belongs_to("member", "member_id"),
        sa.UniqueConstraint("tenant_id", "issuer", "subject"),
        sa.UniqueConstraint("tenant_id", "member_id", "issuer"),
        grant=REPLACED,
    )
    create_tenant_table(
        "used_state",
        sa.Column("state_hash", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("tenant_id", "state_hash"),
        grant=REPLACED,
    )


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
