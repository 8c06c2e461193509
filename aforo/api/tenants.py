"""GraphQL of the tenants: who calls, and the API keys."""

from datetime import datetime
from typing import Annotated, Self

import strawberry

from aforo.api import relay
from aforo.api.context import Info
from aforo.api.fields import field, mutation, publish_enum
from aforo.api.permissions import OPEN
from aforo.api.problems import InvalidProblem, NotFoundProblem
from aforo.api.relay import PAGE_DEFAULT, After, Connection, First, Node
from aforo.tenants import commands, models, queries
from aforo.tenants.models import Environment
from aforo.tenants.permissions import Permission

publish_enum(
    Environment,
    "Whether a tenant's numbers are real money.",
    LIVE="They are.",
    TEST="They are for trying things out.",
)
publish_enum(
    Permission,
    "What a caller may do. To read the thing that one's own change gives back needs nothing more.",
    ACCESS_READ="Read members, their roles, and API keys.",
    ACCESS_WRITE="Change members, their roles, and API keys.",
    CATALOG_READ="Read products, meters, cost rates, rate plans, entitlements and offerings.",
    CATALOG_WRITE="Change products, meters, cost rates, rate plans, entitlements and offerings.",
    CUSTOMERS_READ="Read customers, what is below them, and subscriptions.",
    CUSTOMERS_WRITE="Change customers, what is below them, and subscriptions.",
    USAGE_READ="Read events, usage, what is quarantined, and quotas.",
    USAGE_WRITE="Change what became of events.",
    BILLING_READ="Read invoices, bill runs, wallets, taxes and discounts.",
    BILLING_WRITE="Run billing, and change wallets, taxes and discounts.",
    SIGNALS_READ="Read signals, settings of detectors, and actions.",
    SIGNALS_WRITE="Change settings of detectors, and decide on actions.",
    REPORTS_READ="Read revenue, cost and margin.",
    WEBHOOKS_READ="Read webhook endpoints and their deliveries.",
    WEBHOOKS_WRITE="Change webhook endpoints, and send again.",
    AUDIT_READ="Read who did what.",
    INGEST="Send usage events.",
    CHECK="Ask whether a customer may use something.",
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


@relay.fetched_by(queries.api_keys_by_id)
@strawberry.type(description="One of the tenant's keys for this API. The secret is not kept.")
class ApiKey(Node):
    name: str = strawberry.field(description="What the key is for.")
    public_id: str = strawberry.field(description="The part of the key that may be shown.")
    scopes: list[Permission] = strawberry.field(description="What the key may do.")
    created_at: datetime = strawberry.field(description="When it was created.")
    expires_at: datetime | None = strawberry.field(description="From when on it is refused.")
    revoked_at: datetime | None = strawberry.field(description="Since when it is refused.")

    @classmethod
    def from_row(cls, row: models.ApiKey) -> Self:
        return cls(
            id=relay.global_id("ApiKey", row.id),
            name=row.name,
            public_id=row.public_id,
            scopes=[Permission(scope) for scope in row.scopes],
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )


@strawberry.type(description="A new API key, with the only sight of its token.")
class NewApiKey:
    api_key: ApiKey = strawberry.field(description="The key.")
    token: str = strawberry.field(
        description="What callers send. Keep it now: it cannot be shown again."
    )


@strawberry.input(description="A new API key.")
class CreateApiKeyInput:
    name: str = strawberry.field(description="What the key is for.")
    scopes: list[Permission] = strawberry.field(description="What the key may do, at least one.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="From when on it is refused; never if not given."
    )


@strawberry.input(description="An API key to end.")
class RevokeApiKeyInput:
    api_key_id: strawberry.ID = strawberry.field(description="The key's id.")


CreateApiKeyResult = Annotated[
    NewApiKey | InvalidProblem,
    strawberry.union("CreateApiKeyResult", description="The new key, or why there is none."),
]
RevokeApiKeyResult = Annotated[
    ApiKey | InvalidProblem | NotFoundProblem,
    strawberry.union("RevokeApiKeyResult", description="The ended key, or why it is not."),
]


@strawberry.type
class TenantQuery:
    @field("The tenant that the API key belongs to.", needs=OPEN)
    async def tenant(self, info: Info) -> Tenant:
        async with info.context.scope() as scope:
            return Tenant.from_row(await queries.tenant(scope))

    @field("The tenant's API keys, oldest first.", needs=Permission.ACCESS_READ)
    async def api_keys(
        self, info: Info, first: First = PAGE_DEFAULT, after: After = None
    ) -> Connection[ApiKey]:
        page = relay.page(first, after)
        async with info.context.scope() as scope:
            rows = await queries.api_keys(scope, after=page.after_id, first=page.rows)
        return relay.connection(rows, page, ApiKey.from_row)


@strawberry.type
class TenantMutation:
    @mutation("Create an API key; its token is shown this once.", needs=Permission.ACCESS_WRITE)
    async def create_api_key(self, info: Info, input: CreateApiKeyInput) -> CreateApiKeyResult:
        async with info.context.scope() as scope:
            key = await commands.create_api_key(
                scope,
                name=input.name,
                scopes=input.scopes,
                pepper=info.context.runtime.settings.key_pepper,
                expires_at=input.expires_at,
                granted_by=info.context.caller.permissions,
            )
        return NewApiKey(api_key=ApiKey.from_row(key.row), token=key.token)

    @mutation(
        "End an API key for good; streams that it opened end within 5 seconds.",
        needs=Permission.ACCESS_WRITE,
    )
    async def revoke_api_key(self, info: Info, input: RevokeApiKeyInput) -> RevokeApiKeyResult:
        async with info.context.scope() as scope:
            row = await commands.revoke_api_key(
                scope,
                api_key_id=relay.local_id("ApiKey", input.api_key_id, field="apiKeyId"),
            )
        return ApiKey.from_row(row)
