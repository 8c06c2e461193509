"""What a topic carries comes out as it went in."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.metering.carried import UnreadableRecordError, batches_of, read, record_of
from aforo.metering.deduplicate import keyed
from aforo.metering.delivering import second_verdicts
from aforo.metering.ingest import SentEvent
from aforo.metering.prepare import Prepared
from aforo.metering.rounds import SortedOut
from aforo.metering.stored import StoredEvent
from aforo.metering.telling import outcomes
from aforo.metering.verdicts import VerdictKind
from aforo.storage.tables import new_id

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRET = "a key of a customer"
TENANTS = (UUID(int=1), UUID(int=2))
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=40)


@st.composite
def prepared(draw: st.DrawFn) -> tuple[UUID, Prepared]:
    key, received_at = draw(texts), NOW + timedelta(minutes=draw(st.integers(0, 180)))
    sent = SentEvent(key, draw(texts), "acme", SECRET, NOW, {"n": draw(st.integers())})
    item = keyed(0, sent)
    stored = StoredEvent(
        event_id=new_id(),
        idempotency_key=key,
        type=sent.type,
        customer_id=new_id(),
        team_id=draw(st.none() | st.uuids()),
        agent_id=None,
        customer_key_id=new_id(),
        subscription_id=new_id(),
        product_id=new_id(),
        occurred_at=NOW,
        received_at=received_at,
        properties=item.properties,
        cost=draw(st.none() | st.decimals(0, 10**9, places=9)),
        cost_currency="USD",
        cost_rates=(new_id(),),
    )
    one = Prepared(item, stored.event_id, NOW, received_at, b"hash", stored)
    return draw(st.sampled_from(TENANTS)), one


@given(st.lists(prepared(), max_size=12))
def test_events_come_out_as_they_went_in_by_tenant_and_hour_and_without_secrets(
    several: list[tuple[UUID, Prepared]],
) -> None:
    records = [record_of(tenant, one, is_repeat=False) for tenant, one in several]
    batches = batches_of(read(value) for _, value in records)
    found = [(batch.tenant_id, one) for batch in batches for one in batch.prepared]
    assert sorted(each.result.event_id for _, each in found) == sorted(  # type: ignore[union-attr]
        one.event_id for _, one in several
    )
    by_id = {one.event_id: (tenant, one) for tenant, one in several}
    for tenant, one in found:
        sender, original = by_id[one.event_id]
        assert (tenant, one.result) == (sender, original.result)
        assert one.item.key_hash == original.item.key_hash
        assert one.item.payload_hash == original.item.payload_hash
        assert one.item.properties == original.item.properties
    for batch in batches:
        assert {one.received_at.hour for one in batch.prepared} == {batch.received_at.hour}
        assert [one.item.index for one in batch.prepared] == list(range(batch.received))
    assert not any(SECRET.encode() in value for _, value in records)


@given(prepared())
def test_a_repeat_takes_no_key_and_keeps_what_a_conflict_shows(
    sent: tuple[UUID, Prepared],
) -> None:
    tenant, one = sent
    key, value = record_of(tenant, one, is_repeat=True)
    assert key == record_of(tenant, one, is_repeat=False)[0]
    [batch] = batches_of([read(value)])
    [found] = batch.prepared
    assert not found.takes_key
    assert (found.item.event.key, found.item.properties) == (
        one.item.event.key,
        one.item.properties,
    )
    assert found.item.payload_hash == one.item.payload_hash


@given(prepared())
def test_who_was_slower_is_told_of_a_second_time_and_nobody_else_is(
    sent: tuple[UUID, Prepared],
) -> None:
    tenant, one = sent
    values = [record_of(tenant, one, is_repeat=repeat)[1] for repeat in (False, False, True)]
    [batch] = batches_of(map(read, values))
    sorted_out = SortedOut([batch])
    [first] = sorted_out.answers({})
    told = second_verdicts(batch, first)
    assert told is not None
    [outcome] = outcomes(told)
    shown = outcome.in_full()
    assert outcome.group[0] == shown["verdict"] == VerdictKind.DUPLICATE
    assert shown["idempotencyKey"] == one.item.event.key
    assert shown["eventId"] == one.event_id
    alone = batch._replace(received=1, prepared=batch.prepared[:1])
    assert second_verdicts(alone, SortedOut([alone]).answers({})[0]) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"text",
        msgspec.msgpack.encode([TENANTS[0], b"hash", None]),
        msgspec.msgpack.encode([TENANTS[0], b"hash", {"eventId": "x"}]),
        msgspec.msgpack.encode({"tenantId": TENANTS[0]}),
    ],
)
def test_what_is_none_of_ours_is_refused(value: Any) -> None:
    with pytest.raises(UnreadableRecordError):
        read(value)
