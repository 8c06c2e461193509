"""Live streams as subscriptions see them: cursors, filters, and what a reader has missed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from uuid import UUID

import strawberry

from aforo.api.parts import cursors
from aforo.api.parts.context import Context
from aforo.api.parts.loaders import BatchQuery
from aforo.storage.live_log import START, Message, Missed, Position
from aforo.storage.live_topic import FellBehind, Follower, Wants

After = Annotated[
    str | None,
    strawberry.argument(
        description="Go on after this cursor, as `extensions.cursor` of an answer gave it. "
        "Over server-sent events the header `Last-Event-ID` comes first."
    ),
]

MEMO_MAX = 32
"""Things that readers share of one message, which lives as long as one of them is behind."""

T = TypeVar("T")


@dataclass(slots=True)
class Followed:
    """What a subscription follows."""

    stream: str
    follower: Follower
    memo: dict[Any, Any] | None = None
    """Where readers keep what they share of the message that was given last."""
    counts: bool = True
    """Whether it is told how many messages were missed: a portal is not, of whom all others are."""

    @property
    def cursor(self) -> str:
        """Where it stands: up to there it has looked, whether or not anything was for it."""
        return cursor_of(self.stream, self.follower.seen)

    @property
    def extensions(self) -> dict[str, Any]:
        """What is told beside the answer that was made last."""
        missed = self.follower.missed
        told: dict[str, Any] = {"cursor": self.cursor}
        return told | {"missed": self._told(missed)} if missed else told

    def farewell(self, error: FellBehind) -> dict[str, Any]:
        """What is told to a reader that is cut off."""
        return {"cursor": self.cursor, "missed": self._told(error.missed)}

    def _told(self, missed: Missed) -> dict[str, Any]:
        told = told_missed(self.stream, missed)
        return told if self.counts else told | {"count": None}


@asynccontextmanager
async def opened(
    context: Context, stream: str, *, after: str | None = None, wants: Wants | None = None
) -> AsyncIterator[Follower]:
    """The caller's live stream of a name, from after a cursor or from now on; a portal gets only
    the messages of its customer.

    Not inside of a scope, which would keep a transaction open for as long. Raises: `Invalid` for a
    cursor of another stream; `Unavailable`.
    """
    # A reader that reconnects asks as it did at first; what the transport says is newer.
    cursor = context.resume_after or after
    position = position_of(stream, cursor) if cursor else None
    live = context.runtime.live.of(context.caller.tenant_id)
    follower = await live.follow(stream, after=position, wants=_within(context, wants))
    counts = context.caller.customer_id is None
    context.followed = Followed(stream, follower, counts=counts)
    try:
        yield follower
    finally:
        follower.close()


def is_resumed(context: Context, after: str | None) -> bool:
    """Whether a reader says up to where it has followed a stream before."""
    return bool(context.resume_after or after)


async def follow(
    context: Context, stream: str, *, after: str | None = None, wants: Wants | None = None
) -> AsyncIterator[Message]:
    """The messages of `opened`. Raises in addition: `FellBehind`."""
    async with opened(context, stream, after=after, wants=wants) as follower:
        assert context.followed is not None, "it has just been opened"
        async for message in follower:
            context.followed.memo = message.memo
            yield message


def cursor_of(stream: str, position: Position | None) -> str:
    """The opaque text of a position."""
    at = position or START
    return cursors.cursor_at(stream, at.moment, at.sequence, at.epoch, at.number)


def position_of(stream: str, cursor: str) -> Position:
    """The position in a stream. Raises `Invalid`, code `BAD_CURSOR`."""
    name, *numbers = cursors.cursor_parts(cursor, 5)
    if name != stream or not all(each.isdecimal() and len(each) < 20 for each in numbers):
        raise cursors.bad_cursor("after is no cursor of this stream: give one that it gave")
    return Position(*map(int, numbers))


def told_missed(stream: str, missed: Missed) -> dict[str, Any]:
    """What is missing, as a client learns it."""
    return {
        "count": missed.count,
        "after": cursor_of(stream, missed.after),
        "before": cursor_of(stream, missed.before) if missed.before else None,
    }


def matching(**wanted: object) -> Callable[[Mapping[str, Any]], bool]:
    """A filter of messages: those whose members are as wanted; None is no wish."""
    wishes = {name: value for name, value in wanted.items() if value is not None}
    return lambda data: all(data.get(name) == value for name, value in wishes.items())


async def shared(
    memo: dict[Any, Any],
    key: object,
    make: Callable[[], Awaitable[T]],
    *,
    keeps: Callable[[T], bool] = lambda _made: True,
) -> T:
    """What `make` gives: worked out once for all who share a memo, and kept if it is worth it."""
    lock: asyncio.Lock = memo.get((key, "lock")) or asyncio.Lock()
    if len(memo) < MEMO_MAX:
        memo[key, "lock"] = lock
    async with lock:
        if key in memo:
            kept: T = memo[key]
            return kept
        made = await make()
        if keeps(made) and len(memo) < MEMO_MAX:
            memo[key] = made
        return made


async def row(context: Context, message: Message, query: BatchQuery[UUID, T]) -> T | None:
    """The row that a message is about, read once for all who follow its stream here."""
    # Apart for each portal: what its scope does not see is there for others.
    id_ = UUID(message.data["id"])
    key = (query, context.caller.customer_id)
    return await shared(message.memo, key, lambda: context.load(query, id_))


def _within(context: Context, wants: Wants | None) -> Wants | None:
    only = context.caller.customer_id
    if only is None:
        return wants
    return lambda data: data.get("customerId") == str(only) and (wants is None or wants(data))
