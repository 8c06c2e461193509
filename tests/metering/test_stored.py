"""Events as they are kept: packed, put one behind the other, and read as they were."""

import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.metering import archive
from aforo.metering.stored import StoredEvent, packed, unpacked

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
UUIDS = st.uuids(version=4)

stored_events = st.builds(
    StoredEvent,
    event_id=UUIDS,
    idempotency_key=st.text(min_size=1, max_size=20),
    type=st.text(min_size=1, max_size=20),
    customer_id=UUIDS,
    team_id=st.none() | UUIDS,
    agent_id=st.none() | UUIDS,
    customer_key_id=st.none() | UUIDS,
    subscription_id=UUIDS,
    product_id=UUIDS,
    occurred_at=st.integers(0, 10**6).map(lambda micros: NOW + timedelta(microseconds=micros)),
    received_at=st.just(NOW),
    properties=st.just('{"tokens":10}'),
    cost=st.none() | st.decimals(0, 10**6, places=9),
    cost_currency=st.sampled_from(["", "USD"]),
    cost_rates=st.lists(UUIDS, max_size=2).map(tuple),
)


@given(st.lists(st.lists(stored_events, min_size=1, max_size=4), min_size=1, max_size=4))
def test_packs_put_one_behind_the_other_are_all_their_events(
    several: list[list[StoredEvent]],
) -> None:
    packs = [packed(events) for events in several]
    assert [pack.events for pack in packs] == [len(events) for events in several]
    kept = unpacked(b"".join(pack.body for pack in packs))
    assert kept == [event for events in several for event in events]
    lines = [zstd.decompress(pack.body) for pack in packs]
    assert [pack.content_bytes for pack in packs] == [len(line) for line in lines]
    assert unpacked(b"".join(lines)) == kept  # As they were before they were packed.


def test_a_cost_keeps_every_digit() -> None:
    event = msgspec.structs.replace(example(), cost=Decimal("0.000000030"))
    [kept] = unpacked(packed([event]).body)
    assert str(kept.cost) == "3.0E-8"
    assert kept.cost == Decimal("0.000000030")


@pytest.mark.parametrize("at", [0, 4, -5, -1])
def test_a_byte_that_was_changed_is_noticed(at: int) -> None:
    body = bytearray(packed([example()] * 50).body)
    body[at] ^= 1
    with pytest.raises((zstd.ZstdError, msgspec.DecodeError)):
        unpacked(bytes(body))


def test_a_file_of_before_is_found_until_there_is_a_packed_one(tmp_path: Path) -> None:
    tenant_id = UUID(int=1)
    packed_file = archive.path_of(tmp_path, tenant_id, 7)
    assert packed_file.name == "000000000000007.ndjson.zst"
    assert archive.find(tmp_path, tenant_id, 7) == packed_file
    plain = packed_file.with_name("000000000000007.ndjson")
    archive.write(plain, b"{}")
    assert archive.find(tmp_path, tenant_id, 7) == plain
    archive.write(packed_file, b"x")
    assert archive.find(tmp_path, tenant_id, 7) == packed_file


def example() -> StoredEvent:
    nobody = UUID(int=0)
    return StoredEvent(
        event_id=nobody,
        idempotency_key="k",
        type="llm",
        customer_id=nobody,
        team_id=None,
        agent_id=None,
        customer_key_id=None,
        subscription_id=nobody,
        product_id=nobody,
        occurred_at=NOW,
        received_at=NOW,
        properties="{}",
        cost=None,
        cost_currency="",
        cost_rates=(),
    )
