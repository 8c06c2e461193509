"""GraphQL of the tenants: who calls, and the sandboxes beside it."""

from datetime import datetime
from typing import Annotated, Self

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation, publish_enum
from aforo.api.parts.permissions import OPEN
from aforo.api.parts.problems import ConflictProblem, InvalidProblem
from aforo.api.parts.relay import Node
from aforo.tenants import commands, models, queries
from aforo.tenants.models import Environment
from aforo.tenants.permissions import Permission
from aforo.tenants.standing import standing

publish_enum(
    Environment,
    "Whether a tenant's numbers are real money.",
    LIVE="They are.",
    TEST="They are for trying things out.",
)


@relay.fetched_by(queries.sandboxes_by_id)
@strawberry.type(
    description="An empty tenant for trying things out, with its own keys; nothing crosses to it."
)
class Sandbox(Node):
    name: str = strawberry.field(description="Its name, unique among the tenant's sandboxes.")
    tenant_id: strawberry.ID = strawberry.field(
        description="The id of its `Tenant`, which only its own keys can read."
    )
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Sandbox) -> Self:
        return cls(
            id=relay.global_id("Sandbox", row.id),
            name=row.name,
            tenant_id=relay.global_id("Tenant", row.sandbox_tenant_id),
            created_at=row.created_at,
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

    @field(f"Its sandboxes, oldest first; at most {commands.SANDBOXES_MAX}, and none of a sandbox.")
    async def sandboxes(self, info: Info) -> list[Sandbox]:
        async with info.context.scope() as scope:
            return [Sandbox.from_row(row) for row in await queries.sandboxes(scope)]


@strawberry.type(description="A new sandbox, with the only sight of the token of its first key.")
class NewSandbox:
    sandbox: Sandbox = strawberry.field(description="The sandbox.")
    token: str = strawberry.field(
        description="Of a key, `afo_test_…`, that may do everything there. Keep it now."
    )


@strawberry.input(description="A new sandbox.")
class CreateSandboxInput:
    name: str = strawberry.field(
        description="Its name, 1 to 200 characters, unique among the tenant's sandboxes."
    )


CreateSandboxResult = Annotated[
    NewSandbox | InvalidProblem | ConflictProblem,
    strawberry.union("CreateSandboxResult", description="The sandbox, or why there is none."),
]


@strawberry.type
class TenantQuery:
    @field("The tenant that the API key belongs to.", needs=OPEN)
    async def tenant(self, info: Info) -> Tenant:
        async with info.context.scope() as scope:
            return Tenant.from_row(await queries.tenant(scope))


@strawberry.type
class TenantMutation:
    @mutation(
        "Make an empty tenant for trying things out, beside this one and apart from it.",
        needs=Permission.ACCESS_WRITE,
    )
    async def create_sandbox(self, info: Info, input: CreateSandboxInput) -> CreateSandboxResult:
        async with info.context.scope() as scope:
            await standing(scope, info.context.caller)
            made = await commands.create_sandbox(info.context.runtime, scope, name=input.name)
        return NewSandbox(sandbox=Sandbox.from_row(made.row), token=made.key.token)
