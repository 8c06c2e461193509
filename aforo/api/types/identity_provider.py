"""GraphQL of the identity provider: whom the tenant trusts to say who its people are."""

from typing import Annotated, Self

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation
from aforo.api.parts.problems import InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import global_id
from aforo.api.types.roles import Role
from aforo.tenants import models, providers
from aforo.tenants.members import granter_of
from aforo.tenants.permissions import Permission


@strawberry.type(description="The OpenID provider at which the tenant's people sign in.")
class IdentityProvider:
    issuer: str = strawberry.field(description="Its name for itself: the URL of its tokens' `iss`.")
    client_id: str = strawberry.field(description="What it knows this installation as.")
    domains: list[str] = strawberry.field(description="Of the e-mail addresses that it speaks for.")
    default_role: Role | None = strawberry.field(
        description="The role of those who come without an invitation; nobody does where null."
    )
    start_path: str = strawberry.field(
        description="Where a browser begins to sign in; `?returnTo=/path` says where it ends. A "
        "link on a page of another site leads to a page that asks first."
    )
    callback_path: str = strawberry.field(
        description="Where the provider sends it back: with our origin before it, the redirect URI "
        "to register there."
    )

    @classmethod
    def from_row(cls, row: models.IdentityProvider) -> Self:
        path = f"/auth/oidc/{global_id('Tenant', row.tenant_id)}"
        return cls(
            issuer=row.issuer,
            client_id=row.client_id,
            domains=row.domains,
            default_role=row.default_role,
            start_path=f"{path}/start",
            callback_path=f"{path}/callback",
        )


@strawberry.input(description="The provider to trust, instead of the one before.")
class SetIdentityProviderInput:
    issuer: str = strawberry.field(
        description="Its URL, under which `/.well-known/openid-configuration` is."
    )
    client_id: str = strawberry.field(description="What it knows this installation as.")
    client_secret: str | None = strawberry.field(
        default=None,
        description="What proves that it is this installation; cannot be read again. Left out, "
        "the one before stays, for the same issuer and client.",
    )
    domains: list[str] = strawberry.field(
        description="Of the e-mail addresses that it speaks for, such as `example.com`."
    )
    default_role: Role | None = strawberry.field(
        default=None,
        description="The role of those who come without an invitation, not OWNER.",
    )


@strawberry.input(description="The provider to trust no more.")
class RemoveIdentityProviderInput:
    issuer: str = strawberry.field(description="Its issuer, so that no other one is removed.")


SetIdentityProviderResult = Annotated[
    IdentityProvider | InvalidProblem,
    strawberry.union("SetIdentityProviderResult", description="The provider, or why not."),
]
RemoveIdentityProviderResult = Annotated[
    IdentityProvider | InvalidProblem | NotFoundProblem,
    strawberry.union(
        "RemoveIdentityProviderResult", description="The provider that was, or why it stays."
    ),
]


@strawberry.type
class IdentityProviderQuery:
    @field("The provider at which the tenant's people sign in.", needs=Permission.ACCESS_READ)
    async def identity_provider(self, info: Info) -> IdentityProvider | None:
        async with info.context.scope() as scope:
            row = await providers.identity_provider(scope)
        return IdentityProvider.from_row(row) if row else None


@strawberry.type
class IdentityProviderMutation:
    @mutation(
        "Trust an OpenID provider to say who the tenant's people are; owners alone may. Sessions "
        "that began at another one end.",
        needs=Permission.ACCESS_WRITE,
    )
    async def set_identity_provider(
        self, info: Info, input: SetIdentityProviderInput
    ) -> SetIdentityProviderResult:
        async with info.context.scope() as scope:
            row = await providers.set_identity_provider(
                info.context.runtime,
                scope,
                granter=await granter_of(scope, info.context.caller),
                settings=providers.ProviderSettings(
                    issuer=input.issuer,
                    client_id=input.client_id,
                    client_secret=input.client_secret,
                    domains=input.domains,
                    default_role=input.default_role,
                ),
            )
        return IdentityProvider.from_row(row)

    @mutation(
        "Trust no identity provider any more; owners alone may. Sessions that began there end.",
        needs=Permission.ACCESS_WRITE,
    )
    async def remove_identity_provider(
        self, info: Info, input: RemoveIdentityProviderInput
    ) -> RemoveIdentityProviderResult:
        async with info.context.scope() as scope:
            row = await providers.remove_identity_provider(
                scope, granter=await granter_of(scope, info.context.caller), issuer=input.issuer
            )
        return IdentityProvider.from_row(row)
