"""Tables of the restraints that customers are under."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from aforo.storage.tables import TenantTable, belongs_to, choice, json, moment


class RestraintKind(StrEnum):
    """What a restraint does."""

    THROTTLE = "THROTTLE"
    BLOCK = "BLOCK"


class Restraint(TenantTable, table=True):
    """A customer is throttled or blocked until somebody releases it, or until its time is over."""

    __tablename__ = "restraint"
    __table_args__ = (
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("tenant_id", "customer_id", "kind"),
    )

    customer_id: UUID
    kind: RestraintKind = choice(RestraintKind)
    reason: str
    until: datetime | None = moment(default=None)
    percent: int | None = None
    """Of the usual rate, which a throttle leaves."""
    rates: dict[str, Any] = json(default_factory=dict)
    """Units per second by meter, as they were in the peak minute of the week before."""
