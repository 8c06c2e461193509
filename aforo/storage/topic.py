"""The topic that events may go through on their way to PostgreSQL: all that knows Kafka's client.

What was read is never told to the brokers: how far a partition has been read stands in PostgreSQL.
They only say which reader has which partitions.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from aforo.sdk.errors import Unavailable
from aforo.settings import Settings

DELIVERY_SECONDS_MAX = 8.0
LINGER_MILLISECONDS = 5
ANSWER_SECONDS_MAX = 10.0
SESSION_SECONDS = 10.0
"""A reader that gives no sign of life for so long loses its partitions to the others."""
POLL_SECONDS = 0.2
QUEUED_KILOBYTES_MAX = 64 * 1024
GROUP = "aforo"
RETRY_AFTER_SECONDS = 2

T = TypeVar("T")
log = logging.getLogger("aforo.storage.topic")


class RecordsGoneError(Exception):
    """The brokers have deleted what was not read yet."""


class Record(NamedTuple):
    """What was read from the topic."""

    partition: int
    offset: int
    sent_at: datetime
    value: bytes


Places = Callable[[Mapping[int, int]], Awaitable[Mapping[int, int]]]
"""By partition, the oldest offset there is: how far each has been read."""


class Topic:
    """The topic of a process: what it sends, and its reader."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.kafka_topic
        self._settings = settings
        self._sending: _Sending | None = None

    async def send(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Have pairs of key and value kept by every broker that is in sync.

        Raises: `Unavailable` unless all are; some may be kept all the same.
        """
        if self._sending is None or self._sending.is_broken:
            broken, self._sending = self._sending, _Sending(self._settings)
            if broken is not None:
                await asyncio.to_thread(broken.close)
        await self._sending.send(records)

    @asynccontextmanager
    async def reader(self, places: Places) -> AsyncIterator["Reader"]:
        """A reader of the partitions that the brokers give it, from the places that are told.

        Raises: `Unavailable`, `RecordsGoneError`.
        """
        opened = Reader(self._settings, places)
        try:
            yield opened
        finally:
            await asyncio.shield(opened.close())

    async def close(self) -> None:
        """Stop sending; who waits for an answer is told that there is none."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            await asyncio.to_thread(sending.close)


class _Sending:
    """A producer, and the thread that hears what became of its records."""

    def __init__(self, settings: Settings) -> None:
        self.is_broken = False
        self._topic = settings.kafka_topic
        self._producer = Producer(
            {
                **_connection(settings),
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2",
                "compression.type": "zstd",
                "linger.ms": LINGER_MILLISECONDS,
                "delivery.timeout.ms": round(DELIVERY_SECONDS_MAX * 1_000),
            },
            logger=log,
        )
        self._is_open = True
        self._thread = threading.Thread(target=self._hear, name="topic", daemon=True)
        self._thread.start()

    async def send(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[KafkaError | None] = loop.create_future()
        delivery = _Delivery(
            len(records), lambda failure: loop.call_soon_threadsafe(_settle, kept, failure)
        )
        try:
            for key, value in records:
                self._producer.produce(self._topic, value, key, on_delivery=delivery.told)
        except BufferError as error:
            raise Unavailable(
                "more is on its way to the brokers than they take; try again",
                code="OVERLOADED",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from error
        except KafkaException as error:
            self._note(error.args[0])
            raise _unavailable(error.args[0]) from error
        if failure := await kept:
            self._note(failure)
            raise _unavailable(failure)

    def close(self) -> None:
        self._is_open = False
        self._producer.purge()
        self._producer.flush(POLL_SECONDS)
        self._thread.join()

    def _note(self, error: KafkaError) -> None:
        # An idempotent producer that cannot tell what was kept any more is of no use.
        self.is_broken = self.is_broken or error.fatal()

    def _hear(self) -> None:
        while self._is_open:
            self._producer.poll(POLL_SECONDS)


class _Delivery:
    """Counts what became of the records of one sender."""

    def __init__(self, left: int, tell: Callable[[KafkaError | None], object]) -> None:
        self._left = left
        self._tell = tell
        self._failure: KafkaError | None = None

    def told(self, failure: KafkaError | None, _message: Message) -> None:
        self._left -= 1
        self._failure = self._failure or failure
        if self._left == 0:
            self._tell(self._failure)


class Reader:
    """Reads partitions in their order. All that it does is done in one thread of its own."""

    def __init__(self, settings: Settings, places: Places) -> None:
        self._topic = settings.kafka_topic
        self._places = places
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="topic-reader")
        self._fault: BaseException | None = None
        self.positions: dict[int, int] = {}
        """By partition, the next offset to be kept."""
        self._consumer = Consumer(
            {
                **_connection(settings),
                "group.id": f"{GROUP}:{settings.kafka_topic}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "partition.assignment.strategy": "roundrobin",
                "session.timeout.ms": round(SESSION_SECONDS * 1_000),
                "heartbeat.interval.ms": round(SESSION_SECONDS * 200),
                "queued.max.messages.kbytes": QUEUED_KILOBYTES_MAX,
            },
            logger=log,
        )
        self._consumer.subscribe(
            [self._topic], on_assign=self._begin, on_revoke=self._end, on_lost=self._end
        )

    async def read(self, most: int) -> list[Record]:
        """The next records, those of a partition in their order; none after a moment without.

        Raises: `Unavailable`, `RecordsGoneError`.
        """
        messages = await self._do(lambda: self._consumer.consume(most, POLL_SECONDS))
        if self._fault is not None:
            raise self._fault
        return [record for message in messages if (record := self._record(message))]

    async def ends(self) -> dict[int, int]:
        """By partition, the offset that the next record will have, as the broker says now.

        Raises: `Unavailable`.
        """
        bounds = await self._do(lambda: self._bounds(self.positions))
        return {partition: end for partition, (_, end) in bounds.items()}

    async def close(self) -> None:
        """Leave the partitions to others."""
        await self._do(self._consumer.close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await self._loop.run_in_executor(self._thread, work)
        except KafkaException as error:
            raise _unavailable(error.args[0]) from error

    def _record(self, message: Message) -> Record | None:
        if (error := message.error()) is not None:
            if error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:  # noqa: SLF001 — its name.
                raise RecordsGoneError(f"of {self._topic} records are gone: {error.str()}")
            raise _unavailable(error)
        partition, offset, value = message.partition(), message.offset(), message.value()
        assert partition is not None
        assert offset is not None
        # What was read before its partition was given away, and maybe given back.
        if offset < self.positions.get(partition, offset + 1):
            return None
        return Record(partition, offset, _moment(message), value or b"")

    def _begin(self, consumer: Consumer, given: Sequence[TopicPartition]) -> None:
        """In the reader's thread, from within `consume`: partitions are ours from now on."""
        try:
            bounds = self._bounds([each.partition for each in given])
            oldest = {partition: first for partition, (first, _) in bounds.items()}
            asked = asyncio.run_coroutine_threadsafe(_awaited(self._places(oldest)), self._loop)
            self.positions = dict(asked.result(ANSWER_SECONDS_MAX))
            _check_nothing_is_gone(self.positions, oldest)
            consumer.assign(
                [TopicPartition(self._topic, *place) for place in self.positions.items()]
            )
        except KafkaException as error:
            self._fault = _unavailable(error.args[0])
        except Exception as error:  # noqa: BLE001 — whoever reads is told.
            self._fault = error

    def _end(self, consumer: Consumer, _given: Sequence[TopicPartition]) -> None:
        self.positions = {}
        consumer.unassign()

    def _bounds(self, partitions: Any) -> dict[int, tuple[int, int]]:
        return {
            partition: self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=ANSWER_SECONDS_MAX
            )
            for partition in list(partitions)
        }


def _check_nothing_is_gone(places: Mapping[int, int], oldest: Mapping[int, int]) -> None:
    for partition, first in oldest.items():
        if places[partition] < first:
            raise RecordsGoneError(
                f"partition {partition} begins at {first}, and was read up to {places[partition]}: "
                "what was between is gone"
            )


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def _settle(kept: "asyncio.Future[KafkaError | None]", failure: KafkaError | None) -> None:
    if not kept.done():
        kept.set_result(failure)


def _moment(message: Message) -> datetime:
    return datetime.fromtimestamp(message.timestamp()[1] / 1_000, UTC)


def _connection(settings: Settings) -> dict[str, Any]:
    is_known = bool(settings.kafka_username)
    protocol = ("SASL_" if is_known else "") + ("SSL" if settings.kafka_tls else "PLAINTEXT")
    config: dict[str, Any] = {
        "bootstrap.servers": ",".join(settings.kafka_brokers),
        "client.id": "aforo",
        "security.protocol": protocol,
        "log.connection.close": False,
    }
    if settings.kafka_ca_file is not None:
        config["ssl.ca.location"] = str(settings.kafka_ca_file)
    if is_known:
        config |= {
            "sasl.mechanisms": settings.kafka_mechanism,
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password,
        }
    return config


def _unavailable(error: KafkaError) -> Unavailable:
    return Unavailable(
        f"the brokers of the topic have not answered as they should ({error.str()}); try again",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
