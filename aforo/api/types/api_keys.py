"""GraphQL of the API keys: what they may do, and how they are made, rotated and ended."""

from datetime import datetime, timedelta
from typing import Annotated, Self

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation, publish_enum
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import After, Connection, First, Node
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants import commands, models, queries
from aforo.tenants.permissions import Permission
from aforo.tenants.standing import standing

OVERLAP_SECONDS = 86_400

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
    CHECK="Ask whether a customer may use something, and hold units of it.",
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
    last_used_at: datetime | None = strawberry.field(
        description="When it was last used, to the minute; null if it never was."
    )
    previous_token_until: datetime | None = strawberry.field(
        description="Until when the token before the last rotation is good; null if there is none."
    )

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
            last_used_at=row.last_used_at,
            previous_token_until=row.previous_until,
        )

    @field("How its tokens begin, such as `afo_live_0123456789abcdef`.")
    def prefix(self, info: Info) -> str:
        return f"afo_{info.context.caller.environment.value}_{self.public_id}"


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


@strawberry.input(description="An API key to give a new token.")
class RotateApiKeyInput:
    api_key_id: strawberry.ID = strawberry.field(description="The key's id.")
    overlap_seconds: int = strawberry.field(
        default=OVERLAP_SECONDS,
        description="How long the token before it stays good, at most 604,800 (7 days).",
    )


CreateApiKeyResult = Annotated[
    NewApiKey | InvalidProblem,
    strawberry.union("CreateApiKeyResult", description="The new key, or why there is none."),
]
RotateApiKeyResult = Annotated[
    NewApiKey | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("RotateApiKeyResult", description="The key's new token, or why not."),
]
RevokeApiKeyResult = Annotated[
    ApiKey | InvalidProblem | NotFoundProblem,
    strawberry.union("RevokeApiKeyResult", description="The ended key, or why it is not."),
]


@strawberry.type
class ApiKeyQuery:
    @field("The tenant's API keys.", needs=Permission.ACCESS_READ)
    async def api_keys(
        self,
        info: Info,
        *,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[ApiKey]:
        listing = queries.api_keys(order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=ApiKey.from_row
        )


@strawberry.type
class ApiKeyMutation:
    @mutation("Create an API key; its token is shown this once.", needs=Permission.ACCESS_WRITE)
    async def create_api_key(self, info: Info, input: CreateApiKeyInput) -> CreateApiKeyResult:
        async with info.context.scope() as scope:
            granter = await standing(scope, info.context.caller)
            key = await commands.create_api_key(
                scope,
                name=input.name,
                scopes=input.scopes,
                pepper=info.context.runtime.settings.key_pepper,
                expires_at=input.expires_at,
                granted_by=granter.permissions,
            )
        return NewApiKey(api_key=ApiKey.from_row(key.row), token=key.token)

    @mutation(
        "Give an API key a new token, shown this once; the one before stays good for a while. "
        "Rotate again and only the last two are left.",
        needs=Permission.ACCESS_WRITE,
    )
    async def rotate_api_key(self, info: Info, input: RotateApiKeyInput) -> RotateApiKeyResult:
        async with info.context.scope() as scope:
            granter = await standing(scope, info.context.caller)
            key = await commands.rotate_api_key(
                scope,
                api_key_id=relay.local_id("ApiKey", input.api_key_id, field="apiKeyId"),
                overlap=timedelta(seconds=input.overlap_seconds),
                pepper=info.context.runtime.settings.key_pepper,
                granted_by=granter.permissions,
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
