"""Token buckets in Redis, shared by every process; each process takes tokens in small lots.

A lot is used up without asking Redis again, so that most requests pay nothing for being counted.
What is left of it after a second goes back. Where Redis is away each process counts for itself:
then the limit holds per process, which is too much by their number, and nobody is kept out.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

import structlog

from aforo.storage.redis import UNREACHABLE
from aforo.storage.redis_client import redis_client

LOT_SECONDS = 1.0
"""How long a process may keep tokens to itself."""
LOTS = 50
"""A lot is this part of the burst, or a tenth of a second's tokens, whichever is less."""
ANSWER_TIMEOUT_SECONDS = 0.25
WITHOUT_REDIS_SECONDS = 5.0
"""How long Redis is left alone after it did not answer."""
BUCKETS_MAX = 10_000
CONNECTIONS_MAX = 20

_LOT = timedelta(seconds=LOT_SECONDS)

# KEYS: the bucket. ARGV: now in ms, tokens per second, burst, tokens needed, tokens wanted, tokens
# given back. Returns what was granted, and what is left. One step, so no two processes can take the
# same token; a clock that went back adds nothing.
_TAKE = """
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local now, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tokens, at = tonumber(kept[1]) or burst, tonumber(kept[2]) or now
if now > at then
  tokens = tokens + (now - at) / 1000 * rate
  at = now
end
tokens = math.min(burst, tokens + tonumber(ARGV[6]))
local granted = 0
if tokens >= tonumber(ARGV[4]) then
  granted = math.min(tonumber(ARGV[5]), math.floor(tokens))
  tokens = tokens - granted
end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(at))
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 60000)
return {granted, math.floor(tokens)}
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Rate:
    """So many tokens per second, and at most so many at once."""

    per_second: int
    burst: int

    @property
    def lot(self) -> int:
        return max(1, min(self.burst // LOTS, self.per_second // 10))


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of asking for tokens."""

    granted: bool
    rate: Rate
    remaining: int
    """Tokens that are left, as far as this process knows."""
    wait_seconds: int
    """Until as many as were asked for are there; 0 where they were."""

    @property
    def full_in_seconds(self) -> int:
        """Until the bucket is full again if nobody takes any more."""
        return ceil((self.rate.burst - self.remaining) / self.rate.per_second)


@dataclass(slots=True)
class _Bucket:
    """What this process knows of a bucket, and its lot."""

    rate: Rate
    tokens: float
    at: datetime
    lot: int = 0
    is_short: bool = False
    """The last answer was no."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def tokens_at(self, now: datetime) -> float:
        elapsed = max((now - self.at).total_seconds(), 0.0)
        return min(self.rate.burst, self.tokens + elapsed * self.rate.per_second)

    def answer(self, need: int, now: datetime, *, granted: bool) -> Taken:
        tokens = self.tokens_at(now)
        wait = 0 if granted else max(1, ceil((need - tokens) / self.rate.per_second))
        return Taken(granted, self.rate, min(int(tokens) + self.lot, self.rate.burst), wait)


class Buckets:
    """The buckets that this process takes from."""

    def __init__(self, url: str) -> None:
        self._redis = redis_client(
            url, answer_seconds=ANSWER_TIMEOUT_SECONDS, connections_max=CONNECTIONS_MAX
        )
        self._take = self._redis.register_script(_TAKE)
        self._known: OrderedDict[str, _Bucket] = OrderedDict()
        self._alone_until = 0.0
        self.asked = 0
        """How often Redis was asked."""

    async def take(self, key: str, rate: Rate, need: int, now: datetime) -> Taken:
        """Take tokens for one request; `key` starts with the tenant.

        Who needs more than the burst gets it when the bucket is full.
        """
        need = min(need, rate.burst)
        bucket = self._bucket(key, rate, now)
        answer = self._from_lot(bucket, need, now)
        if answer is None:
            async with bucket.lock:  # Those who wait share what the first one gets.
                answer = self._from_lot(bucket, need, now)
                if answer is None:
                    answer = await self._ask(key, bucket, need, now)
        return answer

    def give_back(self, key: str, rate: Rate, taken: int) -> None:
        """Return what was granted just now and is not used after all; to this process's lot."""
        if (bucket := self._known.get(key)) is not None and bucket.rate == rate:
            bucket.lot = min(bucket.lot + taken, rate.burst)

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()

    def _bucket(self, key: str, rate: Rate, now: datetime) -> _Bucket:
        bucket = self._known.get(key)
        if bucket is None or bucket.rate != rate:
            bucket = self._known[key] = _Bucket(rate, rate.burst, now)
            if len(self._known) > BUCKETS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return bucket

    def _from_lot(self, bucket: _Bucket, need: int, now: datetime) -> Taken | None:
        if bucket.lot >= need and abs(now - bucket.at) < _LOT:
            bucket.lot -= need
            return bucket.answer(need, now, granted=True)
        if bucket.is_short and bucket.tokens_at(now) + bucket.lot < need:
            # What Redis has can only be less: others take from it too.
            return bucket.answer(need, now, granted=False)
        return None

    async def _ask(self, key: str, bucket: _Bucket, need: int, now: datetime) -> Taken:
        if time.monotonic() < self._alone_until:
            return _take_alone(bucket, need, now)
        rate, back = bucket.rate, bucket.lot
        milliseconds = int(now.timestamp() * 1_000)
        wanted = max(need, rate.lot)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                self.asked += 1
                granted, left = await self._take(
                    keys=[f"aforo:{key}"],
                    args=[milliseconds, rate.per_second, rate.burst, need, wanted, back],
                )
        except (*UNREACHABLE, TimeoutError) as error:
            self._alone_until = time.monotonic() + WITHOUT_REDIS_SECONDS
            log.warning("rates are limited without Redis", error=type(error).__name__)
            return _take_alone(bucket, need, now)
        bucket.tokens, bucket.at = float(left), now
        bucket.is_short = granted < need
        bucket.lot = 0 if bucket.is_short else granted - need
        return bucket.answer(need, now, granted=not bucket.is_short)


def _take_alone(bucket: _Bucket, need: int, now: datetime) -> Taken:
    bucket.tokens = min(bucket.tokens_at(now) + bucket.lot, bucket.rate.burst)
    bucket.at, bucket.lot = max(bucket.at, now), 0
    bucket.is_short = bucket.tokens < need
    if not bucket.is_short:
        bucket.tokens -= need
    return bucket.answer(need, now, granted=not bucket.is_short)
