"""Stage 2, validation: the time window, the meters that select an event, the numbers they need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from aforo.catalog.models import Aggregation
from aforo.metering.canonical import plain_text
from aforo.metering.ingest import SentEvent
from aforo.metering.verdicts import Refusal, Stage, quarantined, rejected
from aforo.sdk.errors import Invalid
from aforo.sdk.money import INTEGER_DIGITS_MAX, parse_quantity
from aforo.stages.registry import AGE_SECONDS_MAX, DAY_SECONDS, FUTURE_SECONDS_MAX

FUTURE_MAX = timedelta(seconds=FUTURE_SECONDS_MAX)
AGE_MAX = timedelta(seconds=AGE_SECONDS_MAX)
NUMERIC = (Aggregation.SUM, Aggregation.MAX, Aggregation.LATEST)
_ONE = Decimal(1)
_PLAIN_BELOW = 10**INTEGER_DIGITS_MAX


@dataclass(frozen=True, slots=True)
class MeterRule:
    """What a meter selects and counts: the part of it that events are held against."""

    meter_id: UUID
    code: str
    event_type: str
    aggregation: Aggregation
    property: str | None = None
    filters: Sequence[tuple[str, frozenset[str]]] = field(default_factory=tuple)
    """Property and the texts that it may have; all must hold."""
    allows_negative: bool = False
    dimensions: Sequence[str] = ()


def check_time(
    occurred_at: datetime,
    now: datetime,
    *,
    future: timedelta = FUTURE_MAX,
    age: timedelta = AGE_MAX,
) -> Refusal | None:
    """Whether the moment lies in the window, from so long ago to so far ahead; both bounds are
    inside."""
    if occurred_at > now + future:
        return rejected(
            Stage.VALIDATION,
            "TIMESTAMP_IN_FUTURE",
            f"occurredAt is {occurred_at.isoformat()}, over {_length(future)} past the server's "
            f"{now.isoformat()}; set the sender's clock",
        )
    if occurred_at < now - age:
        return rejected(
            Stage.VALIDATION,
            "TIMESTAMP_TOO_OLD",
            f"occurredAt is {occurred_at.isoformat()}, over {_length(age)} before "
            f"{now.isoformat()}",
        )
    return None


def check_meters(
    event: SentEvent, meters: Mapping[str, Sequence[MeterRule]]
) -> dict[UUID, Decimal] | Refusal:
    """What the event contributes to each meter of its type that counts it, by meter id.

    A COUNT contributes 1, a UNIQUE meter 1 as well; a meter whose property is missing, or whose
    filters do not hold, is not in the answer. A property that should be a number and is none
    rejects the event: it is never turned into 0.
    """
    rules = meters.get(event.type)
    if not rules:
        return quarantined(
            Stage.VALIDATION,
            "UNKNOWN_METER",
            f"no published meter selects events of type {event.type}",
        )
    units: dict[UUID, Decimal] = {}
    for rule in rules:
        try:
            brought = contribution(rule, event.properties)
        except Invalid as error:
            return rejected(
                Stage.VALIDATION,
                "BAD_VALUE",
                f"properties.{rule.property} is what meter {rule.code} sums: {error.message}",
            )
        if brought is not None:
            units[rule.meter_id] = brought
    return units


def contribution(rule: MeterRule, properties: Mapping[str, Any]) -> Decimal | None:
    """What one event of the meter's type brings to it, or None where it is not counted.

    Raises: `Invalid` for a property that should be a number and is none.
    """
    if not selects(rule, properties):
        return None
    value = properties.get(rule.property) if rule.property else None
    if rule.property and value is None:
        return None
    if rule.aggregation not in NUMERIC:
        return _ONE
    return _number(value, negative=rule.allows_negative)


def selects(rule: MeterRule, properties: Mapping[str, Any]) -> bool:
    """Whether the meter's filters all hold."""
    for name, values in rule.filters:  # noqa: SIM110 (a generator takes longer than this)
        if plain_text(properties.get(name)) not in values:
            return False
    return True


def _length(length: timedelta) -> str:
    """As people say it."""
    seconds = int(length.total_seconds())
    for unit, name in ((DAY_SECONDS, "days"), (60, "minutes")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} seconds"


def _number(value: Any, *, negative: bool) -> Decimal:
    if type(value) is int and 0 <= value < _PLAIN_BELOW:
        return Decimal(value)  # Nearly always.
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise Invalid("it must be a plain decimal number")
    return parse_quantity(value, negative=negative)
