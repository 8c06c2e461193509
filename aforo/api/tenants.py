"""GraphQL of the tenants: who calls."""

from datetime import datetime
from typing import Self

import strawberry

from aforo.api import relay
from aforo.api.context import Info
from aforo.api.fields import field, publish_enum
from aforo.api.permissions import OPEN
from aforo.api.relay import Node
from aforo.tenants import models, queries
from aforo.tenants.models import Environment

publish_enum(
    Environment,
    "Whether a tenant's numbers are real money.",
    LIVE="They are.",
    TEST="They are for trying things out.",
)


@relay.fetched_by(queries.tenants_by_id)
@strawberry.type(description="The company that runs its monetization on Aforo: the caller.")
class Tenant(Node):
    name: str = strawberry.field(description="The company's name.")
    environment: Environment = strawberry.field(description="Whether its numbers are real money.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Tenant) -> Self:
        return cls(
            id=relay.global_id("Tenant", row.tenant_id),
            name=row.name,
            environment=row.environment,
            created_at=row.created_at,
        )


@strawberry.type
class TenantQuery:
    @field("The tenant that the API key belongs to.", needs=OPEN)
    async def tenant(self, info: Info) -> Tenant:
        async with info.context.scope() as scope:
            return Tenant.from_row(await queries.tenant(scope))
