"""What every migration needs: tables of a tenant, their row security, and grants."""

import sqlalchemy as sa
from alembic import op

APP_ROLE = "aforo_app"
SYSTEM_ROLE = "aforo_system"

TENANT = "current_setting('aforo.tenant_id')::uuid"
CUSTOMER = "(SELECT current_setting('aforo.customer_id'))"
"""Asked for once per statement. What is neither set nor `everyone` is nobody."""
NOW = "current_setting('aforo.now')::timestamptz"

APPEND_ONLY = "SELECT, INSERT"
CHANGING = "SELECT, INSERT, UPDATE"
"""Also for rows that are only locked: PostgreSQL asks for the same right."""
REPLACED = "SELECT, INSERT, DELETE"


def create_tenant_table(name: str, *items: sa.schema.SchemaItem, grant: str = APPEND_ONLY) -> None:
    """Create a table of rows with `tenant_id`, `id` and `created_at`, walled per tenant."""
    op.create_table(
        name,
        tenant_column(),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text(NOW),
            nullable=False,
        ),
        *items,
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    wall(name, grant=grant)


def tenant_column() -> sa.Column[object]:
    """The tenant of a row, taken from the transaction where the writer does not say."""
    return sa.Column("tenant_id", sa.Uuid, server_default=sa.text(TENANT), nullable=False)


def wall(name: str, *, grant: str = APPEND_ONLY) -> None:
    """Show and accept only rows of the tenant in scope, also to the table's owner.

    Without a scope `current_setting` raises: a forgotten scope fails, it never leaks.
    """
    op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON {name} TO {APP_ROLE} USING (tenant_id = {TENANT})")
    op.execute(f"GRANT {grant} ON {name} TO {APP_ROLE}")
    wall_customers(name)


def wall_customers(name: str, *, inside: str = "false") -> None:
    """Let the scope of one customer see only the rows that are `inside`; no row if not given.

    The second wall of a portal, restrictive beside the tenant's. The first is `__portal__` of the
    table's class.
    """
    op.execute(f"DROP POLICY IF EXISTS customer ON {name}")
    op.execute(
        f"CREATE POLICY customer ON {name} AS RESTRICTIVE TO {APP_ROLE} "
        f"USING ({CUSTOMER} = 'everyone' OR {inside})"
    )


def open_to_system(name: str, *, grant: str) -> None:
    """Let the system role work on a table across tenants."""
    op.execute(f"CREATE POLICY across_tenants ON {name} TO {SYSTEM_ROLE} USING (true)")
    op.execute(f"GRANT {grant} ON {name} TO {SYSTEM_ROLE}")


def belongs_to(table: str, column: str) -> sa.ForeignKeyConstraint:
    """A foreign key within one tenant."""
    return sa.ForeignKeyConstraint(
        ["tenant_id", column], [f"{table}.tenant_id", f"{table}.id"], name=f"{column}_fkey"
    )
