"""Tallies in Redis: what customers have used of their quotas, and what is held for usage to come.

A tally has what the confirmed log says was used, and the sum of the units that are held: taken at
the gate, and not in the log yet. A hold has the name of the usage that it is for; once the log has
that usage the hold is settled, so that nothing is counted twice. Each call is one script, so that
of those who take at once none gets what another has got.

Quantities are whole units beside millionths of millionths, because a number of Redis's scripts is
exact up to 2^53 and no further.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256
from typing import Any

import structlog
from redis.asyncio import Redis

from aforo.sdk.errors import Unavailable
from aforo.sdk.ids import TenantId
from aforo.storage.live_log import UNREACHABLE
from aforo.storage.redis_client import redis_client
from aforo.storage.tally_scripts import FINISH, LOOK, PICO, SETTLE, TAKE

ANSWER_TIMEOUT_SECONDS = 0.25
"""Whoever asks stands at a gate."""
SETTLE_TIMEOUT_SECONDS = 10
REST_SECONDS = 0.5
"""How long Redis is left alone after it did not answer."""
CONNECTIONS_MAX = 50
HOLDS_MAX = 100_000
"""Of one customer."""
TALLY_SECONDS = 40 * 24 * 3600
SETTLED_AT_ONCE = 1_000
LAST_MAX = 50_000
"""Tallies that a process remembers, for when Redis is away."""

_HASH, _LOG, _TALLIED = "tally", "tallies", "tallied"

log = structlog.get_logger()


class HoldState(StrEnum):
    """Where a hold stands."""

    RESERVED = "R"
    CONSUMED = "C"
    SETTLED = "S"
    """The confirmed log has the usage."""
    RELEASED = "X"
    EXPIRED = "E"


@dataclass(frozen=True, slots=True)
class Tally:
    """What a customer has used of one quota in one window."""

    used: Decimal
    """By the confirmed log."""
    held: Decimal
    segment: int
    """Up to where the log was counted."""

    @property
    def total(self) -> Decimal:
        return self.used + self.held


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a tenant's tallies have followed the log, in segments."""

    begun: int
    """The last by which they were to be moved on."""
    seen: int
    """The last by which all were."""
    gap: int
    """Tallies that were counted before this one may have missed some, and are counted again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Units that are to be held."""

    name: str
    quantity: Decimal
    state: HoldState
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class HoldKept:
    """A hold as it is kept."""

    state: HoldState
    tally: str
    quantity: Decimal


class Outcome(StrEnum):
    """What came of taking or finishing a hold."""

    TAKEN = "TAKEN"
    KNOWN = "KNOWN"
    """The name was used before; what was taken then stands."""
    FULL = "FULL"
    COLD = "COLD"
    """There is no tally: it has to be counted first."""
    CROWDED = "CROWDED"
    DONE = "DONE"
    OVER = "OVER"
    """It was finished before, or is no reservation."""
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it, with what there is now."""

    outcome: Outcome
    tally: Tally | None = None
    hold: HoldKept | None = None


def hold_name(idempotency_key: str) -> str:
    """The name of what is held for the usage that has this key."""
    return sha256(idempotency_key.encode()).hexdigest()[:32]


class Tallies:
    """The process's connections for tallies."""

    def __init__(self, url: str) -> None:
        self._quick, self._patient = (
            redis_client(url, answer_seconds=seconds, connections_max=CONNECTIONS_MAX)
            for seconds in (ANSWER_TIMEOUT_SECONDS, SETTLE_TIMEOUT_SECONDS)
        )
        self.look = self._quick.register_script(LOOK)
        self.take = self._quick.register_script(TAKE)
        self.finish = self._quick.register_script(FINISH)
        self.settle = self._patient.register_script(SETTLE)
        self._rests_until = 0.0
        self._last: OrderedDict[str, Tally] = OrderedDict()

    def of(self, tenant_id: TenantId) -> "TenantTallies":
        """What one tenant may touch."""
        return TenantTallies(self, f"aforo:{tenant_id}:")

    @property
    def patient(self) -> Redis:
        """For work that nobody waits for."""
        return self._patient

    async def ask(self, script: Any, *, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script at once or not at all. Raises: `Unavailable`."""
        if time.monotonic() < self._rests_until:
            raise Unavailable("Redis did not answer a moment ago")
        try:
            return await script(keys=keys, args=args)
        except (*UNREACHABLE, TimeoutError) as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            log.warning("tallies cannot be reached", error=type(error).__name__)
            raise Unavailable("Redis does not answer") from error

    def note(self, key: str, tally: Tally | None) -> None:
        """Remember what was seen last."""
        if tally is None:
            return
        self._last[key] = tally
        self._last.move_to_end(key)
        if len(self._last) > LAST_MAX:
            self._last.popitem(last=False)

    def last(self, key: str) -> Tally | None:
        """What was seen last."""
        return self._last.get(key)

    async def close(self) -> None:
        """Give the connections back."""
        await self._quick.aclose()
        await self._patient.aclose()


class TenantTallies:
    """One tenant's tallies; every key starts with the tenant. `of` is the id of a customer."""

    def __init__(self, tallies: Tallies, prefix: str) -> None:
        self._tallies = tallies
        self._prefix = prefix

    async def look(self, of: str, names: Sequence[str], now: datetime) -> list[Tally | None]:
        """The tallies of these names; None for one that is to be counted. Raises: `Unavailable`."""
        found = await self._tallies.ask(
            self._tallies.look, keys=self._keys(of), args=[self._of(of), _ms(now), *names]
        )
        tallies = [_tally(each) for each in found]
        for name, tally in zip(names, tallies, strict=True):
            self._tallies.note(self._of(of) + name, tally)
        return tallies

    def last_known(self, of: str, names: Sequence[str]) -> list[Tally] | None:
        """The tallies as this process saw them last; None where it has not seen all of them."""
        found = [self._tallies.last(self._of(of) + name) for name in names]
        known = [each for each in found if each is not None]
        return known if len(known) == len(names) else None

    async def take(
        self, of: str, name: str, hold: Hold, now: datetime, *, at_most: Decimal | None
    ) -> Answer:
        """Hold units unless the tally would exceed what it may have. Raises: `Unavailable`."""
        limit = ("", "") if at_most is None else _limbs(at_most)
        found = await self._tallies.ask(
            self._tallies.take,
            keys=self._keys(of),
            args=[
                self._of(of),
                _ms(now),
                name,
                hold.name,
                *_limbs(hold.quantity),
                hold.state.value,
                _ms(hold.ends_at),
                *limit,
                HOLDS_MAX,
                TALLY_SECONDS * 1000,
            ],
        )
        outcome = Outcome(found[0])
        match outcome:
            case Outcome.KNOWN:
                return Answer(outcome, _tally(found[5]), _kept(found[1:5]))
            case Outcome.TAKEN | Outcome.FULL:
                tally = _tally(found[1])
                self._tallies.note(self._of(of) + name, tally)
                return Answer(outcome, tally)
            case _:
                return Answer(outcome)

    async def finish(
        self,
        of: str,
        hold_name: str,
        now: datetime,
        *,
        quantity: Decimal = Decimal(0),
        state: HoldState,
        ends_at: datetime,
    ) -> Answer:
        """Make a reservation CONSUMED with a quantity, or RELEASED. Raises: `Unavailable`."""
        found = await self._tallies.ask(
            self._tallies.finish,
            keys=self._keys(of),
            args=[
                self._of(of),
                _ms(now),
                hold_name,
                *_limbs(quantity),
                state.value,
                _ms(ends_at),
            ],
        )
        outcome = Outcome(found[0])
        if outcome is Outcome.NONE:
            return Answer(outcome)
        return Answer(outcome, _tally(found[5]), _kept(found[1:5]))

    async def holders(self, ofs: Sequence[str]) -> set[str]:
        """Those of these customers for whom anything is held. Raises `RedisError`."""
        async with self._tallies.patient.pipeline(transaction=False) as pipe:
            for of in ofs:
                pipe.exists(self._keys(of)[0])
            return {of for of, there in zip(ofs, await pipe.execute(), strict=True) if there}

    async def tallies(self, wanted: Sequence[tuple[str, str]]) -> list[Tally | None]:
        """The tallies of customers, by name, as they are kept. Raises `RedisError`."""
        async with self._tallies.patient.pipeline(transaction=False) as pipe:
            for of, name in wanted:
                pipe.hmget(self._of(of) + name, ["u", "p", "hu", "hp", "s"])
            found = await pipe.execute()
        gap = (await self.progress()).gap
        tallies = [_tally(each) for each in found]
        return [None if each is None or each.segment < gap else each for each in tallies]

    async def settle(
        self,
        of: str,
        now: datetime,
        *,
        names: Sequence[str] = (),
        used: Mapping[str, Tally],
        is_new: bool = False,
    ) -> bool:
        """Say what the log has: of which usage, and what was used by now. A tally that has
        counted further stays as it is.

        False where tallies that are new were counted too early, and have to be counted again.
        Raises `RedisError`.
        """
        values: list[Any] = []
        for name, tally in used.items():
            values += [name, *_limbs(tally.used), tally.segment]
        first = [self._of(of), _ms(now), int(is_new), TALLY_SECONDS * 1000]
        is_kept = True
        for at in range(0, max(len(names), 1), SETTLED_AT_ONCE):
            some = names[at : at + SETTLED_AT_ONCE]
            args = [*first, len(some), *some, *(values if at == 0 else [])]
            is_kept &= bool(await self._tallies.settle(keys=self._keys(of), args=args))
        if is_new and is_kept:
            async with self._tallies.patient.pipeline(transaction=False) as pipe:
                pipe.sadd(self._prefix + _TALLIED, of)
                pipe.expire(self._prefix + _TALLIED, TALLY_SECONDS)
                await pipe.execute()
        return is_kept

    async def tallied(self, count: int) -> list[str]:
        """Some of the customers that have tallies, at random. Raises `RedisError`."""
        found: Any = await self._tallies.patient.srandmember(self._prefix + _TALLIED, count)  # type: ignore[misc]
        return list(found)

    async def progress(self) -> "Progress":
        """How far tallies were moved on. Raises `RedisError`."""
        fields = ["begun", "seen", "gap"]
        found: Any = await self._tallies.patient.hmget(self._prefix + _LOG, fields)  # type: ignore[misc]
        return Progress(*(int(each or 0) for each in found))

    async def set_progress(self, progress: "Progress") -> None:
        """Raises `RedisError`."""
        fields = {"begun": progress.begun, "seen": progress.seen, "gap": progress.gap}
        await self._tallies.patient.hset(self._prefix + _LOG, mapping=fields)  # type: ignore[misc]

    def _of(self, of: str) -> str:
        return f"{self._prefix}{_HASH}:{of}:"

    def _keys(self, of: str) -> list[str]:
        name = self._prefix + "holds"
        return [f"{name}:{of}", f"{name}-by-end:{of}", self._prefix + _LOG]


def _limbs(quantity: Decimal) -> tuple[str, str]:
    scaled = int(quantity.scaleb(12))
    return str(scaled // PICO), str(scaled % PICO)


def _joined(units: str, pico: str) -> Decimal:
    return Decimal(int(units) * PICO + int(pico)).scaleb(-12).normalize() + 0


def _tally(found: Sequence[Any]) -> Tally | None:
    """As it is kept; None where it is not."""
    units, pico, held, held_pico, segment = found
    if not units:
        return None
    return Tally(
        _joined(units, pico or "0"), _joined(held or "0", held_pico or "0"), int(segment or 0)
    )


def _kept(found: Sequence[str]) -> HoldKept:
    state, tally, units, pico = found
    return HoldKept(HoldState(state), tally, _joined(units, pico))


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
