"""One live stream in this process: the ring of its messages, and those who follow it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from aforo.sdk.errors import AforoError, Unavailable
from aforo.storage.live_log import Message, Missed, Position, gap

RING_MESSAGES_MAX = 1_000
"""Of one stream, which a reader may be behind."""

Wants = Callable[[Mapping[str, Any]], bool]
Read = Callable[[str, Position | None, Position], Awaitable[list[Message]]]
"""Some messages of a key's log, past one position and up to another."""


class FellBehind(AforoError):
    """A reader took so little that what is next for it is no longer held here."""

    code = "TOO_SLOW"

    def __init__(self, missed: Missed) -> None:
        super().__init__(
            f"this stream was {missed.count or 'too many'} messages behind and was ended: "
            "take them faster, and go on after the last cursor that you have"
        )
        self.missed = missed


class Topic:
    """One stream, with the ring of those of its messages that not every follower has taken."""

    def __init__(self, key: str, *, read: Read, on_end: "Callable[[Topic], None]") -> None:
        self.key = key
        self.read = read
        self._on_end = on_end
        self.opening = asyncio.Lock()
        self.is_open = False
        self.end: Position | None = None
        """Of the last message that was read; None where there is none."""
        self.failure: str | None = None
        """Why the stream has ended for all who follow it."""
        self.followers: set[Follower] = set()
        self.ring: dict[int, Message] = {}
        self.base = self.head = 0
        """Places of the oldest message that is held, and of the next one to come."""
        self.held_bytes = 0
        self._crowd: dict[int, int] = {}
        """Followers by their place."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Give messages that were read to everybody."""
        for message in messages:
            self.ring[self.head] = message
            self.head += 1
            self.end = message.position
            self.held_bytes += message.size
        self._let_go()
        while self.head - self.base > RING_MESSAGES_MAX:
            self.cut_off()
        for follower in list(self.followers):
            if follower.is_waiting and follower.is_ready():
                follower.news.set()

    def join(self, follower: "Follower") -> None:
        """Give a follower the place of the next message to come."""
        follower.place = self.head
        self._crowd[self.head] = self._crowd.get(self.head, 0) + 1

    def take(self, follower: "Follower") -> Message | None:
        """What is at the follower's place, which moves on; None where nothing is there yet.

        Raises: `FellBehind`, `Unavailable`.
        """
        place = follower.place
        assert place is not None, "it has joined"
        if self.failure is not None:
            raise Unavailable(self.failure)
        if place < self.base:
            raise FellBehind(self._missed_by(follower))
        if place == self.head:
            return None
        message = self.ring[place]
        follower.place = place + 1
        self._crowd[place + 1] = self._crowd.get(place + 1, 0) + 1
        self._thin(place)
        return message

    def vacate(self, follower: "Follower") -> None:
        """A follower no longer waits for what is at its place."""
        if follower.place is not None and follower.place >= self.base:
            self._thin(follower.place)
        follower.place = None

    def leave(self, follower: "Follower") -> None:
        """A follower is gone."""
        if follower not in self.followers:
            return
        self.followers.remove(follower)
        self.vacate(follower)
        if not self.followers:
            self._crowd.clear()
            self._let_go()
            self._on_end(self)

    def cut_off(self) -> int:
        """Let go of the oldest message, which makes who has not taken it fall behind; and of what
        then nobody waits for. Gives the bytes."""
        held = self.held_bytes
        self._crowd.pop(self.base, None)
        self._drop_oldest()
        self._let_go()
        return held - self.held_bytes

    def fail(self, failure: str) -> None:
        """End the stream for all who follow it."""
        self.failure = failure
        self._on_end(self)
        for follower in self.followers:
            follower.news.set()

    def _thin(self, place: int) -> None:
        self._crowd[place] -= 1
        if not self._crowd[place]:
            del self._crowd[place]
            self._let_go()

    def _let_go(self) -> None:
        while self.base < self.head and self.base not in self._crowd:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self.held_bytes -= self.ring.pop(self.base).size
        self.base += 1

    def _missed_by(self, follower: "Follower") -> Missed:
        seen, end = follower.seen, self.end
        assert end is not None, "there were messages"
        if seen is None:
            return Missed(Position(0, 0, end.epoch, 0), None, end.number)
        return Missed(seen, None, end.number - seen.number if seen.epoch == end.epoch else None)


class Follower:
    """One reader of a stream: an iterator that gives no message twice, and tells of a gap."""

    def __init__(self, topic: Topic, after: Position | None, wants: Wants | None) -> None:
        topic.followers.add(self)
        self._topic = topic
        self._after = after
        self._wants = wants or _all
        self._replay: deque[Message] = deque()
        self._skipped: Missed | None = None
        self.news = asyncio.Event()
        self.is_waiting = False
        self.place: int | None = None
        """In the ring; None while it reads the log, to catch up."""
        self.seen = after
        """Up to where it has looked, whether or not it wanted what was there."""
        self.missed: Missed | None = None
        """What it could not get before the message that was given last."""

    def begin(self) -> None:
        """Take a place in the ring, if no position was asked for."""
        if self._after is None:
            self.seen = self._topic.end
            self._topic.join(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message that is wanted. Raises: `FellBehind`, `Unavailable`."""
        while True:
            message = self._take()
            if message is not None:
                if self._wants(message.data):
                    self.missed, self._skipped = self._skipped, None
                    return message
            elif self.place is None:
                await self._catch_up()
            else:
                await self._wait()

    async def several(self, *, most: int) -> list[Message]:
        """The next message that is wanted, and those behind it that are at hand; `missed` is what
        could not be got before any of them. Raises: `FellBehind`, `Unavailable`."""
        found, missed = [await anext(self)], self.missed
        while len(found) < most and self._is_at_hand():
            found.append(await anext(self))  # Without waiting.
            if self.missed is not None:
                missed = self.missed if missed is None else _joined(missed, self.missed)
        self.missed = missed
        return found

    def jump(self) -> bool:
        """Pass over all that is there; whether there was anything."""
        end = self._topic.end
        self._replay.clear()
        self._topic.vacate(self)
        self._topic.join(self)
        self._skipped = self.missed = None
        return self.pass_over(end)

    def pass_over(self, position: Position | None) -> bool:
        """Pass over what stands up to a position; whether there was anything."""
        if position is None or not position.is_past(self.seen):
            return False
        self.seen = position
        return True

    def close(self) -> None:
        """Give the place up."""
        self._topic.leave(self)

    def is_ready(self) -> bool:
        """Whether there is something for it; passes over what it does not want."""
        topic = self._topic
        while topic.failure is None and self.place is not None and self.place >= topic.base:
            if self.place == topic.head:
                return False
            if self._wants(topic.ring[self.place].data):
                return True
            self._take()
        return True

    def _is_at_hand(self) -> bool:
        """Whether a message that is wanted can be taken now, and nothing else is to be said."""
        if self._topic.failure is not None:
            return False
        if self.place is None:
            return any(self._wants(message.data) for message in self._replay)
        return self.place >= self._topic.base and self.is_ready()

    def _take(self) -> Message | None:
        """The next message, wanted or not; None where there is none at hand."""
        while True:
            if self.place is not None:
                message = self._topic.take(self)
            else:
                message = self._replay.popleft() if self._replay else None
            if message is None:
                return None
            if message.position.is_past(self.seen):
                break
        if (found := gap(self.seen, message.position)) is not None:
            self._skipped = found if self._skipped is None else _joined(self._skipped, found)
        self.seen = message.position
        return message

    async def _catch_up(self) -> None:
        end = self._topic.end
        if end is not None and end.is_past(self.seen):
            self._replay.extend(await self._topic.read(self._topic.key, self.seen, end))
            if self._replay:
                return
            # What was there is gone from the log; the next message tells how much it was.
        self._topic.join(self)

    async def _wait(self) -> None:
        self.news.clear()
        self.is_waiting = True
        try:
            await self.news.wait()
        finally:
            self.is_waiting = False


def _joined(first: Missed, second: Missed) -> Missed:
    known = first.count is not None and second.count is not None
    count = (first.count or 0) + (second.count or 0) if known else None
    return Missed(first.after, second.before, count)


def _all(_data: Mapping[str, Any]) -> bool:
    return True
