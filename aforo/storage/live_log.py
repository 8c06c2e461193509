"""The bounded log of live messages in Redis: each has a number, so that a gap can be counted."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from aforo.telemetry.metrics import LIVE_MESSAGES_DROPPED

LOG_MESSAGES_MAX = 2_000
"""Kept per tenant and stream,"""
LOG_BYTES_MAX = 4 * 1024 * 1024
"""unless they are large: Redis has other work to do,"""
LOG_SECONDS_MAX = 7 * 86_400
"""and no longer than this after the last one."""
APPENDED_AT_ONCE = 100
CHANNEL = "aforo:live"
"""Where a key is called out once something was appended to it: a hint to look now."""
REST_SECONDS = 1.0
"""After a failure nothing is tried for so long: who announces must not wait for a dead Redis."""
STREAMS_LOST_MAX = 10_000

UNREACHABLE = (RedisError, OSError)
"""What a call raises where Redis is away or refuses; hints and counters do without it then."""

DOWN = "live streams are down; go on after the last cursor that you have"

log = structlog.get_logger()
_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")

# One step, so that numbers have no gap but the one that is meant: `lost` messages that were
# announced and never came this far.
_APPEND = f"""
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local epoch, number, bytes = ARGV[4], 0, 0
if last and last[2][1] == 'e' then
  epoch, number, bytes = last[2][2], tonumber(last[2][4]), tonumber(last[2][6]) or 0
end
number = number + tonumber(ARGV[5])
for at = 6, #ARGV do
  number = number + 1
  bytes = bytes + #ARGV[at]
  redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], '*', 'e', epoch,
             'n', string.format('%.0f', number), 'b', string.format('%.0f', bytes), 'm', ARGV[at])
end
local length = redis.call('XLEN', KEYS[1])
while length > 1 do
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if bytes - (tonumber(first[2][6]) or 0) <= tonumber(ARGV[2]) then break end
  length = length - 1
  redis.call('XTRIM', KEYS[1], 'MAXLEN', length)
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', '{CHANNEL}', KEYS[1])
return 1
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a stream is kept, and for how many seconds after its last message."""

    messages_max: int
    bytes_max: int
    seconds_max: int


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a message stands in the log of its stream."""

    moment: int
    """Milliseconds; Redis gives it, and never goes back."""
    sequence: int
    """Among the messages of a moment."""
    epoch: int
    """Of the log: another one where the log was lost, and began anew."""
    number: int
    """Of the message in its epoch, without gaps."""

    @property
    def entry(self) -> str:
        """Redis's own id."""
        return f"{self.moment}-{self.sequence}"

    def is_past(self, other: "Position | None") -> bool:
        """Whether it comes after another position; after None, which is the start, all do."""
        return other is None or (self.moment, self.sequence) > (other.moment, other.sequence)


@dataclass(slots=True, eq=False)
class Message:
    """One message, shared by everybody who follows its stream in this process."""

    position: Position
    data: Mapping[str, Any]
    size: int
    """Bytes, as it was stored."""
    memo: dict[Any, Any] = field(default_factory=dict)
    """What was worked out for one reader and is the same for the others."""


@dataclass(frozen=True, slots=True)
class Missed:
    """Messages between two positions that a reader did not get, before any filter."""

    after: Position
    before: Position | None
    """None: up to now."""
    count: int | None
    """None where it cannot be known: the log was lost, or set back."""


START = Position(0, 0, 0, 0)
"""Before the first message of a log that was empty."""


def gap(after: Position | None, position: Position) -> Missed | None:
    """What is missing between a message and the one that a reader had before it; None is from now
    on, and misses nothing."""
    if after is None:
        return None
    is_counted = after.epoch in {START.epoch, position.epoch} and after.number < position.number
    if is_counted and after.number + 1 == position.number:
        return None
    count = position.number - after.number - 1 if is_counted else None
    return Missed(after, position, count)


class LiveLog:
    """Appends to the logs of streams, and reads them."""

    def __init__(self, writer: Redis, reader: Redis) -> None:
        self._writer = writer
        self._reader = reader
        self._rests_until = 0.0
        self._lost: dict[str, int] = {}

    async def append(self, announced: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Append messages by the key of their stream, and call the keys out.

        Never raises for a Redis that is down: it costs the readers the messages, whom the next one
        tells how many there were, and costs the caller a moment at most.
        """
        by_key: dict[str, list[bytes]] = defaultdict(list)
        for key, message in announced:
            by_key[key].append(_ENCODER.encode(message))
        if time.monotonic() < self._rests_until:
            self._lose({key: len(bodies) for key, bodies in by_key.items()})
            LIVE_MESSAGES_DROPPED.inc(len(announced))
            return
        parts = [
            (key, bodies[at : at + APPENDED_AT_ONCE])
            for key, bodies in by_key.items()
            for at in range(0, len(bodies), APPENDED_AT_ONCE)
        ]
        owed = {key: self._lost.pop(key, 0) for key in by_key}
        limits = Limits(LOG_MESSAGES_MAX, LOG_BYTES_MAX, LOG_SECONDS_MAX)
        for key, bodies in parts:
            is_there = await self._append(key, bodies, lost=owed[key], limits=limits)
            owed[key] = 0 if is_there else owed[key] + len(bodies)
            LIVE_MESSAGES_DROPPED.inc(0 if is_there else len(bodies))
        self._lose(owed)

    async def sent(self, key: str, body: bytes, *, limits: Limits) -> bool:
        """Append one message; whether it is known to be there. Who sends it again where it is not
        gives readers what to know it by. Does not raise for a Redis that is down."""
        return await self._append(key, [body], lost=0, limits=limits)

    async def _append(
        self, key: str, bodies: Sequence[bytes], *, lost: int, limits: Limits
    ) -> bool:
        if time.monotonic() < self._rests_until:
            return False
        now = time.time_ns() // 1_000_000
        most = (limits.messages_max, limits.bytes_max, limits.seconds_max)
        try:
            await self._writer.eval(_APPEND, 1, key, *most, now, lost, *bodies)  # type: ignore[misc, arg-type]
        except UNREACHABLE as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            log.warning("live messages were not taken", messages=len(bodies), error=str(error))
            return False
        return True

    def _lose(self, counts: Mapping[str, int]) -> None:
        for key, count in counts.items():
            if count and (key in self._lost or len(self._lost) < STREAMS_LOST_MAX):
                self._lost[key] = self._lost.get(key, 0) + count

    async def end(self, key: str) -> Position | None:
        """Where the last message of a stream stands; None where there is none."""
        found: Any = await self._reader.xrevrange(key, count=1)
        messages = _messages(found)
        return messages[-1].position if messages else None

    async def page(
        self, key: str, after: Position | None, *, until: Position, count: int
    ) -> list[Message]:
        """The first messages past a position, up to another one."""
        found: Any = await self._reader.xrange(key, min=_past(after), max=until.entry, count=count)
        return _messages(found)

    async def news(
        self, ends: Mapping[str, Position | None], *, count: int
    ) -> dict[str, list[Message]]:
        """What was appended to streams past the end that is known of each, the first of it."""
        async with self._reader.pipeline(transaction=False) as pipe:
            for key, end in ends.items():
                pipe.xrange(key, min=_past(end), count=count)
            pages = await pipe.execute()
        return {key: _messages(page) for key, page in zip(ends, pages, strict=True)}


def _past(after: Position | None) -> str:
    return "-" if after is None else f"({after.entry}"


def _messages(entries: Sequence[tuple[str, Mapping[str, str]]]) -> list[Message]:
    return [
        Message(_position(id_, entry), _DECODER.decode(entry["m"]), len(entry["m"]))
        for id_, entry in entries
        if "e" in entry
    ]


def _position(id_: str, entry: Mapping[str, str]) -> Position:
    moment, _, sequence = id_.partition("-")
    return Position(int(moment), int(sequence), int(entry["e"]), int(entry["n"]))
