"""Tables of the tenants, their API keys and their members."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from aforo.storage.tables import (
    NOW_DEFAULT,
    SHARED,
    TenantRow,
    TenantTable,
    belongs_to,
    choice,
    hidden,
    moment,
    new_id,
)
from aforo.tenants.permissions import Role


class Environment(StrEnum):
    """Whether a tenant's numbers are real money."""

    LIVE = "live"
    TEST = "test"


class Tenant(TenantRow, table=True):
    """The operator: the company that runs its monetization on Aforo."""

    __tablename__ = "tenant"
    __portal__ = SHARED

    name: str
    environment: Environment = choice(Environment)
    created_at: datetime = moment(default=None, sa_column_kwargs={"server_default": NOW_DEFAULT})
    live_tenant_id: UUID | None = None
    """Of a sandbox that a tenant made: which tenant. Nothing is read or written across it."""


class Sandbox(TenantTable, table=True):
    """What a live tenant knows of a sandbox of its own: that there is one."""

    __tablename__ = "sandbox"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "name"),)

    name: str
    sandbox_tenant_id: UUID


class ApiKey(TenantTable, table=True):
    """One of the tenant's own keys for this API. The secret itself is never stored."""

    __tablename__ = "api_key"
    __table_args__ = (sa.UniqueConstraint("public_id"),)

    public_id: str = Field(max_length=32)
    """The part of the key that may be shown; unique over all tenants."""
    secret_hash: bytes = hidden()
    """HMAC-SHA256 of the secret under the installation's pepper."""
    name: str
    scopes: list[str] = Field(sa_type=ARRAY(sa.String))
    """Values of `Permission`."""
    expires_at: datetime | None = moment(default=None)
    revoked_at: datetime | None = moment(default=None)
    last_used_at: datetime | None = moment(default=None)
    """To the minute: it is written at most so often."""
    previous_secret_hash: bytes | None = hidden(default=None)
    """Of the secret before the last rotation,"""
    previous_until: datetime | None = moment(default=None)
    """which is good until then."""


class MemberState(StrEnum):
    """Whether a member may sign in."""

    ACTIVE = "active"
    REMOVED = "removed"


class SignInMethod(StrEnum):
    """How a session began."""

    PASSWORD = "password"  # noqa: S105 — the name of a way, and no password.
    OIDC = "oidc"


class Account(SQLModel, table=True):
    """Who signs in by password: one person, of however many tenants. It is no tenant's.

    Nobody but the person himself changes it: neither a tenant nor its identity provider can, for
    they would get at the person's other tenants.
    """

    __tablename__ = "account"
    __table_args__ = (sa.UniqueConstraint("email"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    created_at: datetime = moment()
    email: str
    password_hash: str
    password_version: int
    """Counts its changes; what was signed under an earlier one is void."""
    data_key: bytes
    """Wrapped by the master key; seals the secret of the codes."""
    totp_secret: bytes | None = None
    totp_confirmed_at: datetime | None = moment(default=None)
    totp_step: int = Field(default=0, sa_type=sa.BigInteger)
    """The last half minute whose code was used: no code is taken twice."""
    recovery_hashes: list[bytes] = Field(default_factory=list, sa_type=ARRAY(sa.LargeBinary))


class Member(TenantTable, table=True):
    """A person in a tenant, with a role there."""

    __tablename__ = "member"
    __table_args__ = (
        sa.UniqueConstraint("tenant_id", "email"),
        sa.UniqueConstraint("tenant_id", "account_id"),
        sa.Index("member_by_account", "account_id"),
    )

    email: str
    name: str
    role: Role = choice(Role)
    state: MemberState = choice(MemberState)
    account_id: UUID | None = Field(default=None, foreign_key="account.id")
    """By whose password this membership may be entered; None for one that only OIDC opens."""


class Invitation(TenantTable, table=True):
    """An offer of membership to an e-mail address. Its token is stored hashed."""

    __tablename__ = "invitation"
    __table_args__ = (
        sa.UniqueConstraint("tenant_id", "token_hash"),
        sa.Index("invitation_by_email", "tenant_id", "email"),
    )

    email: str
    role: Role = choice(Role)
    token_hash: bytes = hidden()
    expires_at: datetime = moment()
    accepted_at: datetime | None = moment(default=None)
    revoked_at: datetime | None = moment(default=None)


class MemberSession(TenantTable, table=True):
    """A browser in which a member is signed in. Its token is stored hashed."""

    __tablename__ = "member_session"
    __table_args__ = (
        belongs_to("member", "member_id"),
        sa.UniqueConstraint("tenant_id", "token_hash"),
        sa.Index("member_session_by_member", "tenant_id", "member_id"),
        sa.Index("member_session_by_account", "account_id"),
    )

    member_id: UUID
    account_id: UUID | None = Field(default=None, foreign_key="account.id")
    """Of a session that began with a password."""
    method: SignInMethod = choice(SignInMethod)
    token_hash: bytes = hidden()
    address: str
    user_agent: str
    last_seen_at: datetime = moment()
    expires_at: datetime = moment()
    ended_at: datetime | None = moment(default=None)


class SignInCount(SQLModel, table=True):
    """How many sign-ins were tried lately, by bucket: of whom is not stored, so the table cannot
    outgrow its number of buckets."""

    __tablename__ = "sign_in_count"

    kind: str = Field(primary_key=True, max_length=16)
    bucket: int = Field(primary_key=True)
    window_start: datetime = moment()
    tried: int


class PortalToken(TenantTable, table=True):
    """What the users of one customer come in with, for a short time. Only a hash is stored."""

    __tablename__ = "portal_token"
    __table_args__ = (
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("public_id"),
        sa.Index("portal_token_by_customer", "tenant_id", "customer_id", "expires_at"),
    )

    customer_id: UUID
    environment: Environment = choice(Environment)
    """The tenant's, which is not known yet when a token is looked up."""
    public_id: str = Field(max_length=32)
    secret_hash: bytes = hidden()
    expires_at: datetime = moment()
    revoked_at: datetime | None = moment(default=None)


class IdentityProvider(TenantTable, table=True):
    """The OpenID provider whose word the tenant takes for who its people are; at most one."""

    __tablename__ = "identity_provider"
    __table_args__ = (sa.UniqueConstraint("tenant_id"),)

    issuer: str
    client_id: str
    client_secret: bytes = hidden()
    """Sealed under the tenant's data key."""
    domains: list[str] = Field(sa_type=ARRAY(sa.String))
    """Of the e-mail addresses that it speaks for."""
    default_role: Role | None = choice(Role, default=None, nullable=True)
    """Of those who come without an invitation; None where nobody does."""


class ExternalLogin(TenantTable, table=True):
    """A person at an identity provider, and the member whom that person is."""

    __tablename__ = "external_login"
    __table_args__ = (
        belongs_to("member", "member_id"),
        sa.UniqueConstraint("tenant_id", "issuer", "subject"),
        sa.UniqueConstraint("tenant_id", "member_id", "issuer"),
    )

    member_id: UUID
    issuer: str
    subject: str


class UsedState(TenantTable, table=True):
    """A sign-in at a provider that was finished: its state is not taken twice."""

    __tablename__ = "used_state"
    is_audited: ClassVar[bool] = False
    __table_args__ = (sa.UniqueConstraint("tenant_id", "state_hash"),)

    state_hash: bytes = hidden()
    expires_at: datetime = moment()
