"""Several batches in one round are answered as if they had come one after the other."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from aforo.metering.deduplicate import KnownKey, keyed
from aforo.metering.ingest import SentEvent
from aforo.metering.prepare import Prepared
from aforo.metering.rounds import Batch, Key, SortedOut, key_of
from aforo.metering.stored import StoredEvent
from aforo.metering.verdicts import IngestAnswer, Stage, quarantined, rejected
from aforo.sdk.ids import TenantId
from aforo.storage.tables import new_id

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
TENANTS = [TenantId(UUID(int=1)), TenantId(UUID(int=2))]

sent = st.tuples(
    st.sampled_from("abc"), st.integers(1, 2), st.sampled_from(["good", "bad", "aside"])
)
batches = st.lists(
    st.tuples(st.sampled_from(TENANTS), st.lists(sent, max_size=5)), min_size=1, max_size=5
)


def prepared(index: int, key: str, tokens: int, fate: str) -> Prepared:
    event = SentEvent(key, "llm", "acme", None, NOW, {"tokens": tokens})
    item, event_id = keyed(index, event), new_id()
    nobody = UUID(int=0)
    result = {
        "bad": rejected(Stage.VALIDATION, "BAD_VALUE", "bad"),
        "aside": quarantined(Stage.VALIDATION, "UNKNOWN_CUSTOMER", "unknown"),
    }.get(fate) or StoredEvent(
        event_id=event_id,
        idempotency_key=key,
        type="llm",
        customer_id=nobody,
        team_id=None,
        agent_id=None,
        customer_key_id=None,
        subscription_id=nobody,
        product_id=nobody,
        occurred_at=NOW,
        received_at=NOW,
        properties=item.properties,
        cost=None,
        cost_currency="",
        cost_rates=(),
    )
    return Prepared(item, event_id, NOW, NOW, None, result)


def one_after_the_other(batches: Sequence[Batch]) -> tuple[list[IngestAnswer], list[UUID]]:
    """The answers of rounds of one batch each, and the events that hold keys afterwards."""
    known: dict[Key, KnownKey] = {}
    answers, holders = [], []
    for batch in batches:
        alone = SortedOut([batch])
        answers += alone.answers(known)
        for tenant_id, one in alone.kept(known):
            known[key_of(tenant_id, one.item.key_hash)] = KnownKey(
                one.event_id, one.item.payload_hash
            )
            holders.append(one.event_id)
    return answers, holders


@given(batches)
def test_a_round_of_batches_is_the_batches_one_after_the_other(
    several: list[tuple[TenantId, list[tuple[str, int, str]]]],
) -> None:
    made = [
        Batch(
            tenant_id,
            NOW,
            len(events),
            [prepared(index, *event) for index, event in enumerate(events)],
            [],
        )
        for tenant_id, events in several
    ]
    together = SortedOut(made)
    answers, holders = one_after_the_other(made)
    assert together.answers({}) == answers
    assert [one.event_id for _, one in together.kept({})] == holders


@given(batches, st.sets(st.sampled_from("abc")))
def test_a_key_that_was_taken_before_is_a_duplicate_or_a_conflict_wherever_it_comes(
    several: list[tuple[TenantId, list[tuple[str, int, str]]]], taken: set[str]
) -> None:
    made = [
        Batch(
            tenant_id,
            NOW,
            len(events),
            [prepared(index, *event) for index, event in enumerate(events)],
            [],
        )
        for tenant_id, events in several
    ]
    first = {key: prepared(0, key, 1, "good") for key in taken}
    known = {
        key_of(TENANTS[0], one.item.key_hash): KnownKey(one.event_id, one.item.payload_hash)
        for one in first.values()
    }
    together = SortedOut(made)
    for batch, (tenant_id, events), answer in zip(
        made, several, together.answers(known), strict=True
    ):
        kinds = {verdict.index: (verdict.kind, verdict.event_id) for verdict in answer.verdicts}
        for index, (key, tokens, _) in enumerate(events):
            if tenant_id == TENANTS[0] and key in taken:
                kind = "DUPLICATE" if tokens == 1 else "CONFLICT"
                assert kinds[index] == (kind, first[key].event_id)
        assert answer.received == len(batch.prepared)
    kept = {key_of(tenant_id, one.item.key_hash) for tenant_id, one in together.kept(known)}
    assert not kept & known.keys()
