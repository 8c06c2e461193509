"""The live log: what a subscriber holds of it."""

import pytest
from redis.asyncio import Redis

from aforo.sdk.ids import TenantId
from aforo.storage.redis import READ_COUNT
from aforo.storage.scope import Runtime

pytestmark = pytest.mark.anyio


async def test_a_subscriber_who_takes_none_holds_few_messages_however_many_there_are(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    live = runtime.live.of(tenant_id)
    for number in range(5 * READ_COUNT):
        live.announce("events", {"number": number})
    await live.flush()
    followed = live.follow("events", after="0")
    seen = [(await anext(followed))[1]["number"]]
    async with Redis.from_url(runtime.settings.redis_url) as redis:
        # What is still read afterwards was held by the subscriber.
        await redis.xtrim(f"aforo:{tenant_id}:events", maxlen=0, approximate=False)
    live.announce("events", {"number": -1})
    await live.flush()
    while seen[-1] != -1:
        seen.append((await anext(followed))[1]["number"])
    assert seen == [*range(READ_COUNT), -1]
