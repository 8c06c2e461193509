"""GraphQL of the taxes: which engine a tenant has chosen."""

from datetime import datetime
from typing import Self

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.relay import Node
from aforo.api.parts.scalars import JSON
from aforo.billing import models, queries
from aforo.tenants.permissions import Permission


@relay.fetched_by(queries.tax_settings_by_id)
@strawberry.type(description="The tax engine that was chosen, with its settings.")
class TaxSettings(Node):
    engine: str = strawberry.field(description="Key of the tax engine.")
    settings: JSON = strawberry.field(description="Its settings, complete.")
    created_at: datetime = strawberry.field(description="In force from this moment on.")

    @classmethod
    def from_row(cls, row: models.TaxSettings) -> Self:
        return cls(
            id=relay.global_id("TaxSettings", row.id),
            engine=row.engine,
            settings=JSON(row.settings),
            created_at=row.created_at,
        )


@strawberry.type
class TaxQuery:
    @field("The tax engine in force; null where none was chosen.", needs=Permission.BILLING_READ)
    async def tax_settings(self, info: Info) -> TaxSettings | None:
        async with info.context.scope() as scope:
            row = await queries.tax_settings(scope)
        return None if row is None else TaxSettings.from_row(row)
