"""API keys by permissions: what one of READ, WRITE and INGEST meant, written out by domain."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

READ = (
    "access_read",
    "catalog_read",
    "customers_read",
    "usage_read",
    "billing_read",
    "signals_read",
    "reports_read",
    "webhooks_read",
    "audit_read",
)
WRITE = (
    "access_write",
    "catalog_write",
    "customers_write",
    "usage_write",
    "billing_write",
    "signals_write",
    "webhooks_write",
)


def upgrade() -> None:
    _rewrite(
        _when("'read' = ANY (scopes)", *READ),
        _when("'write' = ANY (scopes)", *WRITE),
        _when("'ingest' = ANY (scopes)", "ingest"),
        # Who could do everything still can.
        _when("scopes @> ARRAY['read', 'write', 'ingest']::varchar[]", "check"),
    )


def downgrade() -> None:
    # Never more than before: the old words are wide, so a key keeps one only if it had all of it.
    _rewrite(
        _when("'ingest' = ANY (scopes)", "ingest"),
        _when(f"scopes @> {_array(READ)}", "read"),
        _when(f"scopes @> {_array(WRITE)}", "write"),
    )


def _rewrite(*parts: str) -> None:
    # The owner of the table is under its wall as well, and a migration is in no tenant's scope.
    op.execute("ALTER TABLE api_key NO FORCE ROW LEVEL SECURITY")
    op.execute(f"UPDATE api_key SET scopes = {' || '.join(parts)}")
    op.execute("ALTER TABLE api_key FORCE ROW LEVEL SECURITY")


def _when(condition: str, *values: str) -> str:
    return f"CASE WHEN {condition} THEN {_array(values)} ELSE '{{}}'::varchar[] END"


def _array(values: tuple[str, ...]) -> str:
    quoted = ", ".join(f"'{value}'" for value in values)
    return f"ARRAY[{quoted}]::varchar[]"
