"""What every table of a tenant has in common."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel
from uuid_utils import compat

TENANT_DEFAULT = sa.text("current_setting('aforo.tenant_id')::uuid")
NOW_DEFAULT = sa.text("current_setting('aforo.now')::timestamptz")


@dataclass(frozen=True, slots=True)
class Portal:
    """Which rows of a table are in the scope of one customer.

    Those whose `column` is the customer; or those whose `column` is the `of` of a row of another
    `table` that is in scope; or, without a column, all of them or none.
    """

    column: str | None = None
    table: str | None = None
    of: str = "id"
    shows_all: bool = False


HIDDEN = Portal()
"""None: what is the tenant's own affair, and what nobody thought about."""
SHARED = Portal(shows_all=True)
"""All: what is no customer's."""
BY_CUSTOMER = Portal("customer_id")


def new_id() -> UUID:
    """A UUIDv7: ids sort in the order in which they were made."""
    return compat.uuid7()


class TenantRow(SQLModel):
    """A row that belongs to one tenant; its key starts with the tenant.

    `__portal__` says which of a table's rows the scope of one customer sees.

    The scope fills the tenant in; the database's own default takes it from the scope's
    transaction, so a row written past the session gets the same.
    """

    __portal__: ClassVar[Portal] = HIDDEN
    is_audited: ClassVar[bool] = True
    """Whether the audit log shows what a person or a key changes of it."""

    tenant_id: UUID = Field(
        default=None, primary_key=True, sa_column_kwargs={"server_default": TENANT_DEFAULT}
    )


class TenantTable(TenantRow):
    """A tenant's row with an id of its own, and the moment of the scope that wrote it."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    created_at: datetime = Field(
        default=None,
        sa_type=sa.DateTime(timezone=True),
        sa_column_kwargs={"server_default": NOW_DEFAULT},
    )


def moment(**options: Any) -> Any:
    """A column that holds a moment in UTC."""
    return Field(sa_type=sa.DateTime(timezone=True), **options)


def exact(**options: Any) -> Any:
    """A column that holds a decimal of any size, unrounded."""
    return Field(sa_type=sa.Numeric(), **options)


def json(**options: Any) -> Any:
    """A column that holds a JSON value."""
    return Field(sa_type=JSONB, **options)


def hidden(**options: Any) -> Any:
    """A column that holds a secret, also a hashed or sealed one: the audit log does not show it."""
    return Field(sa_column_kwargs={"info": {"secret": True}}, **options)


def choice(kind: type[Enum], **options: Any) -> Any:
    """A column that holds one of the values of an enumeration, by its name."""
    return Field(sa_type=sa.Enum(kind, native_enum=False, length=32), **options)


def belongs_to(table: str, *columns: str) -> sa.ForeignKeyConstraint:
    """A foreign key within one tenant. PostgreSQL checks keys past row security, so the
    tenant has to be part of the key itself."""
    return sa.ForeignKeyConstraint(
        ["tenant_id", *columns], [f"{table}.tenant_id", f"{table}.id"], name=f"{columns[0]}_fkey"
    )
