"""The hub of a process: follows the streams that somebody here reads, once for all readers.

One connection hears which streams have news, another one reads them. What is read goes into a ring
per stream, which all readers share: a reader is a place in it, so that a thousand of them hold
every message once, and who falls behind the ring holds nothing.
"""

import asyncio
from collections.abc import Iterable

import structlog
from redis.asyncio import Redis

from aforo.sdk.errors import Unavailable
from aforo.storage.endings import end_all
from aforo.storage.live_log import CHANNEL, DOWN, UNREACHABLE, LiveLog, Message, Position
from aforo.storage.live_topic import Follower, Topic, Wants

HELD_BYTES_MAX = 64 * 1024 * 1024
"""Of all streams together, for readers that are behind."""
REPLAYED_AT_ONCE = 20
"""A reader that catches up holds so many messages; some are 64 KB."""
REPLAYS_AT_ONCE = 16
STREAMS_AT_ONCE, READ_AT_ONCE = 10, 50
LOOK_SECONDS = 5.0
"""The log is looked at this often in any case: a call that got lost costs time, and no message."""
OUTAGE_SECONDS = 15.0
"""A Redis that is away for less is waited for; after that the streams end, and say so."""
RETRY_SECONDS = 0.2

log = structlog.get_logger()


class Hub:
    """Follows streams for the readers of this process."""

    def __init__(self, live_log: LiveLog, bell: Redis) -> None:
        self._log = live_log
        self._bell = bell
        self._topics: dict[str, Topic] = {}
        self._dirty: dict[str, None] = {}
        self._news = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        self._replays = asyncio.Semaphore(REPLAYS_AT_ONCE)

    async def open(
        self, key: str, *, after: Position | None = None, wants: Wants | None = None
    ) -> Follower:
        """Begin to follow a stream, from after a position or from now on; close it in the end.

        Raises: `Unavailable` where Redis cannot be reached.
        """
        if not self._running:
            self._running = [asyncio.create_task(self._listen()), asyncio.create_task(self._look())]
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(key, read=self._replay, on_end=self._forget)
        follower = Follower(topic, after, wants)
        try:
            await self._ready(topic)
        except BaseException:
            follower.close()
            raise
        follower.begin()
        return follower

    async def close(self) -> None:
        """End every stream, and give the connection back."""
        await end_all(self._running)
        self._running = []
        self._fail()

    async def _replay(self, key: str, after: Position | None, until: Position) -> list[Message]:
        """A few messages of the log itself. Raises: `Unavailable`."""
        try:
            async with self._replays:
                return await self._log.page(key, after, until=until, count=REPLAYED_AT_ONCE)
        except UNREACHABLE as error:
            raise Unavailable(DOWN) from error

    def _forget(self, topic: Topic) -> None:
        """Nobody follows this stream any more."""
        if self._topics.get(topic.key) is topic:
            del self._topics[topic.key]
            self._dirty.pop(topic.key, None)

    async def _ready(self, topic: Topic) -> None:
        """Know where the stream ends; whoever follows it at the same time asks once."""
        async with topic.opening:
            if topic.failure is not None:
                raise Unavailable(topic.failure)
            if topic.is_open:
                return
            try:
                topic.end = await self._log.end(topic.key)
            except UNREACHABLE as error:
                topic.fail(DOWN)
                raise Unavailable(DOWN) from error
            topic.is_open = True
        self._mark([topic.key])  # A call that came meanwhile was not heeded.

    async def _listen(self) -> None:
        """Mark the streams that are called out, for as long as the process lives."""
        while True:
            try:
                await self._heed_calls()
            except UNREACHABLE as error:
                log.info("nobody listens to live streams", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _heed_calls(self) -> None:
        async with self._bell.pubsub() as bell:
            await bell.subscribe(CHANNEL)
            is_pong_owed = False
            while True:
                rung = await bell.get_message(timeout=LOOK_SECONDS)
                if rung is None:
                    if is_pong_owed:
                        raise TimeoutError("Redis no longer answers")
                    is_pong_owed = True
                    await bell.ping()
                elif rung["type"] == "message":
                    self._mark([rung["data"]])
                elif rung["type"] == "pong":
                    is_pong_owed = False
                else:
                    self._mark(self._topics)  # It begins to listen: nobody did before.

    async def _look(self) -> None:
        """Read the streams that are marked, and all of them now and then."""
        clock = asyncio.get_running_loop().time
        heard_at = clock()
        while True:
            try:
                await self._called_out()
                while self._dirty:
                    await self._read_some()
                heard_at = clock()
            except UNREACHABLE as error:
                self._mark(self._topics)
                if clock() - heard_at > OUTAGE_SECONDS and self._topics:
                    log.warning("live streams ended", error=str(error))
                    self._fail()
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("live streams failed")
                self._fail()

    async def _called_out(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._news.wait()
        except TimeoutError:
            self._mark(self._topics)
        self._news.clear()

    async def _read_some(self) -> None:
        keys = list(self._dirty)[:STREAMS_AT_ONCE]
        topics = {key: self._topics[key] for key in keys if key in self._topics}
        ends = {key: topic.end for key, topic in topics.items() if topic.is_open}
        for key in keys:
            del self._dirty[key]  # Before it is read: from here on it may be called out again.
        pages = await self._log.news(ends, count=READ_AT_ONCE) if ends else {}
        for key, messages in pages.items():
            topics[key].publish(messages)
            if len(messages) == READ_AT_ONCE:
                self._mark([key])
        self._make_room()

    def _make_room(self) -> None:
        """Let go of the oldest messages of whichever stream holds most, until the rest fits."""
        held = sum(topic.held_bytes for topic in self._topics.values())
        while held > HELD_BYTES_MAX:
            held -= max(self._topics.values(), key=lambda topic: topic.held_bytes).cut_off()

    def _mark(self, keys: Iterable[str]) -> None:
        self._dirty |= dict.fromkeys(key for key in keys if key in self._topics)
        self._news.set()

    def _fail(self) -> None:
        for topic in list(self._topics.values()):
            topic.fail(DOWN)
