"""A process dies while it releases quarantined events: each of them goes into the log once."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

from aforo.metering import queries
from aforo.metering.quarantine import Wanted, release
from tests.metering.crashable import Urls
from tests.metering.market import Market
from tests.metering.test_durability import WAIT_SECONDS, config_for, crashable, until_sealed

DEATHS = {
    "release.written": (Counter(QUARANTINED=5), 0),
    "scope.committed": (Counter(RELEASED=5), 1),
    "confirm.inserted": (Counter(RELEASED=5), 1),
}
"""What a death leaves behind at each point: the events by state, and rows in the inbox."""


async def test_a_release_is_kept_as_a_whole_or_not_at_all_and_counts_once(
    market: Market, tmp_path: Path
) -> None:
    settings = market.runtime.settings
    urls = Urls(
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        clickhouse_url=settings.clickhouse_url,
    )
    config = config_for(market, tmp_path / "socket", urls=urls, releases=True)
    sent = [market.event(customer="newcomer") for _ in range(5)]
    await market.take(*sent)
    await market.let_in("newcomer")
    async with crashable(config) as lives:
        for point, (states, inbox) in DEATHS.items():
            lives.spell(point)
            reader, writer, _ = await lives.begin()
            writer.write(b"[]\n")
            assert await asyncio.wait_for(reader.read(), WAIT_SECONDS) == b""
            writer.close()
            assert await lives.exit_code() == -signal.SIGKILL
            rows = await market.rows("quarantined_event")
            assert Counter(row["state"] for row in rows) == states
            assert len(await market.rows("event_inbox")) == inbox
    async with market.scope() as scope:
        assert (await release(scope, Wanted(code="UNKNOWN_CUSTOMER"))).events == 0
    assert (await market.take(*sent)).duplicates == 5
    await until_sealed(market, lives=1)
    async with market.scope() as scope:
        watermark = await queries.watermark(scope)
        found = await queries.recent_events(scope, watermark=watermark, first=20)
    assert sorted(one.idempotency_key for one in found) == sorted(
        one["idempotencyKey"] for one in sent
    )
