"""Tables of the callers' policies and of the tenant's persisted documents."""

import sqlalchemy as sa
from sqlmodel import Field

from aforo.storage.tables import TenantTable


class ApiPolicy(TenantTable, table=True):
    """What one API key may send, or all of a tenant's: its id is the key's or the tenant's."""

    __tablename__ = "api_policy"

    points_per_second: int | None = None
    """Of the cost of operations; None for what holds for the tenant, or the installation."""
    events_per_second: int | None = None
    only_persisted: bool | None = None
    """Whether documents are taken by their id alone."""


class PersistedDocument(TenantTable, table=True):
    """A document that clients name by an id instead of sending it."""

    __tablename__ = "persisted_document"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "document_id"),)

    document_id: str = Field(max_length=128)
    text: str
