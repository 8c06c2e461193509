"""Deliveries to receivers that behave well and badly, on real engines, over days of the clock."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from aforo.storage.event_types import EventType
from aforo.storage.tables import new_id
from aforo.webhooks import courier
from aforo.webhooks.models import (
    DeliveryState,
)
from aforo.webhooks.schedule import PAUSES
from tests.receivers import Heard, answers, reply
from tests.webhooks.wire import Wire, names

pytestmark = pytest.mark.anyio


async def test_an_event_arrives_signed_with_its_id_and_is_logged(wire: Wire) -> None:
    wire.clock.move_to(datetime.now(UTC))  # The verifying library looks at the machine's own.
    made = await wire.make_endpoint()
    await wire.happen("Zoë")
    await wire.run_jobs()
    [heard] = wire.receiver.heard
    told = Webhook(made.secret).verify(heard.body, heard.headers)
    assert told["type"] == "customer.created"
    assert told["data"]["name"] == "Zoë"
    assert told["id"] == heard.headers["webhook-id"]
    assert heard.headers["content-type"] == "application/json"
    [delivery] = await wire.deliveries()
    assert (delivery.state, delivery.tries) == (DeliveryState.DELIVERED, 1)
    [attempt] = await wire.attempts()
    assert (attempt.number, attempt.status, attempt.response, attempt.failure) == (
        1,
        200,
        "ok",
        None,
    )
    await wire.run_jobs()
    assert len(wire.receiver.heard) == 1


async def test_an_endpoint_is_told_of_the_types_that_it_wants_from_its_creation_on(
    wire: Wire,
) -> None:
    await wire.happen("before")
    await wire.run_jobs()
    await wire.make_endpoint()
    await wire.make_endpoint(wire.receiver.url("/other"), EventType.WALLET_CREDITED)
    await wire.happen("after")
    await wire.run_jobs()
    assert names(wire.receiver.heard) == ["after"]
    assert wire.receiver.heard[0].target == "/hook"


async def test_a_receiver_that_fails_is_tried_ten_times_over_76_hours_with_the_same_bytes(
    wire: Wire,
) -> None:
    await wire.make_endpoint()
    wire.receiver.answer = answers(500, b"no" * 5_000)
    start = wire.clock.now()
    await wire.happen()
    await wire.run_jobs()
    for number, pause in enumerate(PAUSES[1:], start=1):
        assert len(wire.receiver.heard) == number
        await wire.run_jobs(after=pause - timedelta(microseconds=1))
        assert len(wire.receiver.heard) == number, "not a moment early"
        await wire.run_jobs(after=timedelta(microseconds=1))
    assert len(wire.receiver.heard) == 10
    assert wire.clock.now() - start == timedelta(hours=75, minutes=35, seconds=5)
    assert len({(one.body, one.headers["webhook-id"]) for one in wire.receiver.heard}) == 1
    times = [int(one.headers["webhook-timestamp"]) for one in wire.receiver.heard]
    assert times == sorted(set(times)), "each call bears its own time"
    [delivery] = await wire.deliveries()
    assert (delivery.state, delivery.tries) == (DeliveryState.EXHAUSTED, 10)
    assert delivery.failure == "it answered with status 500"
    tries = await wire.attempts()
    assert [one.number for one in tries] == list(range(1, 11))
    assert {one.response for one in tries} == {"no" * 512}, "the first kilobyte is kept"
    await wire.run_jobs(after=timedelta(days=1))
    assert len(wire.receiver.heard) == 10


@pytest.mark.parametrize("kind", ["redirect", "early", "slow", "noise", "binary", "nobody"])
async def test_whatever_is_no_2xx_is_a_failure_that_says_what_it_was(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(courier, "CALL_SECONDS", 0.2)

    async def slow(_heard: Heard, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def early(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 20")

    async def noise(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x01\x02\r\n\r\n")

    wire.receiver.answer = {
        "redirect": answers(302, Location=wire.receiver.url("/elsewhere")),
        "slow": slow,
        "early": early,
        "noise": noise,
        "binary": answers(500, b"\xff\x00\xfe"),
        "nobody": answers(),
    }[kind]
    await wire.make_endpoint("http://127.0.0.1:1/" if kind == "nobody" else None)
    await wire.happen()
    await wire.run_jobs()
    [delivery] = await wire.deliveries()
    assert (delivery.state, delivery.tries) == (DeliveryState.PENDING, 1)
    assert delivery.next_at == wire.clock.now() + timedelta(seconds=5)
    said = {
        "redirect": "redirects are not followed",
        "slow": "took longer than 0.2 s",
        "early": "broke off",
        "noise": "broke off",
        "binary": "status 500",
        "nobody": "takes no connection",
    }[kind]
    assert said in (delivery.failure or "")
    [attempt] = await wire.attempts()
    assert attempt.failure == delivery.failure
    assert len(wire.receiver.heard) == (0 if kind == "nobody" else 1)
    if kind == "binary":
        assert attempt.response == "\N{REPLACEMENT CHARACTER}" * 3


async def test_a_huge_answer_counts_by_its_status_and_is_not_read(wire: Wire) -> None:
    wire.receiver.answer = answers(200, b"x" * 5_000_000)
    await wire.make_endpoint()
    await wire.happen()
    await wire.run_jobs()
    [delivery] = await wire.deliveries()
    assert delivery.state is DeliveryState.DELIVERED
    [attempt] = await wire.attempts()
    assert attempt.response == "x" * 1_024


async def test_retry_after_quiets_the_whole_endpoint_and_is_bounded(wire: Wire) -> None:
    await wire.make_endpoint()
    wire.receiver.answer = answers(429, Retry_After="3600")
    await wire.happen("first")
    await wire.run_jobs()
    await wire.happen("second")
    await wire.run_jobs(after=timedelta(minutes=59, seconds=59))
    assert names(wire.receiver.heard) == ["first"]
    wire.receiver.answer = answers(503, Retry_After="99999999")
    await wire.run_jobs(after=timedelta(seconds=1))
    assert sorted(names(wire.receiver.heard)) == ["first", "first", "second"]
    wire.receiver.answer = answers()
    await wire.run_jobs(after=timedelta(hours=24))
    assert sorted(names(wire.receiver.heard[3:])) == ["first", "second"]
    assert {one.state for one in await wire.deliveries()} == {DeliveryState.DELIVERED}


async def test_events_of_one_object_wait_for_each_other_and_others_do_not(wire: Wire) -> None:
    await wire.make_endpoint()
    down = True

    async def moody(heard: Heard, writer: asyncio.StreamWriter) -> None:
        fails = down and names([heard])[0].startswith("a")
        writer.write(reply(500 if fails else 200))

    wire.receiver.answer = moody
    first, second = new_id(), new_id()
    for name, object_id in (("a1", first), ("a2", first), ("b1", second), ("a3", first)):
        await wire.happen(name, object_id=object_id)
    await wire.run_jobs()
    assert sorted(names(wire.receiver.heard)) == ["a1", "b1"]
    await wire.happen("b2", object_id=second)
    await wire.run_jobs()
    assert names(wire.receiver.heard[2:]) == ["b2"]
    down = False
    await wire.run_jobs(after=timedelta(seconds=5))
    assert names(wire.receiver.heard[3:]) == ["a1", "a2", "a3"]
    states = {one.state for one in await wire.deliveries()}
    assert states == {DeliveryState.DELIVERED}


async def test_one_that_is_given_up_lets_the_next_of_its_object_go(wire: Wire) -> None:
    await wire.make_endpoint()
    wire.receiver.answer = answers(500)
    object_id = new_id()
    await wire.happen("first", object_id=object_id)
    await wire.happen("second", object_id=object_id)
    for pause in PAUSES[:-1]:
        await wire.run_jobs(after=pause)
    wire.receiver.answer = lambda heard, writer: answers(
        500 if names([heard]) == ["first"] else 200
    )(heard, writer)
    await wire.run_jobs(after=PAUSES[-1])
    assert names(wire.receiver.heard) == [*["first"] * 10, "second"]
    assert [one.state for one in await wire.deliveries()] == [
        DeliveryState.EXHAUSTED,
        DeliveryState.DELIVERED,
    ]
