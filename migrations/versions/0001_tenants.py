"""Tenants, API keys and jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from migrations.tenancy import (
    APP_ROLE,
    CHANGING,
    NOW,
    SYSTEM_ROLE,
    create_tenant_table,
    open_to_system,
    tenant_column,
    wall,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = ("tenant", "api_key", "job")


def upgrade() -> None:
    for role in (APP_ROLE, SYSTEM_ROLE):
        # Roles belong to the whole server, so another database of it may have made them.
        op.execute(
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; "
            "EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
        op.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    op.create_table(
        "tenant",
        tenant_column(),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("environment", sa.String(32), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text(NOW), nullable=False
        ),
        sa.PrimaryKeyConstraint("tenant_id"),
    )
    wall("tenant")
    create_tenant_table(
        "api_key",
        sa.Column("public_id", sa.String(32), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("scopes", ARRAY(sa.String), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.UniqueConstraint("public_id"),
        grant=CHANGING,
    )
    # A request names its tenant by its key, so the key is read before there is a scope.
    open_to_system("api_key", grant="SELECT")
    create_tenant_table(
        "job",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("arguments", JSONB, nullable=False),
        sa.Column("unique_key", sa.String, nullable=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", sa.String, nullable=True),
        grant=CHANGING,
    )
    op.create_index(
        "job_due", "job", ["run_at"], postgresql_where=sa.text("state IN ('QUEUED', 'RUNNING')")
    )
    op.create_index(
        "job_once",
        "job",
        ["tenant_id", "name", "unique_key"],
        unique=True,
        postgresql_where=sa.text("state = 'QUEUED'"),
    )
    open_to_system("job", grant=CHANGING)
    op.execute(
        "CREATE FUNCTION tell_workers() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_notify('aforo_jobs', ''); RETURN NULL; END $$"
    )
    op.execute(
        "CREATE TRIGGER tell_workers AFTER INSERT ON job "
        "FOR EACH STATEMENT EXECUTE FUNCTION tell_workers()"
    )


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
    op.execute("DROP FUNCTION tell_workers()")
    for role in (APP_ROLE, SYSTEM_ROLE):
        op.execute(f"REVOKE USAGE ON SCHEMA public FROM {role}")
