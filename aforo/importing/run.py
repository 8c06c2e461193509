"""An import from the first row to the report."""

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx2
import msgspec

from aforo.importing.journal import Header, Journal
from aforo.importing.reading import Progress, Source, batches, digest_of
from aforo.importing.sending import TIMEOUT_SECONDS, Packing, Sender
from aforo.importing.shapes import COUNTS, Batch, NotTaken
from aforo.metering.ingest import key_of, read_event
from aforo.metering.validate import check_time
from aforo.metering.verdicts import Refusal

SHOWN_EVERY_SECONDS = 0.2

_EVENT = msgspec.json.Decoder(float_hook=Decimal)


@dataclass(frozen=True, slots=True)
class Target:
    """Where events are sent, and how."""

    url: str
    key: str
    packing: Packing = Packing.ZSTD
    parallel: int = 4
    give_up_seconds: float = 600.0
    backfill: str | None = None
    """The name of the one that they are added to."""
    transport: httpx2.AsyncBaseTransport | None = None
    """In place of the network."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a file: its rows by verdict."""

    totals: dict[str, int]

    @property
    def rows(self) -> int:
        """How many rows there were."""
        return sum(self.totals.values())

    @property
    def went_in(self) -> bool:
        """Whether every row is kept, and counts."""
        return self.rows == self.totals["accepted"] + self.totals["duplicates"]


async def import_file(source: Source, target: Target, *, state: Path, not_taken: Path) -> Report:
    """Send a file, or what is left of it; rows that do not go in are listed in `not_taken`.

    Raises: `Invalid`, `Conflict`, `Refused`, `Unavailable`; what was acknowledged by then is in
    `state`, and the same call goes on from there.
    """
    digest = digest_of(source.path)
    options = {**source.options, "url": target.url}
    if target.backfill is not None:
        options["backfill"] = target.backfill
    header = Header(sha256=digest, options=options)
    journal, progress = Journal.open(state, header), Progress()
    finished = False
    try:
        todo = batches(source, digest, progress)
        async with httpx2.AsyncClient(
            base_url=target.url,
            headers={"Authorization": f"Bearer {target.key}", "User-Agent": "aforo-import"},
            timeout=TIMEOUT_SECONDS,
            params={} if target.backfill is None else {"backfill": target.backfill},
            transport=target.transport,
        ) as client:
            sender = Sender(client, packing=target.packing, give_up_seconds=target.give_up_seconds)
            shown = Shown(progress, journal.totals)
            await _in_parallel(todo, sender, journal, shown, target.parallel)
        write_not_taken(not_taken, journal.not_taken())
        finished = True
    finally:
        journal.close(finished=finished)
    return Report(journal.totals)


def check_file(source: Source, *, not_taken: Path) -> Report:
    """Read and map a file without sending anything, and judge what can be judged without the
    tenant's data: the shape of each event and its time. Raises `Invalid`."""
    digest, progress = digest_of(source.path), Progress()
    totals = dict.fromkeys(COUNTS, 0)
    shown = Shown(progress, totals)

    def wrong() -> Iterator[NotTaken]:
        for batch in batches(source, digest, progress):
            found = sorted([*batch.refused, *_judged(batch)], key=lambda each: each.line)
            totals["rejected"] += len(found)
            totals["accepted"] += len(batch.rows) + len(batch.refused) - len(found)
            shown.refresh()
            yield from found

    write_not_taken(not_taken, wrong())
    shown.end()
    return Report(totals)


def write_not_taken(path: Path, rows: Iterator[NotTaken]) -> None:
    """Write rows as lines of JSON; where there are none, no file is left either."""
    path.unlink(missing_ok=True)
    first = next(rows, None)
    if first is None:
        return
    with path.open("wb") as file:
        file.write(msgspec.json.encode(first) + b"\n")
        file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)


class Shown:
    """A line on the terminal that says how far it is; nowhere else is anything said."""

    def __init__(self, progress: Progress, totals: dict[str, int]) -> None:
        self._progress = progress
        self._totals = totals
        self._started = self._last = time.monotonic()
        self._before = sum(totals.values())
        self._is_shown = sys.stderr.isatty()

    def refresh(self) -> None:
        """Show it again, now and then."""
        now = time.monotonic()
        if self._is_shown and now - self._last >= SHOWN_EVERY_SECONDS:
            self._last = now
            sys.stderr.write(f"\r\x1b[K{self.line(now - self._started)}")
            sys.stderr.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def line(self, seconds: float) -> str:
        """How far it is after so many seconds."""
        rows = sum(self._totals.values())
        rate = (rows - self._before) / max(seconds, 0.001)
        bad = rows - self._totals["accepted"] - self._totals["duplicates"]
        return (
            f"{self._progress.share:4.0%}  {rows:,} rows, {bad:,} of them not taken, {rate:,.0f}/s"
        )


async def _in_parallel(
    todo: Iterator[Batch], sender: Sender, journal: Journal, shown: Shown, parallel: int
) -> None:
    """Send the batches, each reader taking the next one when it has its answer: so no more are
    held than are under way."""

    async def one_by_one() -> None:
        for batch in todo:
            if batch.number not in journal.done:
                journal.add(await sender.send(batch))
                shown.refresh()
            await asyncio.sleep(0)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(parallel):
                tasks.create_task(one_by_one())
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    finally:
        shown.end()


def _judged(batch: Batch) -> Iterator[NotTaken]:
    now = datetime.now(UTC)
    for row in batch.rows:
        try:
            sent: object = _EVENT.decode(row.text)
        except (ValueError, ArithmeticError, RecursionError) as error:
            message = f"the line cannot be read as JSON: {error}"
            yield _wrong(row.line, None, "BAD_VALUE", message)
            continue
        found = read_event(sent)
        if not isinstance(found, Refusal) and found.occurred_at is not None:
            found = check_time(found.occurred_at, now) or found
        if isinstance(found, Refusal):
            yield _wrong(row.line, key_of(sent), found.code, found.message)


def _wrong(line: int, key: str | None, code: str, message: str) -> NotTaken:
    return NotTaken(line=line, idempotency_key=key, verdict="REJECTED", code=code, message=message)
