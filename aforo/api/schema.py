"""The GraphQL schema: one file per package, put together here."""

from typing import Annotated

import strawberry
from strawberry.schema.config import StrawberryConfig

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.permissions import OPEN, undeclared
from aforo.api.parts.portal import strangers
from aforo.api.parts.relay import NODES_MAX, Node
from aforo.api.parts.scalars import SCALARS
from aforo.api.types.actions import ActionQuery, ActionSubscription
from aforo.api.types.aliases import AliasMutation
from aforo.api.types.api_keys import ApiKeyMutation, ApiKeyQuery
from aforo.api.types.audit import AuditQuery
from aforo.api.types.backfills import BackfillMutation, BackfillQuery
from aforo.api.types.billing import BillingQuery
from aforo.api.types.billing_changes import BillingMutation
from aforo.api.types.billing_streams import BillingSubscription
from aforo.api.types.catalog_changes import CatalogMutation
from aforo.api.types.catalog_lists import CatalogQuery
from aforo.api.types.conservation import ConservationQuery
from aforo.api.types.identity_provider import IdentityProviderMutation, IdentityProviderQuery
from aforo.api.types.ingestion import IngestionMutation
from aforo.api.types.kpis import ReportSubscription
from aforo.api.types.live_events import LiveEventsSubscription
from aforo.api.types.members import MemberMutation, MemberQuery
from aforo.api.types.metering import MeteringQuery, MeteringSubscription
from aforo.api.types.notifiers import NotifierMutation, NotifierQuery
from aforo.api.types.payments import PaymentMutation, PaymentQuery
from aforo.api.types.persisted import PersistedMutation, PersistedQuery
from aforo.api.types.plugins import PluginQuery
from aforo.api.types.policies import PolicyMutation, PolicyQuery
from aforo.api.types.portal_tokens import PortalMutation, PortalQuery
from aforo.api.types.quarantine import QuarantineMutation, QuarantineQuery
from aforo.api.types.reports import ReportQuery
from aforo.api.types.restraints import RestraintMutation, RestraintQuery
from aforo.api.types.signals import SignalMutation, SignalQuery, SignalSubscription
from aforo.api.types.stages import StageMutation, StageQuery
from aforo.api.types.subscription_changes import SubscriptionMutation
from aforo.api.types.subscription_lists import SubscriptionQuery
from aforo.api.types.suspects import SuspectQuery
from aforo.api.types.taxes import TaxQuery
from aforo.api.types.tenants import TenantMutation, TenantQuery
from aforo.api.types.usage import UsageQuery
from aforo.api.types.wallets import WalletMutation
from aforo.api.types.webhook_changes import WebhookMutation
from aforo.api.types.webhooks import WebhookQuery


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
    BackfillQuery,
    QuarantineQuery,
    ConservationQuery,
    StageQuery,
    SuspectQuery,
    UsageQuery,
    BillingQuery,
    TaxQuery,
    SignalQuery,
    ActionQuery,
    RestraintQuery,
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
    AliasMutation,
    PortalMutation,
    IngestionMutation,
    BackfillMutation,
    QuarantineMutation,
    StageMutation,
    WalletMutation,
    RestraintMutation,
    BillingMutation,
    SignalMutation,
    WebhookMutation,
)
_SUBSCRIPTIONS = (
    MeteringSubscription,
    LiveEventsSubscription,
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
