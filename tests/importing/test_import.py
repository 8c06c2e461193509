"""Imports against a real Aforo: what is counted, what is told, and what a bad network changes."""

import asyncio
import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.importing import sending
from aforo.importing.journal import Header, Journal
from aforo.importing.mapping import Wanted
from aforo.importing.run import Progress, Shown, Target
from aforo.importing.sending import Packing, Refused
from aforo.importing.shapes import Taken
from aforo.sdk.errors import Conflict, Invalid, Unavailable
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.importing.conftest import not_taken_of, sent, source
from tests.metering.market import Market

pytestmark = pytest.mark.anyio


class Unreliable(httpx2.AsyncBaseTransport):
    """A network that does something to the n-th request, before or after it was answered."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        fate: Callable[[int, httpx2.Response], httpx2.Response],
    ) -> None:
        self._inner = inner
        self._fate = fate
        self.requests = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        number = self.requests
        self.requests += 1
        return self._fate(number, await self._inner.handle_async_request(request))


def over(target: Target, fate: Callable[[int, httpx2.Response], httpx2.Response]) -> Target:
    assert target.transport is not None
    return dataclasses.replace(target, transport=Unreliable(target.transport, fate))


def csv_of(market: Market, path: Path, rows: int, *, tokens: str = "1") -> Path:
    when = (market.runtime.clock.now() - timedelta(hours=1)).isoformat()
    lines = [f"llm.request,acme,{when},{tokens}" for _ in range(rows)]
    path.write_text("\n".join(["type,customer,occurredAt,tokens", *lines]) + "\n")
    return path


async def test_every_row_is_counted_once_however_often_the_file_is_sent(
    market: Market, target: Target, tmp_path: Path
) -> None:
    path = csv_of(market, tmp_path / "x.csv", 345, tokens="0.000000000001")
    first = await sent(source(path, batch_rows=100), target)
    assert (first.rows, first.totals["accepted"], first.went_in) == (345, 345, True)
    assert not (tmp_path / "progress").exists()
    assert not not_taken_of(path).exists()
    moved = path.rename(tmp_path / "another.csv")
    again = await sent(source(moved), target)
    assert (again.totals["duplicates"], again.went_in) == (345, True)
    await market.seal()
    assert await market.used("tokens") == Decimal("0.000000000345")


async def test_what_does_not_go_in_is_listed_with_its_line(
    market: Market, target: Target, tmp_path: Path
) -> None:
    when = (market.runtime.clock.now() - timedelta(hours=1)).isoformat()
    rows = [
        "id,kind,who,when,tokens",
        f"a,llm.request,acme,{when},1",
        f"b,llm.request,nobody,{when},1",
        "c,llm.request,acme",
        f"d,llm.request,acme,{when},1e400",
        f"a,llm.request,acme,{when},2",
        f"a,llm.request,acme,{when},1",
        "e,llm.request,acme,yesterday,1",
        f"f,,acme,{when},1",
    ]
    path = tmp_path / "x.csv"
    path.write_text("\n".join(rows))
    columns = {"idempotencyKey": "id", "type": "kind", "customer": "who", "occurredAt": "when"}
    report = await sent(source(path, Wanted(columns, {})), target)
    assert report.totals == {
        "accepted": 1,
        "duplicates": 1,
        "conflicts": 1,
        "rejected": 4,
        "quarantined": 1,
    }
    assert not report.went_in
    listed = [json.loads(line) for line in not_taken_of(path).read_text().splitlines()]
    assert [(one["line"], one["idempotencyKey"], one["code"]) for one in listed] == [
        (3, "b", "UNKNOWN_CUSTOMER"),
        (4, None, "BAD_VALUE"),
        (5, "d", "BAD_VALUE"),
        (6, "a", "CONFLICT"),
        (8, "e", "BAD_VALUE"),
        (9, "f", "MISSING_FIELD"),
    ]
    assert all(one["message"] for one in listed)
    assert listed[3]["eventId"]


async def test_lines_of_json_keep_their_numbers_and_their_order_of_verdicts(
    market: Market, target: Target, tmp_path: Path
) -> None:
    good = json.dumps(market.event("k", properties={"tokens": 0}))
    good = good.replace('"tokens": 0', '"tokens": 123456789012345.123456789012')
    path = tmp_path / "x.jsonl"
    path.write_text(f"\n{{broken\n\n{good}\n")
    report = await sent(source(path), target)
    assert (report.totals["accepted"], report.totals["rejected"]) == (1, 1)
    assert json.loads(not_taken_of(path).read_text())["line"] == 2
    [kept] = await market.waiting()
    assert kept.properties == '{"tokens":123456789012345.123456789012}'


async def test_an_empty_file_is_no_fault(target: Target, tmp_path: Path) -> None:
    for name, text in (("x.csv", "type,customer,occurredAt\n"), ("x.ndjson", "\n")):
        path = tmp_path / name
        path.write_text(text)
        report = await sent(source(path), target)
        assert (report.rows, report.went_in) == (0, True)


@pytest.mark.parametrize("packing", Packing)
async def test_bodies_are_packed_as_asked(
    market: Market, target: Target, tmp_path: Path, packing: Packing
) -> None:
    path = csv_of(market, tmp_path / "x.csv", 10)
    report = await sent(source(path), dataclasses.replace(target, packing=packing))
    assert report.totals["accepted"] == 10


async def test_a_bad_network_changes_nothing(
    market: Market, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_BACKOFF_SECONDS", 0.0)

    def fate(number: int, answer: httpx2.Response) -> httpx2.Response:
        match number % 5:
            case 1:
                raise httpx2.ReadError("the answer is lost")
            case 2:
                return httpx2.Response(503, headers={"Retry-After": "0"}, content=b"later")
            case 3:
                return httpx2.Response(429, headers={"Retry-After": "later"}, content=b"{}")
        return answer

    path = csv_of(market, tmp_path / "x.csv", 1_000)
    report = await sent(source(path, batch_rows=100), over(target, fate))
    assert report.totals["accepted"] + report.totals["duplicates"] == 1_000
    assert report.went_in
    await market.seal()
    assert await market.used("calls") == 1_000


async def test_retry_after_is_waited_for_and_bounded(
    market: Market, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await real(0)

    monkeypatch.setattr(sending.asyncio, "sleep", sleep)
    monkeypatch.setattr(sending, "_BACKOFF_SECONDS", 0.0)

    def fate(number: int, answer: httpx2.Response) -> httpx2.Response:
        after = {0: "7", 1: "86400", 2: "-1"}.get(number)
        return answer if after is None else httpx2.Response(503, headers={"Retry-After": after})

    path = csv_of(market, tmp_path / "x.csv", 1)
    patient = dataclasses.replace(over(target, fate), give_up_seconds=1_000, parallel=1)
    assert (await sent(source(path), patient)).totals["duplicates"] == 1
    # Whatever else sleeps in this process does so for less.
    assert [each for each in waited if each >= 1] == [7, 60]


async def test_who_gives_up_goes_on_from_there(
    market: Market, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_BACKOFF_SECONDS", 0.001)

    def fate(number: int, answer: httpx2.Response) -> httpx2.Response:
        return answer if number < 4 else httpx2.Response(503)

    path = csv_of(market, tmp_path / "x.csv", 1_000)
    unlucky = dataclasses.replace(over(target, fate), give_up_seconds=0.05, parallel=1)
    with pytest.raises(Unavailable, match="run the same command again"):
        await sent(source(path, batch_rows=100), unlucky)
    assert (tmp_path / "progress").exists()
    counting = over(target, lambda _, answer: answer)
    report = await sent(source(path, batch_rows=100), counting)
    assert isinstance(counting.transport, Unreliable)
    assert counting.transport.requests == 6
    # The answer to the fifth batch was lost, so its rows were there already.
    assert (report.totals["accepted"], report.totals["duplicates"]) == (900, 100)
    assert not (tmp_path / "progress").exists()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b'{"error":{"message":"an API key is needed"}}', "an API key is needed"),
        (404, b"<html>", "status 404"),
        (202, b"<html>", "none of Aforo's"),
        (202, b'{"accepted":0}', "none of Aforo's"),
        (200, b"{}", "status 200"),
        (302, b"", "status 302"),
    ],
)
async def test_an_answer_that_never_gets_better_ends_it_at_once(
    market: Market, target: Target, tmp_path: Path, status: int, body: bytes, said: str
) -> None:
    other = over(target, lambda *_: httpx2.Response(status, content=body))
    path = csv_of(market, tmp_path / "x.csv", 10)
    with pytest.raises(Refused, match=said):
        await sent(source(path), other)


async def test_an_answer_with_other_counts_is_not_believed(
    market: Market, target: Target, tmp_path: Path
) -> None:
    counts = {"accepted": 9, "duplicates": 0, "conflicts": 0, "rejected": 0, "quarantined": 0}
    other = over(target, lambda *_: httpx2.Response(202, json=counts | {"verdicts": []}))
    with pytest.raises(Refused, match="10 events were sent, and the answer speaks of 9"):
        await sent(source(csv_of(market, tmp_path / "x.csv", 10)), other)


async def test_progress_is_of_one_file_one_way_to_read_it_and_one_address(
    market: Market, target: Target, tmp_path: Path
) -> None:
    path = csv_of(market, tmp_path / "x.csv", 10)
    once = over(target, lambda number, answer: httpx2.Response(400) if number else answer)
    begun = dataclasses.replace(once, parallel=1)
    with pytest.raises(Refused):
        await sent(source(path, batch_rows=4), begun)
    for rows, url in (
        (5, target.url),
        (4, "http://other.test"),
    ):
        with pytest.raises(Conflict, match="options are others"):
            await sent(source(path, batch_rows=rows), dataclasses.replace(target, url=url))
    before = path.read_text()
    path.write_text(before + before.splitlines()[1])
    with pytest.raises(Conflict, match="the file has changed"):
        await sent(source(path, batch_rows=4), target)
    assert len(await market.rows("event_key")) == 8  # The answer to the second batch was lost.
    path.write_text(before)
    report = await sent(source(path, batch_rows=4), target)
    assert (report.totals["accepted"], report.totals["duplicates"]) == (6, 4)


async def test_an_import_of_which_nothing_went_in_can_be_begun_otherwise(
    market: Market, target: Target, tmp_path: Path
) -> None:
    path = csv_of(market, tmp_path / "x.csv", 10)
    closed = httpx2.MockTransport(lambda _: httpx2.Response(400))
    with pytest.raises(Refused):
        await sent(source(path), dataclasses.replace(target, transport=closed))
    assert (await sent(source(path, batch_rows=5), target)).totals["accepted"] == 10


def test_a_journal_that_a_kill_cut_off_is_good_up_to_there(tmp_path: Path) -> None:
    path, header = tmp_path / "progress", Header(sha256="x", options={"a": ["b"]})
    journal = Journal.open(path, header)
    for number in (0, 2):
        journal.add(Taken(batch=number, accepted=9, rejected=1))
    journal.close(finished=False)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        journal = Journal.open(path, header)
        assert journal.done in ({0, 2}, {0}, set())
        assert sum(journal.totals.values()) == 10 * len(journal.done)
        journal.add(Taken(batch=7, duplicates=1))
        journal.close(finished=False)
        again = Journal.open(path, header)
        assert again.done == journal.done
        again.close(finished=False)
    for other in (b"no journal", b"{}\n", whole + b"{}\n"):
        path.write_bytes(other)
        with pytest.raises(Invalid, match="no progress of an import"):
            Journal.open(path, header)
        assert path.read_bytes() == other


def test_two_imports_of_one_file_do_not_run_at_once(tmp_path: Path) -> None:
    path, header = tmp_path / "progress", Header(sha256="x", options={})
    first = Journal.open(path, header)
    with pytest.raises(Conflict, match="another import"):
        Journal.open(path, header)
    first.close(finished=True)
    Journal.open(path, header).close(finished=True)
    assert not path.exists()
    with pytest.raises(Invalid, match="--state"):
        Journal.open(tmp_path / "none" / "progress", header)


def test_the_line_on_the_terminal_says_how_far_it_is() -> None:
    totals = {"accepted": 1_000, "duplicates": 0, "conflicts": 0, "rejected": 0, "quarantined": 0}
    shown = Shown(Progress(0.25), totals)
    totals |= {"accepted": 2_990, "rejected": 10}
    assert shown.line(2.0) == " 25%  3,000 rows, 10 of them not taken, 1,000/s"


async def test_a_rate_that_is_full_is_waited_for(
    runtime: Runtime,
    tenant: NewTenant,
    market: Market,
    tmp_path: Path,
    clock: MovableClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.advance(timedelta(seconds=seconds))

    monkeypatch.setattr(sending.asyncio, "sleep", sleep)
    settings = dataclasses.replace(runtime.settings, events_per_second=1)  # And 1,000 at once.
    slow = create_app(dataclasses.replace(runtime, settings=settings))
    target = Target("http://aforo.test", tenant.key.token, transport=httpx2.ASGITransport(slow))
    report = await sent(source(csv_of(market, tmp_path / "x.csv", 1_100)), target)
    assert report.totals["accepted"] == 1_100
    assert 100 <= sum(waited) < 300
