"""Deliveries by type, and jobs that are done and old are forgotten."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import SYSTEM_ROLE

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("webhook_delivery_by_type", "webhook_delivery", ["tenant_id", "type", "id"])
    op.create_index("job_done", "job", ["finished_at"], postgresql_where=sa.text("state = 'DONE'"))
    op.execute(f"GRANT DELETE ON job TO {SYSTEM_ROLE}")


def downgrade() -> None:
    op.execute(f"REVOKE DELETE ON job FROM {SYSTEM_ROLE}")
    op.drop_index("job_done")
    op.drop_index("webhook_delivery_by_type")
