"""GraphQL of what an API key, or the whole tenant, may send."""

from typing import Annotated, Self
from uuid import UUID

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation
from aforo.api.parts.problems import InvalidProblem, NotFoundProblem
from aforo.api.protocol.rates import installation
from aforo.callers import commands, queries
from aforo.callers.queries import Policy
from aforo.sdk.errors import NotFound
from aforo.settings import Settings
from aforo.storage.scope import Scope
from aforo.tenants.permissions import Permission
from aforo.tenants.queries import api_keys_by_id


@strawberry.type(description="What an API key may send.")
class ApiPolicy:
    points_per_second: int = strawberry.field(
        description="What its operations may cost per second, and ten times that at once."
    )
    events_per_second: int = strawberry.field(
        description="How many events it may send per second, and ten times that at once."
    )
    only_persisted: bool = strawberry.field(
        description="Whether it may run persisted documents alone."
    )

    @classmethod
    def of(cls, policy: Policy, settings: Settings) -> Self:
        whole = policy.or_else(installation(settings))
        assert whole.points_per_second is not None, "the installation says"
        assert whole.events_per_second is not None, "the installation says"
        return cls(
            points_per_second=whole.points_per_second,
            events_per_second=whole.events_per_second,
            only_persisted=bool(whole.only_persisted),
        )


@strawberry.input(
    description="What an API key, or every key of the tenant, may send. What is null is unset: for "
    "a key the tenant's holds then, for the tenant the installation's."
)
class SetApiPolicyInput:
    api_key_id: strawberry.ID | None = strawberry.field(
        default=None, description="The key's id; null for the whole tenant."
    )
    points_per_second: int | None = strawberry.field(
        default=None, description="Cost of operations per second; at most the installation's."
    )
    events_per_second: int | None = strawberry.field(
        default=None, description="Events per second; at most the installation's."
    )
    only_persisted: bool | None = strawberry.field(
        default=None, description="Whether documents are taken by their id alone."
    )


SetApiPolicyResult = Annotated[
    ApiPolicy | InvalidProblem | NotFoundProblem,
    strawberry.union("SetApiPolicyResult", description="What holds now, or why nothing was set."),
]


@strawberry.type
class PolicyQuery:
    @field(
        "What an API key may send; without an id, what holds for keys with no setting of their "
        "own. Null if there is no such key.",
        needs=Permission.ACCESS_READ,
    )
    async def api_policy(
        self,
        info: Info,
        api_key_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="The key's id.")
        ] = None,
    ) -> ApiPolicy | None:
        key_id = relay.optional_id("ApiKey", api_key_id, field="apiKeyId")
        async with info.context.scope() as scope:
            if key_id is not None and key_id not in await api_keys_by_id(scope, [key_id]):
                return None
            policy = await queries.policy(scope, key_id or scope.tenant_id)
        return ApiPolicy.of(policy, info.context.runtime.settings)


@strawberry.type
class PolicyMutation:
    @mutation(
        "Set what an API key, or the whole tenant, may send; it holds within a second.",
        needs=Permission.ACCESS_WRITE,
    )
    async def set_api_policy(self, info: Info, input: SetApiPolicyInput) -> SetApiPolicyResult:
        key_id = relay.optional_id("ApiKey", input.api_key_id, field="apiKeyId")
        settings = info.context.runtime.settings
        async with info.context.scope() as scope:
            if key_id is not None:
                await _demand_key(scope, key_id)
            await commands.set_policy(
                scope,
                key_id or scope.tenant_id,
                Policy(input.points_per_second, input.events_per_second, input.only_persisted),
                at_most=installation(settings),
            )
            policy = await queries.policy(scope, key_id or scope.tenant_id)
        return ApiPolicy.of(policy, settings)


async def _demand_key(scope: Scope, key_id: UUID) -> None:
    if key_id not in await api_keys_by_id(scope, [key_id]):
        raise NotFound("there is no such API key", field="apiKeyId")
