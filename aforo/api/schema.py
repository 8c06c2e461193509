"""The GraphQL schema: one file per package, put together here."""

from typing import Annotated

import strawberry
from strawberry.schema.config import StrawberryConfig

from aforo.api import relay
from aforo.api.actions import ActionQuery, ActionSubscription
from aforo.api.api_keys import ApiKeyMutation, ApiKeyQuery
from aforo.api.audit import AuditQuery
from aforo.api.billing import BillingQuery
from aforo.api.billing_changes import BillingMutation
from aforo.api.billing_streams import BillingSubscription
from aforo.api.catalog_changes import CatalogMutation
from aforo.api.catalog_lists import CatalogQuery
from aforo.api.context import Info
from aforo.api.fields import field
from aforo.api.identity_provider import IdentityProviderMutation, IdentityProviderQuery
from aforo.api.kpis import ReportSubscription
from aforo.api.members import MemberMutation, MemberQuery
from aforo.api.metering import MeteringQuery, MeteringSubscription
from aforo.api.notifiers import NotifierMutation, NotifierQuery
from aforo.api.payments import PaymentMutation, PaymentQuery
from aforo.api.permissions import OPEN, undeclared
from aforo.api.persisted import PersistedMutation, PersistedQuery
from aforo.api.plugins import PluginQuery
from aforo.api.policies import PolicyMutation, PolicyQuery
from aforo.api.portal import strangers
from aforo.api.portal_tokens import PortalMutation, PortalQuery
from aforo.api.relay import NODES_MAX, Node
from aforo.api.reports import ReportQuery
from aforo.api.scalars import SCALARS
from aforo.api.signals import SignalMutation, SignalQuery, SignalSubscription
from aforo.api.subscription_changes import SubscriptionMutation
from aforo.api.subscription_lists import SubscriptionQuery
from aforo.api.taxes import TaxQuery
from aforo.api.tenants import TenantMutation, TenantQuery
from aforo.api.wallets import WalletMutation
from aforo.api.webhook_changes import WebhookMutation
from aforo.api.webhooks import WebhookQuery


@strawberry.type
class NodeQuery:
    @field("The thing with a global id, or null.", needs=OPEN)
    async def node(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="A global id.")],
    ) -> Node | None:
        return await relay.fetch(info.context, id)

    @field("The things with these global ids, each or null, in order.", needs=OPEN)
    async def nodes(
        self,
        info: Info,
        ids: Annotated[
            list[strawberry.ID],
            strawberry.argument(description=f"At most {NODES_MAX} global ids."),
        ],
    ) -> list[Node | None]:
        return await relay.fetch_all(info.context, ids)


def _root(name: str, parts: tuple[type, ...], description: str) -> type:
    return strawberry.type(description=description)(type(name, parts, {}))


_QUERIES = (
    NodeQuery,
    TenantQuery,
    ApiKeyQuery,
    PolicyQuery,
    PersistedQuery,
    MemberQuery,
    IdentityProviderQuery,
    CatalogQuery,
    PaymentQuery,
    NotifierQuery,
    SubscriptionQuery,
    PortalQuery,
    MeteringQuery,
    BillingQuery,
    TaxQuery,
    SignalQuery,
    ActionQuery,
    ReportQuery,
    WebhookQuery,
    PluginQuery,
    AuditQuery,
)
_MUTATIONS = (
    TenantMutation,
    ApiKeyMutation,
    PolicyMutation,
    PersistedMutation,
    MemberMutation,
    IdentityProviderMutation,
    CatalogMutation,
    PaymentMutation,
    NotifierMutation,
    SubscriptionMutation,
    PortalMutation,
    WalletMutation,
    BillingMutation,
    SignalMutation,
    WebhookMutation,
)
_SUBSCRIPTIONS = (
    MeteringSubscription,
    BillingSubscription,
    SignalSubscription,
    ActionSubscription,
    ReportSubscription,
)

schema = strawberry.Schema(
    query=_root("Query", _QUERIES, "What can be read."),
    mutation=_root("Mutation", _MUTATIONS, "What can be changed: each is one transaction."),
    subscription=_root("Subscription", _SUBSCRIPTIONS, "What can be followed live."),
    types=relay.node_types(),
    config=StrawberryConfig(scalar_map=SCALARS),
)

_CORE = schema._schema  # noqa: SLF001 — it has no public name.
_FAULTS = sorted([*undeclared(_CORE), *strangers(_CORE)])
assert not _FAULTS, "; ".join(_FAULTS)


def schema_text() -> str:
    """The schema in GraphQL's own language, as `schema.graphql` holds it."""
    return schema.as_str() + "\n"
