"""GraphQL of usage: what is asked for."""

from collections.abc import Iterable

import strawberry

from aforo.api.parts.fields import publish_enum
from aforo.api.parts.relay import local_id
from aforo.catalog.validate import DIMENSIONS_MAX
from aforo.metering.steps import Bucket
from aforo.metering.usage import GROUPINGS_MAX, Attribute, UsageBy, Value
from aforo.sdk import Invalid

VALUES_MAX = 100

KINDS = {
    UsageBy.CUSTOMER: "Customer",
    UsageBy.TEAM: "Team",
    UsageBy.AGENT: "Agent",
    UsageBy.CUSTOMER_KEY: "CustomerKey",
    UsageBy.SUBSCRIPTION: "CustomerSubscription",
}
"""The kinds of things whose global ids stand for values."""

publish_enum(
    Bucket,
    "Width of a step of a usage series.",
    QUARTER_HOUR="A quarter of an hour.",
    HOUR="An hour.",
    DAY="A day of the time zone, which has 23 or 25 hours when clocks change.",
    WEEK="A week of the time zone, from Monday on.",
    MONTH="A month of the time zone.",
)
publish_enum(
    UsageBy,
    "What usage can be told apart by.",
    CUSTOMER="The customer.",
    TEAM="The team of the customer's hierarchy, as of the moment of the event.",
    AGENT="The agent of the team, as of the moment of the event.",
    CUSTOMER_KEY="The customer's key that the event came with.",
    SUBSCRIPTION="The subscription that the event's cost is attributed to.",
    PROPERTY="The value of a property that is a dimension of the meter.",
)


@strawberry.input(description="The events whose property has one of these values.")
class UsagePropertyInput:
    property: str = strawberry.field(description="A dimension of the meter.")
    values: list[str | None] = strawberry.field(
        description=f"Its values as text, at most {VALUES_MAX}; null for events without it."
    )


@strawberry.input(
    description=f"Which usage is meant: what is given must all hold. At most {VALUES_MAX} ids each."
)
class UsageFilterInput:
    customer_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of these customers."
    )
    team_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of these teams."
    )
    agent_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of these agents."
    )
    customer_key_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Through these keys of customers."
    )
    subscription_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of these subscriptions."
    )
    properties: list[UsagePropertyInput] = strawberry.field(
        default_factory=list, description="With these values of properties, at most 4."
    )


@strawberry.input(description="What groups of usage are told apart by.")
class UsageGroupingInput:
    by: UsageBy = strawberry.field(description="A level of the hierarchy, or a property.")
    property: str | None = strawberry.field(
        default=None, description="With PROPERTY: which dimension of the meter."
    )


def filters_of(where: UsageFilterInput | None) -> list[tuple[Attribute, list[Value]]]:
    """The conditions of a filter; raises `Invalid` where there are too many."""
    if where is None:
        return []
    found: list[tuple[Attribute, list[Value]]] = []
    for by, name, given in (
        (UsageBy.CUSTOMER, "customerIds", where.customer_ids),
        (UsageBy.TEAM, "teamIds", where.team_ids),
        (UsageBy.AGENT, "agentIds", where.agent_ids),
        (UsageBy.CUSTOMER_KEY, "customerKeyIds", where.customer_key_ids),
        (UsageBy.SUBSCRIPTION, "subscriptionIds", where.subscription_ids),
    ):
        if given is not None:
            _check_values(len(given), f"where.{name}")
            ids = [
                str(local_id(KINDS[by], each, field=f"where.{name}.{at}"))
                for at, each in enumerate(given)
            ]
            found.append((Attribute(by), list(ids)))
    if len(where.properties) > DIMENSIONS_MAX:
        raise Invalid(
            f"at most {DIMENSIONS_MAX} properties, not {len(where.properties)}",
            field="where.properties",
        )
    for at, one in enumerate(where.properties):
        _check_values(len(one.values), f"where.properties.{at}.values")
        found.append((Attribute(UsageBy.PROPERTY, one.property), list(one.values)))
    return found


def attributes_of(by: Iterable[UsageGroupingInput]) -> list[Attribute]:
    """What groups are told apart by; raises `Invalid` unless it is 1 to 3 different things."""
    attributes = [Attribute(one.by, one.property) for one in by]
    if not 1 <= len(attributes) <= GROUPINGS_MAX:
        raise Invalid(
            f"groups are told apart by 1 to {GROUPINGS_MAX} things, not {len(attributes)}",
            field="by",
        )
    for at, one in enumerate(attributes):
        if (one.by is UsageBy.PROPERTY) != (one.property is not None):
            raise Invalid("PROPERTY and a property go together", field=f"by.{at}.property")
        if one in attributes[:at]:
            raise Invalid("this is given twice, give it once", field=f"by.{at}")
    return attributes


def _check_values(count: int, path: str) -> None:
    if count > VALUES_MAX:
        raise Invalid(f"at most {VALUES_MAX} values, not {count}", field=path)
