"""Suspected duplicates: events that say the same as another one of seconds before, under another
key. They count; whether they should is for a person to say."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from aforo.metering.aggregate import EVENTS
from aforo.metering.queries import EVENT_COLUMNS, IN_PERIOD, EventRow, moment
from aforo.sdk.errors import Invalid
from aforo.sdk.period import Period
from aforo.stages.registry import SUSPECTED_SECONDS_MAX
from aforo.storage.listing import PAGE_MAX
from aforo.storage.scope import Scope

EVENTS_MAX = 1_000_000
"""Of one look; where a period has more, its latest."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """Events of one customer and period that look like copies."""

    count: int
    """All of them; the first of each run of copies is none."""
    pairs: Sequence[tuple[EventRow, EventRow]]
    """The latest ones, each behind the event before it that says the same."""


async def suspected_duplicates(
    scope: Scope,
    period: Period,
    *,
    watermark: int,
    customer_id: UUID,
    within_seconds: int,
    first: int = PAGE_MAX,
) -> Suspects:
    """Events of the log with the type and all properties of another one that occurred at most so
    many seconds before, of the same customer.

    Raises: `Invalid` for less than 1 second or more than an hour.
    """
    if not 1 <= within_seconds <= SUSPECTED_SECONDS_MAX:
        raise Invalid(
            f"withinSeconds is from 1 to {SUSPECTED_SECONDS_MAX}, not {within_seconds}",
            field="withinSeconds",
        )
    assert 0 < first <= PAGE_MAX, "the caller bounds the page"
    wanted = {
        "watermark": watermark,
        "customer": str(customer_id),
        "start": moment(period.start),
        "end": moment(period.end),
    }
    found = await scope.events.query(
        _SUSPECTS, **wanted, most=EVENTS_MAX, within=within_seconds * 1_000_000, first=first
    )
    places = [
        (row["segment_id"], row["position"], row["before_segment"], row["before_position"])
        for row in found
    ]
    asked = {place for one in places for place in (one[:2], one[2:])}
    rows = await scope.events.query(_ROWS, **wanted, places=sorted(asked)) if asked else []
    events = {(row["segment_id"], row["position"]): EventRow(**row) for row in rows}
    return Suspects(
        count=found[0]["suspects"] if found else 0,
        pairs=[(events[one[2:]], events[one[:2]]) for one in places],
    )


_OF_CUSTOMER = f"FROM {EVENTS} WHERE customer_id = {{customer:UUID}} AND {IN_PERIOD}"
_SUSPECTS = f"""
SELECT segment_id, position, before_segment, before_position, count() OVER () AS suspects
FROM (
    SELECT segment_id, position, occurred_at,
        lagInFrame(segment_id) OVER same AS before_segment,
        lagInFrame(position) OVER same AS before_position,
        lagInFrame(occurred_at) OVER same AS before_at
    FROM (
        SELECT segment_id, position, occurred_at, cityHash64(type, properties) AS said
        {_OF_CUSTOMER}
        ORDER BY occurred_at DESC LIMIT {{most:UInt32}}
    )
    WINDOW same AS (
        PARTITION BY said ORDER BY occurred_at, segment_id, position
        ROWS BETWEEN 1 PRECEDING AND CURRENT ROW
    )
)
WHERE before_segment > 0
    AND dateDiff('microsecond', before_at, occurred_at) <= {{within:UInt64}}
ORDER BY occurred_at DESC, segment_id DESC, position DESC LIMIT {{first:UInt32}}
"""
_ROWS = f"""
SELECT {EVENT_COLUMNS}
{_OF_CUSTOMER} AND (segment_id, position) IN {{places:Array(Tuple(UInt64, UInt32))}}
"""
