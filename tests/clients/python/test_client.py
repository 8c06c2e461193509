"""The client against a real Aforo: what it sends, what it says of it, and what it never does."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path

import pytest

from aforo_client import Client, ClientClosed, Verdict
from aforo_client.spool import DEAD_LETTERS, SUFFIX
from tests.clients.conftest import Address
from tests.clients.python.between import Answer, Between, CutOff
from tests.clients.python.conftest import OF_TOKENS, is_empty, sent, track

pytestmark = pytest.mark.anyio

Opened = Callable[..., Client]
Counted = Callable[[], Awaitable[list[str]]]


async def test_what_is_tracked_is_counted_once_and_leaves_the_spool(
    opened: Opened, counted: Counted, between: Between, tmp_path: Path
) -> None:
    with opened() as client:
        keys = [
            client.track("llm.request", **OF_TOKENS, properties={"tokens": 1}) for _ in range(5)
        ]
        assert await sent(client)
        stats = client.stats()
        assert await asyncio.to_thread(client.close)
    assert await counted() == sorted(keys)
    assert (stats.tracked, stats.accepted, stats.decided, stats.waiting) == (5, 5, 5, 0)
    assert stats.last_error is None
    assert stats.last_success_at is not None
    assert is_empty(tmp_path)
    first = between.asked[0]
    assert first.headers["user-agent"].startswith("aforo-client-python/")
    assert first.headers["content-type"] == "application/json"


async def test_events_are_sent_together_by_number_and_by_size(
    opened: Opened, between: Between
) -> None:
    with opened(batch_events=3, linger_seconds=60) as client:
        track(client, *(f"k{number}" for number in range(7)))
        assert await sent(client)
        sizes = [len(asked.events) for asked in between.asked]
        assert (sum(sizes), max(sizes)) == (7, 3)
    between.asked.clear()
    with opened(batch_bytes=350, linger_seconds=60) as client:
        track(client, *(f"s{number}" for number in range(8)))
        assert await sent(client)
        assert max(len(asked.events) for asked in between.asked) == 2


async def test_a_batch_that_is_not_full_goes_when_its_first_event_is_old_enough(
    opened: Opened, between: Between
) -> None:
    with opened(linger_seconds=0.05) as client:
        track(client, "a", "b")
        assert await asyncio.to_thread(gone, client)
        assert [len(asked.events) for asked in between.asked] == [2]


def gone(client: Client, seconds: float = 10) -> bool:
    """Wait, without asking for it, until nothing waits any more."""
    assert client._parts is not None
    spool = client._parts.spool
    with spool.changed:
        return spool.changed.wait_for(lambda: not spool.waiting, seconds)


async def test_a_server_that_takes_no_compressed_bodies_gets_them_plain(
    opened: Opened, between: Between, counted: Counted
) -> None:
    between.faults.append(Answer(415))
    with opened(linger_seconds=60) as client:
        track(client, *"abcdefgh")
        assert await sent(client)
        track(client, *"ijklmnop")
        assert await sent(client)
    encodings = [asked.headers.get("content-encoding") for asked in between.asked]
    assert encodings == ["gzip", None, None]
    assert await counted() == list("abcdefghijklmnop")


async def test_numbers_arrive_exactly(opened: Opened, between: Between) -> None:
    with opened() as client:
        track(client, "a", properties={"tokens": Decimal("0.000000000001"), "n": 10**30})
        assert await sent(client)
    assert b'"tokens":0.000000000001,"n":1000000000000000000000000000000' in between.asked[0].body


async def test_every_verdict_that_is_not_good_is_told_and_written_down(
    opened: Opened, tmp_path: Path
) -> None:
    told: list[Verdict] = []
    with opened(on_verdict=told.append) as client:
        track(client, "good", "twice")
        assert await sent(client)
        track(client, "twice")
        track(client, "twice", properties={"tokens": 2})
        track(client, "wrong", properties={"tokens": "many"})
        track(client, "nobodys", customer="nobody")
        assert await sent(client)
        stats = client.stats()
    assert (stats.accepted, stats.duplicates) == (2, 1)
    assert (stats.conflicts, stats.rejected, stats.quarantined) == (1, 1, 1)
    said = sorted((each.idempotency_key, each.verdict, each.code) for each in told)
    assert said == [
        ("nobodys", "QUARANTINED", "UNKNOWN_CUSTOMER"),
        ("twice", "CONFLICT", "CONFLICT"),
        ("wrong", "REJECTED", "BAD_VALUE"),
    ]
    assert all(each.message for each in told)
    assert all(bool(each.event_id) == (each.verdict == "CONFLICT") for each in told)
    lines = (tmp_path / "spool" / DEAD_LETTERS).read_text().splitlines()
    letters = [json.loads(line) for line in lines]
    assert sorted((each["event"]["idempotencyKey"], each["code"]) for each in letters) == [
        (key, code) for key, _, code in said
    ]
    assert is_empty(tmp_path)


async def test_a_callback_that_fails_holds_up_nothing(opened: Opened, tmp_path: Path) -> None:
    def fail(_: Verdict) -> None:
        raise RuntimeError("the host's own fault")

    with opened(on_verdict=fail) as client:
        track(client, "nobodys", customer="nobody")
        track(client, "good")
        assert await sent(client)
        assert client.stats().callback_failures == 1
    assert (tmp_path / "spool" / DEAD_LETTERS).read_text().count("\n") == 1


@pytest.mark.parametrize(
    "fault",
    [
        Answer(503, {"Retry-After": "0"}),
        Answer(429, {"Retry-After": "0"}),
        Answer(500),
        Answer(408),
        Answer(202, body=b'{"accepted": 9}'),
        Answer(202, body=b"<html>"),
        CutOff(),
        CutOff(after_bytes=0),
        CutOff(after_bytes=20),
    ],
    ids=str,
)
async def test_what_may_pass_is_tried_again_under_the_same_keys(
    opened: Opened, between: Between, counted: Counted, fault: Answer | CutOff
) -> None:
    between.faults += [fault, fault]
    with opened() as client:
        track(client, "a", "b", "c")
        assert await sent(client)
        stats = client.stats()
    assert await counted() == ["a", "b", "c"]
    assert stats.accepted + stats.duplicates == 3
    keys = [{event["idempotencyKey"] for event in asked.events} for asked in between.asked]
    assert set.union(*keys) == {"a", "b", "c"}
    assert len(keys) > 2


async def test_a_server_is_given_the_time_that_it_asks_for(
    opened: Opened, between: Between
) -> None:
    between.faults.append(Answer(503, {"Retry-After": "3600"}))
    with opened() as client:
        track(client, "a")
        assert not await sent(client, 0.3)
        assert len(between.asked) == 1
        assert re.fullmatch("status 503", client.stats().last_error or "")
        await asyncio.to_thread(client.close, 0)
    assert len(between.asked) == 1


async def test_a_server_that_is_away_gets_everything_when_it_is_back(
    opened: Opened, between: Between, counted: Counted
) -> None:
    await between.down()
    with opened() as client:
        track(client, "a", "b")
        assert not await sent(client, 0.1)
        assert "ConnectionRefusedError" in (client.stats().last_error or "")
        await between.up()
        assert await sent(client)
        await between.down()  # The connection that was kept open is gone, too.
        await between.up()
        track(client, "c")
        assert await sent(client)
    assert await counted() == ["a", "b", "c"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
async def test_what_only_a_person_can_set_right_is_not_tried_again_and_again(
    opened: Opened, between: Between, counted: Counted, status: int
) -> None:
    between.always = Answer(status, body=b'{"error": {"message": "so it is"}}')
    with opened() as client:
        track(client, "a")
        assert not await sent(client, 0.3)
        assert len(between.asked) <= 2  # Once by itself, once for the flush.
        assert f"status {status}: so it is" in (client.stats().last_error or "")
        between.always = None
        assert await sent(client)
    assert await counted() == ["a"]


async def test_a_batch_that_is_too_large_is_sent_in_parts(
    opened: Opened, between: Between, counted: Counted, tmp_path: Path
) -> None:
    between.faults += [Answer(413), Answer(413)]
    with opened(linger_seconds=60) as client:
        track(client, *"abcdefgh")
        assert await sent(client)
        assert client.stats().splits == 2
    assert [len(asked.events) for asked in between.asked] == [8, 4, 2, 2, 2, 2]
    assert await counted() == list("abcdefgh")
    assert is_empty(tmp_path)


async def test_one_event_that_is_too_large_is_put_aside_and_told(
    opened: Opened, between: Between, tmp_path: Path
) -> None:
    told: list[Verdict] = []
    between.faults.append(Answer(413, body=b'{"error": {"message": "at most 10 bytes"}}'))
    with opened(on_verdict=told.append) as client:
        track(client, "a")
        assert await sent(client)
        track(client, "b")
        assert await sent(client)
        assert (client.stats().refused, client.stats().accepted) == (1, 1)
    (verdict,) = told
    assert (verdict.verdict, verdict.idempotency_key) == ("REFUSED", "a")
    assert verdict.message == "status 413: at most 10 bytes"
    assert is_empty(tmp_path)


async def test_a_connection_that_breaks_under_every_large_batch_gets_smaller_ones(
    opened: Opened, between: Between
) -> None:
    between.faults += [CutOff()] * 4
    with opened(linger_seconds=60) as client:
        track(client, *"abcdefgh")
        assert await sent(client)
    assert [len(asked.events) for asked in between.asked][-2:] == [4, 4]


async def test_a_line_that_the_disk_spoilt_is_told_and_holds_up_nothing(
    opened: Opened, between: Between, tmp_path: Path
) -> None:
    await between.down()
    told: list[Verdict] = []
    with opened() as client:
        track(client, "a", "bbb", "c")
        await asyncio.to_thread(client.close, 0)
    (path,) = (tmp_path / "spool").glob(f"*{SUFFIX}")
    path.write_bytes(path.read_bytes().replace(b"bbb", b"bxb"))
    await between.up()
    with opened(on_verdict=told.append) as client:
        assert await sent(client)
        stats = client.stats()
    assert (stats.adopted, stats.accepted, stats.damaged) == (3, 2, 1)
    assert [(each.verdict, "bxb" in each.message) for each in told] == [("DAMAGED", True)]
    assert "bxb" in (tmp_path / "spool" / DEAD_LETTERS).read_text()


async def test_the_next_client_goes_on_where_one_was_closed_too_early(
    opened: Opened, between: Between, counted: Counted
) -> None:
    await between.down()
    with opened() as client:
        track(client, "a", "b")
        assert not await asyncio.to_thread(client.close, 0)
    await between.up()
    with opened() as client:
        assert await asyncio.to_thread(gone, client)
        assert client.stats().adopted == 2
    assert await counted() == ["a", "b"]


async def test_a_closed_client_takes_nothing_more(opened: Opened) -> None:
    client = opened()
    assert await asyncio.to_thread(client.close)
    assert await asyncio.to_thread(client.close)
    with pytest.raises(ClientClosed):
        track(client, "a")


async def test_nothing_shows_the_key(
    opened: Opened,
    between: Between,
    address: Address,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    between.faults += [CutOff(), Answer(500), Answer(401), Answer(202, body=b"no")]
    with opened() as client:
        track(client, "a")
        await sent(client, 0.2)
        assert await sent(client)
        shown = f"{client!r} {client.stats()!r}"
    assert caplog.text
    with pytest.raises(ValueError, match="odd characters") as refused:
        Client(between.url, f"{address.key}\n", tmp_path / "other")
    kept = "".join(path.read_text() for path in (tmp_path / "spool").iterdir() if path.is_file())
    for text in (shown, caplog.text, str(refused.value), kept):
        assert address.key not in text
