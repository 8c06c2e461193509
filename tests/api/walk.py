"""Makes requests up from the schema itself: every root field, with ids in every place for one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    get_named_type,
    is_leaf_type,
    is_required_argument,
)

from aforo.api.schema import schema_text

SCHEMA: GraphQLSchema = build_schema(schema_text())

KIND_OF = {
    "subscriptionId": "CustomerSubscription",
    "subscriptionIds": "CustomerSubscription",
    "id": "Customer",
    "ids": "Customer",
    "actorId": "ApiKey",
    "eventId": "QuarantinedEvent",
    "objectId": "Customer",
}
"""What an argument names, where its own name does not say so."""

LEFT_OUT = {
    *(
        "after",
        "asOf",
        "backfill",
        "properties",
        "externalId",
        "meterCode",
        "type",
        "expiresAt",
        "validFrom",
        "validTo",
    ),
    *(
        "code",
        "customer",
        "country",
        "currency",
        "eventType",
        "level",
        "namePrefix",
        "segment",
        "state",
        "tier",
    ),
    *("action", "since", "until"),
    "idempotencyKey",
    *("resetUnit", "resetSeconds", "rolloverPeriods", "rolloverCap"),
}
"""Optional arguments that would contradict the ids, or keep the request from the look-up."""

SAMPLES: dict[str, Any] = {
    "amount": "1",
    "anchorDay": 1,
    "currency": "USD",
    "detector": "margin_guard",
    "email": "someone@example.com",
    "effectiveFrom": "2026-12-01T00:00:00Z",
    "end": "2026-11-30T00:00:00Z",
    "endsAt": "2026-11-21T00:00:00Z",
    "engine": "manual",
    "first": 5,
    "graceSeconds": 0,
    "kind": "QUOTA",
    "lifetimeSeconds": 60,
    "model": "PER_UNIT",
    "eventsPerSecond": 1_000_000,
    "pointsPerSecond": 1_000_000,
    "quota": "5",
    "rate": "0.1",
    "role": "DEVELOPER",
    "start": "2026-10-01T00:00:00Z",
    "startsAt": "2026-10-01T00:00:00Z",
    "timeZone": "UTC",
    "unitCost": "1",
    "until": "2026-11-20T12:00:00Z",
    "url": "http://127.0.0.1:9/walk",
}
"""Values that take a request past the checks that come before the look-up."""

SAMPLES_OF: dict[str, dict[str, Any]] = {
    "UsageFilterInput": {"properties": []},
    "ingestionBalance": {
        "period": {"start": "2026-11-01T00:00:00Z", "end": "2026-11-30T00:00:00Z"}
    },
    "ChangeStageSettingsInput": {
        "stage": "VALIDATION",
        "settings": {"futureSecondsMax": 9},
        "expectedVersion": 0,
    },
    "unitBalances": {"period": {"start": "2026-10-15T00:00:00Z", "end": "2026-11-10T00:00:00Z"}},
    "CreateWalletInput": {"currency": "EUR"},
    "ReleaseCustomerInput": {"kind": "THROTTLE"},
    "webhookDeliveries": {"state": "PENDING", "eventType": "WEBHOOK_TEST"},
    "SetIdentityProviderInput": {
        "issuer": "https://sso.example.com",
        "domains": ["example.com"],
    },
    "RatePlanLineInput": {"settings": {"unitPrice": "1"}},
    "SetPaymentGatewayInput": {
        "gateway": "standard.manual",
        "settings": {"payee": "walk", "account": "walk"},
    },
    "SetNotifierInput": {"notifier": "standard.chat"},
    "SendTestNotificationInput": {"notifier": "standard.chat"},
}

_FRESH = count()


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for an id in the arguments of a root field."""

    operation: str
    field: str
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        return f"{self.field}({'.'.join(map(str, self.path))})"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for one root field."""

    query: str
    variables: dict[str, Any]

    def with_id(self, slot: Slot, id_: str) -> dict[str, Any]:
        """The body of the request with this id in a slot."""
        return {"query": self.query, "variables": _put(self.variables, slot.path, id_)}

    @property
    def body(self) -> dict[str, Any]:
        return {"query": self.query, "variables": self.variables}


def root_fields() -> Iterator[tuple[str, str, GraphQLField]]:
    """Every field of the three roots, with its operation."""
    roots = (
        ("query", SCHEMA.query_type),
        ("mutation", SCHEMA.mutation_type),
        ("subscription", SCHEMA.subscription_type),
    )
    for operation, root in roots:
        assert root is not None
        for name, field in root.fields.items():
            yield operation, name, field


def slots() -> list[Slot]:
    """Every place for an id in every argument of every root field, inputs included."""
    return [
        Slot(operation, name, path)
        for operation, name, field in root_fields()
        for argument, definition in field.args.items()
        for path in _ids_in(definition.type, (argument,))
    ]


def ask(operation: str, name: str, ids: Mapping[str, str]) -> Asked:
    """A request for a root field with samples for its arguments, and these ids by kind."""
    root = {
        "query": SCHEMA.query_type,
        "mutation": SCHEMA.mutation_type,
        "subscription": SCHEMA.subscription_type,
    }[operation]
    assert root is not None
    field = root.fields[name]
    given = {
        argument: definition
        for argument, definition in field.args.items()
        if is_required_argument(definition) or argument not in LEFT_OUT
    }
    declared = ", ".join(f"${one}: {definition.type}" for one, definition in given.items())
    passed = ", ".join(f"{one}: ${one}" for one in given)
    head, call = (f"({declared})", f"({passed})") if given else ("", "")
    document = f"{operation} Walk{head} {{ {name}{call} {selection(field)} }}"
    variables = {
        argument: _sample(definition.type, argument, ids, parent=name)
        for argument, definition in given.items()
    }
    return Asked(document, variables)


def selection(field: GraphQLField, depth: int = 3) -> str:
    """What to read of a field: everything that needs no argument, a few levels deep."""
    kind = get_named_type(field.type)
    if is_leaf_type(kind):
        return ""
    parts = ["__typename"]
    members = SCHEMA.get_possible_types(kind) if isinstance(kind, GraphQLUnionType) else ()
    for interface in ("Node { id }", "Problem { code message field }"):
        name = interface.split()[0]
        if any(name in {each.name for each in member.interfaces} for member in members):
            parts.append(f"... on {interface}")
    if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
        for name, inner in kind.fields.items():
            if any(is_required_argument(argument) for argument in inner.args.values()):
                continue
            if is_leaf_type(get_named_type(inner.type)):
                parts.append(name)
            elif depth:
                parts.append(f"{name} {selection(inner, depth - 1)}")
    return f"{{ {' '.join(parts)} }}"


def _ids_in(kind: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(kind, GraphQLNonNull):
        yield from _ids_in(kind.of_type, path)
    elif isinstance(kind, GraphQLList):
        yield from _ids_in(kind.of_type, (*path, 0))
    elif isinstance(kind, GraphQLInputObjectType):
        for name, inner in kind.fields.items():
            yield from _ids_in(inner.type, (*path, name))
    elif kind.name == "ID":
        yield path


def _sample(kind: Any, name: str, ids: Mapping[str, str], *, parent: str) -> Any:
    if isinstance(kind, GraphQLNonNull):
        return _sample(kind.of_type, name, ids, parent=parent)
    chosen = SAMPLES_OF.get(parent, {}).get(name, SAMPLES.get(name))
    if chosen is not None:
        return chosen
    if isinstance(kind, GraphQLList):
        return [_sample(kind.of_type, name, ids, parent=parent)]
    if isinstance(kind, GraphQLInputObjectType):
        return {
            inner: _sample(definition.type, inner, ids, parent=kind.name)
            for inner, definition in kind.fields.items()
            if inner not in LEFT_OUT or isinstance(definition.type, GraphQLNonNull)
        }
    if isinstance(kind, GraphQLEnumType):
        return next(iter(kind.values))
    return _sample_of_scalar(kind, name, ids)


def _sample_of_scalar(kind: GraphQLNamedType, name: str, ids: Mapping[str, str]) -> Any:
    match kind.name:
        case "ID":
            return ids[kind_of(name)]
        case "String":
            return f"walk-{next(_FRESH):06}-of-the-schema"
        case "Int":
            return 1
        case "Boolean":
            return False
        case "Decimal":
            return "1"
        case "JSON":
            return {}
        case "DateTime":
            return "2026-11-20T10:00:00Z"
    raise AssertionError(f"the walk has no sample for {name}: {kind}; add one to SAMPLES")


def kind_of(argument: str) -> str:
    """The kind of thing that an argument of this name names."""
    stem = argument.removesuffix("s").removesuffix("Id")
    return KIND_OF.get(argument, stem[:1].upper() + stem[1:])


def _put(values: Any, path: tuple[str | int, ...], value: object) -> Any:
    if not path:
        return value
    step, *rest = path
    if isinstance(values, list):
        assert isinstance(step, int)
        return [*values[:step], _put(values[step], tuple(rest), value), *values[step + 1 :]]
    return {**values, step: _put(values[step], tuple(rest), value)}
