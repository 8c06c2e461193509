"""A schema of odd shapes: every way in which a value can be unlike what its field promises."""

import asyncio
import enum
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from random import Random
from typing import Annotated, Any, Generic, TypeVar

import strawberry
from strawberry.schema.config import StrawberryConfig

from aforo.api.parts.scalars import JSON, SCALARS, BigInt
from aforo.sdk.errors import Invalid


@strawberry.enum
class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@strawberry.enum
class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


@strawberry.interface
class Named:
    name: str
    note: str | None


T = TypeVar("T")


@strawberry.type
class Box(Generic[T]):
    label: str
    content: T


@strawberry.type
class Plain(Named):
    """Whatever is odd about it is in its values."""

    number: int
    amount: Decimal | None
    flag: bool
    ratio: float | None
    colour: Colour
    mood: Mood | None
    big: BigInt | None
    any: JSON | None
    words: list[str]
    maybes: list[str | None] | None
    grid: list[list[int]] | None
    twin: "Plain | None"
    others: list["Plain"]
    named: Named | None
    either: "Either | None"
    box: Box[str] | None
    crate: "Box[Plain] | None"


@strawberry.type
class Busy(Named):
    """It has resolvers beside its attributes."""

    number: int
    plain: Plain
    crowd: list["Busy"]
    words: list[str] | None

    @strawberry.field
    def twice(self) -> int:
        return self.number * 2

    @strawberry.field
    async def later(self, turns: int = 1) -> int | None:
        for _ in range(turns):
            await asyncio.sleep(0)
        return self.number

    @strawberry.field
    async def friend(self, seed: int = 3) -> Plain | None:
        await asyncio.sleep(0)
        return plain(Random(seed + self.number), 1)

    @strawberry.field
    def fails(self) -> str:
        raise Invalid(f"{self.number} cannot", field="fails")

    @strawberry.field
    async def fails_later(self) -> str | None:
        await asyncio.sleep(0)
        raise ValueError("a bug")


@strawberry.type
class Judged:
    """It says itself which values are of its type."""

    name: str

    @classmethod
    def is_type_of(cls, value: Any, _info: Any) -> bool:
        return getattr(value, "name", "") != "not judged"


Either = Annotated[Plain | Busy | Box[str] | Judged, strawberry.union("Either")]


class Duck:
    """No GraphQL type, and yet it has the attributes of one."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Awaited:
    """Can be awaited as often as somebody wants."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Iterator[None]:
        yield None
        return self._value


class Kin(Plain):
    """A class below a type, which is no type of its own."""


async def _stream(*values: Any) -> AsyncIterator[Any]:
    for value in values:
        yield value


def _leaf(random: Random, good: Any) -> Any:
    """Mostly what is promised."""
    if random.random() < 0.94:
        return good
    return random.choice(
        [
            None,
            42,
            2**40,
            1.5,
            float("nan"),
            True,
            "text",
            Decimal("NaN"),
            Decimal("1.50"),
            Colour.BLUE,
            Mood.GOOD,
            "red",
            ValueError("as a value"),
            Awaited(good),
            Awaited(None),
            [good],
            {"a": 1},
            object,
            b"bytes",
        ]
    )


def _many(random: Random, items: list[Any]) -> Any:
    if random.random() < 0.9:
        return items
    return random.choice(
        [
            None,
            tuple(items),
            (item for item in items),
            _stream(*items),
            dict.fromkeys(range(len(items)), 1),
            "a text",
            7,
            [*items, None],
            [None, *items],
            [*items, KeyError("in a list"), *items],
            [Awaited(item) for item in items],
            Awaited(items),
        ]
    )


def plain(random: Random, depth: int) -> Any:
    """A `Plain`, or something that is put in its place."""
    made = random.choices([Plain, Kin, Duck], [0.93, 0.04, 0.03])[0]
    value = made(
        name=_leaf(random, f"plain {random.randint(0, 9)}"),
        note=_leaf(random, random.choice([None, "a note"])),
        number=_leaf(random, random.randint(-5, 5)),
        amount=_leaf(random, random.choice([None, Decimal("12.50")])),
        flag=_leaf(random, True),
        ratio=_leaf(random, 0.5),
        colour=_leaf(random, random.choice(list(Colour))),
        mood=_leaf(random, random.choice([None, Mood.BAD])),
        big=_leaf(random, 2**50),
        any=_leaf(random, {"a": [1, Decimal("0.1"), None]}),
        words=_many(random, [_leaf(random, "a"), _leaf(random, "b")]),
        maybes=_many(random, [None, _leaf(random, "c")]),
        grid=_many(random, [[1, 2], _many(random, [_leaf(random, 3)])]),
        twin=plain(random, depth - 1) if depth and random.random() < 0.7 else None,
        others=_many(random, [plain(random, depth - 1) for _ in range(2)] if depth else []),
        named=anything(random, depth - 1) if depth and random.random() < 0.7 else None,
        either=anything(random, depth - 1) if depth and random.random() < 0.7 else None,
        box=Box(label=_leaf(random, "box"), content=_leaf(random, "inside")),
        crate=Box(label="crate", content=plain(random, depth - 1)) if depth else None,
    )
    if random.random() < 0.03:
        del value.name
    return value


def busy(random: Random, depth: int) -> Busy:
    return Busy(
        name=_leaf(random, "busy"),
        note=None,
        number=random.randint(0, 5),
        plain=plain(random, depth - 1 if depth else 0),
        crowd=_many(random, [busy(random, depth - 1) for _ in range(2)] if depth else []),
        words=_many(random, ["x"]),
    )


def anything(random: Random, depth: int) -> Any:
    """Of any of the types that can stand for another."""
    depth = max(depth, 0)
    choice = random.random()
    if choice < 0.5:
        return plain(random, depth)
    if choice < 0.7:
        return busy(random, depth)
    if choice < 0.8:
        return Box(label="generic", content="text")
    if choice < 0.9:
        return Judged(name=random.choice(["judged", "not judged"]))
    cast = strawberry.cast(random.choice([Plain, Judged]), busy(random, depth))
    return random.choice([cast, {"name": "a dict"}, RuntimeError("in place of a thing"), 5])


@strawberry.type
class Query:
    @strawberry.field
    def plain(self, seed: int) -> Plain | None:
        return plain(Random(seed), 2)

    @strawberry.field
    async def surely(self, seed: int) -> Plain:
        await asyncio.sleep(0)
        return plain(Random(seed), 2)

    @strawberry.field
    def plains(self, seed: int) -> list[Plain]:
        return _many(Random(seed), [plain(Random(seed + n), 1) for n in range(3)])

    @strawberry.field
    async def gaps(self, seed: int) -> list[Plain | None] | None:
        return _many(Random(seed), [plain(Random(seed + n), 1) for n in range(3)])

    @strawberry.field
    async def busy(self, seed: int) -> list[Busy] | None:
        return [busy(Random(seed + n), 2) for n in range(2)]

    @strawberry.field
    def named(self, seed: int) -> list[Named | None]:
        return [anything(Random(seed + n), 1) for n in range(3)]

    @strawberry.field
    async def either(self, seed: int) -> list[Either | None] | None:
        return [anything(Random(seed + n), 1) for n in range(3)]

    @strawberry.field
    def box(self, seed: int) -> Box[Plain] | None:
        return Box(label="box", content=plain(Random(seed), 1))


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def change(self, info: strawberry.Info, seed: int) -> Plain | None:
        # Later for small seeds: only one after the other do they note themselves in order.
        for _ in range(20 - seed % 20):
            await asyncio.sleep(0)
        info.context.append(seed)
        return plain(Random(seed), 1)

    @strawberry.mutation
    def change_now(self, info: strawberry.Info, seed: int) -> Plain:
        info.context.append(seed)
        return plain(Random(seed), 1)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def plains(self, seed: int) -> AsyncIterator[Plain | None]:
        for number in range(3):
            yield plain(Random(seed + number), 1)

    @strawberry.subscription
    async def busy(self, seed: int) -> AsyncIterator[Busy]:
        for number in range(2):
            yield busy(Random(seed + number), 1)


schema = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(scalar_map=SCALARS),
)
