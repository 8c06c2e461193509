"""Which permission each part of the schema needs, and so which ones a document needs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_named_type,
    is_abstract_type,
)

from aforo.api.parts.portal import is_open
from aforo.tenants.permissions import Permission, read_in


class Open(Enum):
    """Stands where a permission would: whoever is known may."""

    ANYONE = "anyone"


OPEN = Open.ANYONE
NEEDS = "needs"
"""Where the metadata of a field holds its permission."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What an operation needs its caller to have."""

    permissions: Mapping[Permission, str]
    """Each with the path of a field that needs it."""
    outside_portal: str | None
    """The path of a field that no portal token may ask for; None where there is none."""


HERE = "aforo/api/parts/permissions.py"

READ: Mapping[str, Permission] = MappingProxyType(
    {
        "ApiKey": Permission.ACCESS_READ,
        "AuditEntry": Permission.AUDIT_READ,
        "AuditActor": Permission.AUDIT_READ,
        "AuditChange": Permission.AUDIT_READ,
        "NewApiKey": Permission.ACCESS_READ,
        "NewSandbox": Permission.ACCESS_READ,
        "Sandbox": Permission.ACCESS_READ,
        "IdentityProvider": Permission.ACCESS_READ,
        "ApiPolicy": Permission.ACCESS_READ,
        "PersistedDocument": Permission.ACCESS_READ,
        "PersistedDocumentFault": Permission.ACCESS_READ,
        "PersistedDocumentsRemoved": Permission.ACCESS_READ,
        "PersistedDocumentsStored": Permission.ACCESS_READ,
        "Invitation": Permission.ACCESS_READ,
        "Member": Permission.ACCESS_READ,
        "NewInvitation": Permission.ACCESS_READ,
        "PasswordReset": Permission.ACCESS_READ,
        "CostRate": Permission.CATALOG_READ,
        "Entitlement": Permission.CATALOG_READ,
        "Meter": Permission.CATALOG_READ,
        "MeterFilter": Permission.CATALOG_READ,
        "Offering": Permission.CATALOG_READ,
        "PricingModel": Permission.CATALOG_READ,
        "Product": Permission.CATALOG_READ,
        "RatePlan": Permission.CATALOG_READ,
        "RatePlanLine": Permission.CATALOG_READ,
        "Agent": Permission.CUSTOMERS_READ,
        "NewPortalToken": Permission.CUSTOMERS_READ,
        "PortalToken": Permission.CUSTOMERS_READ,
        "Customer": Permission.CUSTOMERS_READ,
        "CustomerAlias": Permission.CUSTOMERS_READ,
        "CustomerKey": Permission.CUSTOMERS_READ,
        "CustomerSubscription": Permission.CUSTOMERS_READ,
        "Restraint": Permission.CUSTOMERS_READ,
        "Team": Permission.CUSTOMERS_READ,
        "Event": Permission.USAGE_READ,
        "EventCorrection": Permission.USAGE_READ,
        "EventBlock": Permission.USAGE_READ,
        "Backfill": Permission.USAGE_READ,
        "DiscardedEvents": Permission.USAGE_READ,
        "IngestionBalance": Permission.USAGE_READ,
        "IngestionBalances": Permission.USAGE_READ,
        "QuarantineFailure": Permission.USAGE_READ,
        "LiveCounts": Permission.USAGE_READ,
        "LiveEvent": Permission.USAGE_READ,
        "LiveFrame": Permission.USAGE_READ,
        "QuarantinedEvent": Permission.USAGE_READ,
        "Stage": Permission.USAGE_READ,
        "StageSetting": Permission.USAGE_READ,
        "StageVersion": Permission.USAGE_READ,
        "TraceStep": Permission.USAGE_READ,
        "SuspectedDuplicate": Permission.USAGE_READ,
        "SuspectedDuplicates": Permission.USAGE_READ,
        "ReleasedEvents": Permission.USAGE_READ,
        "QuotaUse": Permission.USAGE_READ,
        "Usage": Permission.USAGE_READ,
        "UsageGroup": Permission.USAGE_READ,
        "UsageGroups": Permission.USAGE_READ,
        "UsageKey": Permission.USAGE_READ,
        "UsagePoint": Permission.USAGE_READ,
        "UsageTotal": Permission.USAGE_READ,
        "BillRun": Permission.BILLING_READ,
        "Discount": Permission.BILLING_READ,
        "Invoice": Permission.BILLING_READ,
        "InvoiceLine": Permission.BILLING_READ,
        "InvoiceTax": Permission.BILLING_READ,
        "ParkedAccount": Permission.BILLING_READ,
        "AiFeature": Permission.BILLING_READ,
        "InvoiceExplanation": Permission.BILLING_READ,
        "PaymentGateway": Permission.BILLING_READ,
        "PaymentGatewaySettings": Permission.BILLING_READ,
        "PaymentInstruction": Permission.BILLING_READ,
        "PriceStep": Permission.BILLING_READ,
        "TaxEngine": Permission.BILLING_READ,
        "UnitBalance": Permission.BILLING_READ,
        "TaxSettings": Permission.BILLING_READ,
        "Wallet": Permission.BILLING_READ,
        "WalletGrant": Permission.BILLING_READ,
        "Action": Permission.SIGNALS_READ,
        "Detector": Permission.SIGNALS_READ,
        "DetectorSettings": Permission.SIGNALS_READ,
        "Notifier": Permission.SIGNALS_READ,
        "NotifierSettings": Permission.SIGNALS_READ,
        "TestNotification": Permission.SIGNALS_READ,
        "Signal": Permission.SIGNALS_READ,
        "Kpis": Permission.REPORTS_READ,
        "RevenueSummary": Permission.REPORTS_READ,
        "NewWebhookSecret": Permission.WEBHOOKS_READ,
        "WebhookAttempt": Permission.WEBHOOKS_READ,
        "WebhookDelivery": Permission.WEBHOOKS_READ,
        "WebhookEndpoint": Permission.WEBHOOKS_READ,
        "WebhookReplay": Permission.WEBHOOKS_READ,
    }
)
"""Object types by the permission to read them. Connections and edges follow from their items."""

OPEN_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "PageInfo": "it says nothing that the page beside it does not",
        "ConflictProblem": "it answers the mutation that the caller was allowed to ask for",
        "InvalidProblem": "it answers the mutation that the caller was allowed to ask for",
        "PersistedDocumentsProblem": "it answers who was allowed to upload",
        "EventsRefusedProblem": "it answers who was allowed to send the events",
        "EventVerdict": "it answers who was allowed to send the events",
        "IngestedEvents": "it answers who was allowed to send the events",
        "NotFoundProblem": "it answers the mutation that the caller was allowed to ask for",
        "Viewer": "whoever is known may know what he is and may do",
        "Tenant": "whoever speaks for a tenant may know its name",
    }
)
"""Object types that need no permission of their own, with the reason."""


def read_permission(kind: GraphQLNamedType) -> Permission | None:
    """What reading a type needs; None for open and abstract ones."""
    return READ.get(_item(kind).name)


class Rules:
    """The permissions of one schema."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema

    def needs(self, document: DocumentNode, operation: OperationDefinitionNode) -> Needs:
        """Every permission that an operation of a valid document needs.

        What a mutation gives back is its own domain's, so reading it needs nothing further.
        """
        root = self._schema.get_root_type(operation.operation)
        assert root is not None, "a validated operation has a root type"
        found = _Walk(self._schema, document).of(operation.selection_set, root)
        outside_portal = found.pop(_CLOSED, None)
        permissions = {need: path for need, path in found.items() if isinstance(need, Permission)}
        return Needs(MappingProxyType(permissions), outside_portal)


def undeclared(schema: GraphQLSchema) -> Iterator[str]:
    """What the schema leaves open without saying so: a sentence for each fault."""
    roots = {schema.query_type, schema.mutation_type, schema.subscription_type}
    for kind in schema.type_map.values():
        if not isinstance(kind, GraphQLObjectType) or kind.name.startswith("__"):
            continue
        if kind not in roots and not {_item(kind).name} & (READ.keys() | OPEN_TYPES.keys()):
            yield (
                f"{kind.name} has no permission: name it in READ of {HERE}, or in OPEN_TYPES with "
                "a reason"
            )
        for name, field in kind.fields.items():
            # What an interface or a union holds is known only once it was fetched.
            must_say = kind in roots or is_abstract_type(get_named_type(field.type))
            if must_say and declared(field) is None:
                yield (
                    f"{kind.name}.{name} has no permission: give its decorator "
                    "needs=Permission.…, or needs=OPEN where anyone who is known may"
                )
    for name in READ.keys() | OPEN_TYPES.keys():
        if name not in schema.type_map:
            yield f"{name} has a permission in {HERE}, but there is no such type"


def declared(field: GraphQLField) -> Permission | Open | None:
    """What the decorator of a field said."""
    definition = field.extensions.get("strawberry-definition")
    metadata = getattr(definition, "metadata", None) or {}
    needed: Permission | Open | None = metadata.get(NEEDS)
    return needed


def _item(kind: GraphQLNamedType) -> GraphQLNamedType:
    """What a connection or an edge holds; other types hold themselves."""
    for suffix, inner in (("Connection", "edges"), ("Edge", "node")):
        if kind.name.endswith(suffix) and isinstance(kind, GraphQLObjectType):
            field = kind.fields.get(inner)
            if field is not None:
                return _item(get_named_type(field.type))
    return kind


class _Closed(Enum):
    """Stands beside the permissions for a field that portal tokens cannot ask for."""

    TO_PORTALS = "to portals"


_CLOSED = _Closed.TO_PORTALS
_Found = dict[Permission | _Closed, str]


class _Walk:
    """Collects what selections need; each fragment is looked at once."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._seen: dict[str, _Found] = {}

    def of(self, selections: SelectionSetNode | None, parent: GraphQLNamedType) -> _Found:
        found: _Found = {}
        for node in selections.selections if selections else ():
            match node:
                case FieldNode():
                    part = self._field(node, parent)
                case InlineFragmentNode(type_condition=None):
                    part = self.of(node.selection_set, parent)
                case InlineFragmentNode(type_condition=condition) if condition is not None:
                    part = self.of(node.selection_set, self._named(condition.name.value))
                case FragmentSpreadNode():
                    part = self._fragment(node.name.value)
                case _:
                    continue
            for need, path in part.items():
                found.setdefault(need, path)
        return found

    def _field(self, node: FieldNode, parent: GraphQLNamedType) -> _Found:
        fields = getattr(parent, "fields", {})
        definition: GraphQLField | None = fields.get(node.name.value)
        if definition is None:  # `__typename` and the schema's own fields.
            return {}
        name = (node.alias or node.name).value
        kind = get_named_type(definition.type)
        own = declared(definition)
        found = self.of(node.selection_set, kind)
        found = {need: f"{name}.{path}" for need, path in found.items()}
        if parent is self._schema.mutation_type and isinstance(own, Permission):
            found.pop(read_in(own) or own, None)
        for needed in (own, read_permission(kind), read_permission(parent)):
            if isinstance(needed, Permission):
                found[needed] = name
        if not is_open(parent, node.name.value):
            found[_CLOSED] = name
        return found

    def _fragment(self, name: str) -> _Found:
        if name not in self._seen:
            definition = self._fragments[name]
            kind = self._named(definition.type_condition.name.value)
            self._seen[name] = self.of(definition.selection_set, kind)
        return self._seen[name]

    def _named(self, name: str) -> GraphQLNamedType:
        kind = self._schema.get_type(name)
        assert isinstance(kind, GraphQLNamedType), "a validated fragment is on a type"
        return kind
