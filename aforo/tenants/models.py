"""Tables of the tenants and their API keys."""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field

from aforo.storage.tables import NOW_DEFAULT, TenantRow, TenantTable, choice, moment


class Environment(StrEnum):
    """Whether a tenant's numbers are real money."""

    LIVE = "live"
    TEST = "test"


class Tenant(TenantRow, table=True):
    """The operator: the company that runs its monetization on Aforo."""

    __tablename__ = "tenant"

    name: str
    environment: Environment = choice(Environment)
    created_at: datetime = moment(default=None, sa_column_kwargs={"server_default": NOW_DEFAULT})


class ApiKey(TenantTable, table=True):
    """One of the tenant's own keys for this API. The secret itself is never stored."""

    __tablename__ = "api_key"
    __table_args__ = (sa.UniqueConstraint("public_id"),)

    public_id: str = Field(max_length=32)
    """The part of the key that may be shown; unique over all tenants."""
    secret_hash: bytes
    """HMAC-SHA256 of the secret under the installation's pepper."""
    name: str
    scopes: list[str] = Field(sa_type=ARRAY(sa.String))
    """Values of `Permission`."""
    expires_at: datetime | None = moment(default=None)
    revoked_at: datetime | None = moment(default=None)
    last_used_at: datetime | None = moment(default=None)
    """To the minute: it is written at most so often."""
    previous_secret_hash: bytes | None = None
    """Of the secret before the last rotation,"""
    previous_until: datetime | None = moment(default=None)
    """which is good until then."""
