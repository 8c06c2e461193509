"""Keys of events are kept for 97 days: longer than an event may be late, so that none counts twice.

The table is hash-partitioned and has no index by time, which every insert would pay for. It is
read through instead, a stretch of each partition at a time, once a day in all.
"""

from datetime import datetime, timedelta

import sqlalchemy as sa

from aforo.storage.scope import Runtime

KEPT = timedelta(days=97)
PART = timedelta(minutes=10)
"""How long a part of the table has its turn: in a day all have."""
PARTS = timedelta(days=1) // PART
BLOCKS_AT_ONCE = 64
"""Of each partition, in one transaction: at most some 80,000 keys in all."""


def part_at(now: datetime) -> int:
    """The part of the table whose turn it is; one that was missed has it again the next day."""
    return int(now.timestamp() // PART.total_seconds()) % PARTS


async def forget_old(runtime: Runtime, *, part: int, parts: int = PARTS) -> int:
    """Delete the old keys of one part of the table; how many there were.

    What is quarantined still holds its key, however old. Two workers may do the same part.
    """
    before = runtime.clock.now() - KEPT
    async with runtime.system("measure the keys") as db:
        blocks = await db.scalar(_BLOCKS) or 0
    length = -(-blocks // parts)
    forgotten = 0
    for first in range(part * length, min((part + 1) * length, blocks), BLOCKS_AT_ONCE):
        end = min(first + BLOCKS_AT_ONCE, (part + 1) * length)
        places = {"first": f"({first},0)", "end": f"({end},0)"}
        async with runtime.system("forget old keys") as db:
            gone = await db.execute(_FORGET, {**places, "before": before})
            forgotten += len(gone.all())
    return forgotten


# The longest partition's: the others have no more there.
_BLOCKS = sa.text("""
    SELECT max(pg_relation_size(inhrelid)) / current_setting('block_size')::integer
    FROM pg_inherits WHERE inhparent = 'event_key'::regclass
""")
_FORGET = sa.text("""
    DELETE FROM event_key
    WHERE ctid >= CAST(CAST(:first AS text) AS tid) AND ctid < CAST(CAST(:end AS text) AS tid)
        AND received_at < :before AND state <> 'QUARANTINED'
    RETURNING 1
""")
