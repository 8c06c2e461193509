"""What goes on behind `track`: one thread sends what the spool holds, and one syncs it.

Neither ever raises into the program: what goes wrong is logged, counted, and tried again.
"""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aforo_client.options import Options
from aforo_client.retry import backoff
from aforo_client.segment import EVENT, Line
from aforo_client.spool import Batch, Spool
from aforo_client.stats import Stats
from aforo_client.transport import Later, Refused, Taken, TooLarge, Transport
from aforo_client.verdicts import SETTLED, Said, Verdict

logger = logging.getLogger("aforo_client")

OnVerdict = Callable[[Verdict], None]
RESTORED_AFTER = 100
"""Batches that go well before they may be as large again as they were before one was too large."""
HALVED_EVERY = 4
"""Tries in which the connection broke under way: then the batch may be too large for it."""


class Sender:
    """Sends batch after batch. `start` it once; any thread may call every other method."""

    def __init__(
        self, spool: Spool, transport: Transport, options: Options, on_verdict: OnVerdict | None
    ) -> None:
        self._spool = spool
        self._transport = transport
        self._options = options
        self._on_verdict = on_verdict
        self._events_max, self._bytes_max = options.batch_events, options.batch_bytes
        self._well = 0
        self._attempt = 0
        self._flushing = 0
        self._asked = 0
        self._stopping = False
        self._counts: Counter[str] = Counter()
        self._last_success_at: datetime | None = None
        self._last_error: str | None = None
        self._threads = [threading.Thread(target=self._run, name="aforo-sender", daemon=True)]
        if options.fsync == "interval":
            syncing = threading.Thread(target=self._keep_synced, name="aforo-sync", daemon=True)
            self._threads.append(syncing)

    def start(self) -> None:
        """Start sending."""
        for thread in self._threads:
            thread.start()

    def flush(self, seconds: float) -> bool:
        """Send what waits now, without waiting for more; whether all of it has its verdict."""
        marks = self._spool.marks()
        with self._spool.changed:
            self._flushing, self._asked = self._flushing + 1, self._asked + 1
            self._spool.changed.notify_all()
            try:
                return self._spool.changed.wait_for(
                    lambda: self._stopping or self._spool.passed(marks), seconds
                ) and self._spool.passed(marks)
            finally:
                self._flushing -= 1

    def stop(self, seconds: float) -> None:
        """End the threads, and a request that is under way; the spool is closed by the last act."""
        with self._spool.changed:
            self._stopping = True
            self._spool.changed.notify_all()
        self._transport.abort()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def stats(self) -> Stats:
        """The figures of this moment."""
        with self._spool.changed:
            return Stats(
                tracked=self._spool.tracked,
                adopted=self._spool.adopted,
                waiting=self._spool.waiting,
                waiting_bytes=self._spool.waiting_bytes,
                bytes_sent=self._transport.bytes_sent,
                last_success_at=self._last_success_at,
                last_error=self._last_error,
                **self._counts,
            )

    def _run(self) -> None:
        look_at = time.monotonic() + self._options.adopt_seconds
        while not self._stopping:
            try:
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + self._options.adopt_seconds
                    self._spool.adopt()
                if self._is_due(look_at):
                    self._send_one()
            except Exception as error:  # noqa: BLE001 (The host must not see a thread die.)
                self._attempt += 1
                self._failed(f"{type(error).__name__}: {error}")
                self._pause(self._backoff())
        self._transport.close()
        self._spool.close()

    def _is_due(self, until: float) -> bool:
        """Wait until there is a batch, or its first event has waited long enough."""
        spool, changed = self._spool, self._spool.changed
        with changed:
            changed.wait_for(
                lambda: self._stopping or spool.waiting, max(until - time.monotonic(), 0.0)
            )
            changed.wait_for(
                lambda: self._stopping or self._flushing or not spool.waiting or spool.is_batch(),
                self._options.linger_seconds if spool.waiting and not self._attempt else 0.0,
            )
            return bool(spool.waiting) and not self._stopping

    def _send_one(self) -> None:
        batch = self._spool.next_batch(events_max=self._events_max, bytes_max=self._bytes_max)
        if batch is None:
            return
        events = [line for line in batch.lines if line.kind == EVENT]
        if not events:
            self._settle(batch, events, {}, [])
            return
        outcome = self._transport.post([line.content for line in events])
        self._count(requests=1)
        match outcome:
            case Taken(counts, said):
                self._settle(batch, events, counts, said)
                self._went_well()
            case TooLarge(reason) if len(batch.lines) > 1:
                self._count(splits=1, retries=1)
                self._halve(batch)
                logger.info("a batch is sent in parts: %s", reason)
            case TooLarge(reason):
                said = [Said(0, "REFUSED", "TOO_LARGE", reason, None)]
                self._settle(batch, events, {"REFUSED": 1}, said)
            case Later(reason, after_seconds, is_cut_off):
                self._attempt += 1
                if is_cut_off and self._attempt % HALVED_EVERY == 0:
                    self._halve(batch)
                self._count(retries=1)
                self._failed(reason)
                self._pause(max(self._backoff(), after_seconds or 0.0))
            case Refused(reason):
                self._attempt += 1
                self._count(retries=1)
                self._failed(f"{reason}: the events are kept until this is set right")
                self._pause(self._options.refused_seconds, until_asked=True)

    def _halve(self, batch: Batch) -> None:
        self._events_max = max(len(batch.lines) // 2, 1)
        self._bytes_max = max(sum(len(line.content) + 1 for line in batch.lines) // 2, 1)
        self._well = 0

    def _settle(
        self, batch: Batch, events: Sequence[Line], counts: Mapping[str, int], said: Sequence[Said]
    ) -> None:
        """Bury what was not counted, tell of it, and only then let go of the batch."""
        dead = [_verdict(each, events[each.index]) for each in said if each.verdict not in SETTLED]
        dead += [_damage(line) for line in batch.lines if line.kind != EVENT]
        if not self._is_buried(dead):
            return
        for each in dead:
            self._tell(each)
        self._spool.settle(batch)
        self._count(
            accepted=counts.get("ACCEPTED", 0),
            duplicates=counts.get("DUPLICATE", 0),
            conflicts=counts.get("CONFLICT", 0),
            rejected=counts.get("REJECTED", 0),
            quarantined=counts.get("QUARANTINED", 0),
            refused=counts.get("REFUSED", 0),
            damaged=len(batch.lines) - len(events),
        )

    def _is_buried(self, dead: Sequence[Verdict]) -> bool:
        """Write the dead letters, as soon as the disk takes them; not where the client ends."""
        now = datetime.now(UTC).isoformat()
        letters = [_letter(each, now) for each in dead]
        while letters and not self._stopping:
            try:
                self._spool.bury(letters)
            except OSError as error:
                self._attempt += 1
                self._failed(f"the dead letters cannot be written: {error}")
                self._pause(self._backoff())
            else:
                return True
        return not letters

    def _tell(self, verdict: Verdict) -> None:
        if self._on_verdict is None:
            return
        try:
            self._on_verdict(verdict)
        except Exception:
            self._count(callback_failures=1)
            logger.exception("on_verdict failed; the verdict is among the dead letters")

    def _went_well(self) -> None:
        with self._spool.changed:
            self._attempt = 0
            self._last_success_at, self._last_error = datetime.now(UTC), None
        self._well += 1
        if self._well >= RESTORED_AFTER:
            self._events_max = self._options.batch_events
            self._bytes_max = self._options.batch_bytes

    def _failed(self, reason: str) -> None:
        with self._spool.changed:
            self._last_error = reason
        if self._attempt in {1, 2, 4, 8} or self._attempt % 16 == 0:
            logger.warning("%d events wait, try %d: %s", self._spool.waiting, self._attempt, reason)

    def _backoff(self) -> float:
        return backoff(
            self._attempt,
            base_seconds=self._options.backoff_seconds,
            max_seconds=self._options.backoff_max_seconds,
        )

    def _pause(self, seconds: float, *, until_asked: bool = False) -> None:
        """Wait, unless the client is closed, or where it says so somebody asks for a flush."""
        with self._spool.changed:
            asked = self._asked
            self._spool.changed.wait_for(
                lambda: self._stopping or (until_asked and self._asked != asked), seconds
            )

    def _keep_synced(self) -> None:
        while not self._stopping:
            with self._spool.changed:
                self._spool.changed.wait_for(
                    lambda: self._stopping, timeout=self._options.fsync_seconds
                )
            try:
                self._spool.sync()
            except OSError as error:
                self._failed(f"the spool cannot be made safe from a power cut: {error}")

    def _count(self, **more: int) -> None:
        with self._spool.changed:
            self._counts.update(more)


def _verdict(said: Said, line: Line) -> Verdict:
    event: dict[str, Any] = json.loads(line.content, parse_float=Decimal)
    return Verdict(said.verdict, said.code, said.message, event, said.event_id)


def _damage(line: Line) -> Verdict:
    content = line.content.decode(errors="backslashreplace")
    message = f"a line of the spool is not what was written to it: {content}"
    return Verdict("DAMAGED", "DAMAGED", message, {})


def _letter(verdict: Verdict, now: str) -> Mapping[str, object]:
    """As the file of dead letters has it; a Decimal as text, which Aforo takes as well."""
    return {
        "recordedAt": now,
        "verdict": verdict.verdict,
        "code": verdict.code,
        "message": verdict.message,
        "eventId": verdict.event_id,
        "event": _plain(verdict.event),
    }


def _plain(value: object) -> object:
    match value:
        case Decimal():
            return str(value)
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case _:
            return value
