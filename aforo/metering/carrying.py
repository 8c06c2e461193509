"""Ingestion by way of a topic: what is accepted is durable once the brokers have it, and comes into
PostgreSQL later, where its key is decided for good.

What is not accepted at once goes the short way: events whose key is known, what is rejected and
what is quarantined.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from aforo.metering import taking
from aforo.metering.backlog import topic_read_until
from aforo.metering.carried import record_of
from aforo.metering.deduplicate import KnownKey
from aforo.metering.room import Room
from aforo.metering.rounds import Batch, Key, SortedOut, key_of
from aforo.metering.stored import StoredEvent
from aforo.metering.verdicts import IngestAnswer, answer
from aforo.sdk.errors import Unavailable
from aforo.storage.faults import RETRY_AFTER_SECONDS, answered_within
from aforo.storage.scope import Runtime
from aforo.storage.together import Together

if TYPE_CHECKING:
    from aforo.storage.topic import Topic

BEHIND_MAX = timedelta(hours=6)
"""How late the events of the topic may reach PostgreSQL: the brokers are to keep them for longer.
"""


READ_SECONDS_MAX = 10.0
"""How long a correction waits for what was sent before it."""
LOOK_SECONDS = 0.1


async def carry(runtime: Runtime, topic: "Topic", batch: Batch, *, atomic: bool) -> IngestAnswer:
    """Keep a batch. What is said to be accepted is durable, but another process may have accepted
    an event under the same key a moment before: then that one counts.

    A batch that is atomic, and a correction of another event, is decided by PostgreSQL at once.

    Raises: `BatchRefused`; `Unavailable`, where some of the batch may be kept all the same.
    """
    carrying = _carrying(runtime, topic)
    await carrying.room.demand()
    sorted_out = SortedOut([batch])
    keys = [key_of(batch.tenant_id, one.item.key_hash) for one in batch.prepared]
    asked = [*keys, *sorted_out.targets]
    known = await carrying.looks.do(asked, size=len(asked)) if asked else {}
    is_target_missing = not sorted_out.targets.keys() <= known.keys()
    if atomic:
        if is_target_missing:
            await _until_read(runtime, topic)
        return await taking.take(runtime, batch, atomic=True)
    carried = {
        key: one.item.index
        for key, (_, one) in sorted_out.firsts.items()
        if key not in known
        and isinstance(one.result, StoredEvent)
        and one.item.event.supersedes is None
    }
    records, rest, repeats = [], [], set()
    for key, one in zip(keys, batch.prepared, strict=True):
        if key not in carried or one.item.index < carried[key]:
            rest.append(one)  # What is rejected leaves its key to the next.
            continue
        if one.item.index > carried[key]:
            repeats.add(one.item.index)
        records.append(record_of(batch.tenant_id, one, is_repeat=one.item.index in repeats))
    if records:
        await topic.send(records)
    verdicts = [
        verdict for verdict in sorted_out.answers(known)[0].verdicts if verdict.index in repeats
    ]
    short = batch._replace(received=batch.received - len(records), prepared=rest)
    if is_target_missing:
        await _until_read(runtime, topic)  # It may be on its way, or have come just now.
    if short.received or not records:
        verdicts += (await taking.take(runtime, short, atomic=False)).verdicts
    return answer(batch.received, verdicts)


async def _until_read(runtime: Runtime, topic: "Topic") -> None:
    """Wait until all that was sent before now is in PostgreSQL. Raises: `Unavailable`."""
    now = runtime.clock.now()
    try:
        async with asyncio.timeout(READ_SECONDS_MAX):
            while True:
                async with runtime.system("see how far the topic is read") as db:
                    until = await topic_read_until(db, topic.name)
                if until is not None and until >= now:
                    return
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError as error:
        raise Unavailable(
            "what is to be corrected may be on its way still; try again",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        ) from error


class _TopicRoom(Room):
    """Whether those who read the topic are there, and keep up."""

    def __init__(self, runtime: Runtime, topic: str) -> None:
        super().__init__(runtime)
        self._topic = topic

    async def _look(self) -> str | None:
        async with self._runtime.system("see how far the topic is read") as db:
            behind = await topic_read_until(db, self._topic)
        if behind is None:
            return "no worker has begun to read the topic"
        late = self._runtime.clock.now() - behind
        return f"the topic is read {late} behind" if late > BEHIND_MAX else None


class _Carrying:
    """What the requests of a process share."""

    def __init__(self, runtime: Runtime, topic: str) -> None:
        self.room = _TopicRoom(runtime, topic)
        self.looks = Together(self._known, bounds=taking.BOUNDS, name="ingestion")
        self._runtime = runtime

    async def _known(self, several: Sequence[Sequence[Key]]) -> list[dict[Key, KnownKey]]:
        asked = {key for keys in several for key in keys}
        async with (
            answered_within(taking.ROUND_SECONDS_MAX),
            self._runtime.system("look keys up") as db,
        ):
            return [await taking.known_keys(db, asked)] * len(several)


def _carrying(runtime: Runtime, topic: "Topic") -> _Carrying:
    key = ("carrying", topic)
    if key not in runtime.common:
        runtime.common[key] = _Carrying(runtime, topic.name)
    carrying: _Carrying = runtime.common[key]
    return carrying
