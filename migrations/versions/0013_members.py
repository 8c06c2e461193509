"""Accounts, members, invitations and sessions of people; the counts of their sign-ins."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from migrations.tenancy import (
    APP_ROLE,
    CHANGING,
    belongs_to,
    create_tenant_table,
    open_to_system,
)

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = ("account", "member", "invitation", "member_session", "sign_in_count")

ACCOUNT = "nullif(current_setting('aforo.account_id', true), '')::uuid"


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("password_hash", sa.String, nullable=False),
        sa.Column("password_version", sa.Integer, nullable=False),
        sa.Column("data_key", sa.LargeBinary, nullable=False),
        sa.Column("totp_secret", sa.LargeBinary, nullable=True),
        sa.Column("totp_confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("totp_step", sa.BigInteger, nullable=False),
        sa.Column("recovery_hashes", ARRAY(sa.LargeBinary), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("email"),
    )
    op.execute("ALTER TABLE account ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE account FORCE ROW LEVEL SECURITY")
    # Without an account in the transaction this raises: a forgotten door fails, it never leaks.
    own = "id = current_setting('aforo.account_id')::uuid"
    op.execute(f"CREATE POLICY own_account ON account TO {APP_ROLE} USING ({own})")
    op.execute(f"GRANT {CHANGING} ON account TO {APP_ROLE}")
    # Who signs in names his account by an address, so it is read before there is a scope.
    open_to_system("account", grant="SELECT")
    create_tenant_table(
        "member",
        sa.Column("email", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="account_id_fkey"),
        sa.UniqueConstraint("tenant_id", "email"),
        sa.UniqueConstraint("tenant_id", "account_id"),
        grant=CHANGING,
    )
    op.create_index("member_by_account", "member", ["account_id"])
    _show_to_its_account("member", f"account_id = {ACCOUNT}")
    _show_to_its_account(
        "tenant",
        "EXISTS (SELECT FROM member "
        f"WHERE member.tenant_id = tenant.tenant_id AND member.account_id = {ACCOUNT})",
    )
    create_tenant_table(
        "invitation",
        sa.Column("email", sa.String, nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.UniqueConstraint("tenant_id", "token_hash"),
        grant=CHANGING,
    )
    op.create_index("invitation_by_email", "invitation", ["tenant_id", "email"])
    _create_sessions()
    _create_counts()


def _create_sessions() -> None:
    create_tenant_table(
        "member_session",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=True),
        sa.Column("method", sa.String(32), nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("user_agent", sa.String, nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        belongs_to("member", "member_id"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="account_id_fkey"),
        sa.UniqueConstraint("tenant_id", "token_hash"),
        grant="SELECT, INSERT, UPDATE, DELETE",
    )
    op.create_index("member_session_by_member", "member_session", ["tenant_id", "member_id"])
    op.create_index("member_session_by_account", "member_session", ["account_id"])
    _show_to_its_account("member_session", f"account_id = {ACCOUNT}")
    # A changed password ends the sessions of its account in every tenant, in one transaction.
    op.execute(
        f"CREATE POLICY end_of_account ON member_session FOR UPDATE TO {APP_ROLE} "
        f"USING (account_id = {ACCOUNT})"
    )


def _create_counts() -> None:
    op.create_table(
        "sign_in_count",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("bucket", sa.Integer, nullable=False),
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tried", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("kind", "bucket"),
    )
    op.execute("ALTER TABLE sign_in_count ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE sign_in_count FORCE ROW LEVEL SECURITY")
    open_to_system("sign_in_count", grant=CHANGING)


def _show_to_its_account(table: str, where: str) -> None:
    op.execute(f"CREATE POLICY own_account ON {table} FOR SELECT TO {APP_ROLE} USING ({where})")


def downgrade() -> None:
    for table in ("tenant", "member"):
        op.execute(f"DROP POLICY own_account ON {table}")
    for name in reversed(TABLES):
        op.drop_table(name)
