"""Who an event belongs to, as of its moment."""

from datetime import UTC, datetime, timedelta

import pytest

from aforo.sdk import AgentId, CustomerId, CustomerKeyId, TeamId
from aforo.storage.tables import new_id
from aforo.subscriptions.hierarchy import (
    AliasLife,
    Hierarchy,
    KeyLife,
    Place,
    Unplaced,
    hash_customer_key,
)

FROM = datetime(2026, 11, 1, tzinfo=UTC)
TO = datetime(2026, 12, 1, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
PEPPER = "a pepper for tests, long enough to be one"

ACME, GLOBEX = CustomerId(new_id()), CustomerId(new_id())
AGENT_KEY = Place(
    customer_id=ACME,
    team_id=TeamId(new_id()),
    agent_id=AgentId(new_id()),
    customer_key_id=CustomerKeyId(new_id()),
)
OWN_KEY = Place(customer_id=GLOBEX, customer_key_id=CustomerKeyId(new_id()))
OF_AGENT, OF_GLOBEX, OF_NOBODY = b"agent", b"globex", b"nobody"

HIERARCHY = Hierarchy(
    customers={"acme": ACME, "globex": GLOBEX},
    keys={
        OF_AGENT: KeyLife(place=AGENT_KEY, valid_from=FROM, valid_to=TO),
        OF_GLOBEX: KeyLife(place=OWN_KEY, valid_from=FROM),
    },
)


@pytest.mark.parametrize(
    ("customer", "key_hash", "at", "place"),
    [
        ("acme", None, FROM, Place(customer_id=ACME)),
        ("nobody", None, FROM, Unplaced.UNKNOWN_CUSTOMER),
        (None, OF_AGENT, FROM, AGENT_KEY),
        (None, OF_GLOBEX, FROM, OWN_KEY),
        (None, OF_NOBODY, FROM, Unplaced.KEY_UNKNOWN),
        ("acme", OF_AGENT, FROM, AGENT_KEY),
        ("acme", OF_GLOBEX, FROM, Unplaced.KEY_UNKNOWN),
        ("acme", OF_NOBODY, FROM, Unplaced.KEY_UNKNOWN),
        ("nobody", OF_AGENT, FROM, Unplaced.UNKNOWN_CUSTOMER),
    ],
)
def test_an_event_is_placed_by_customer_key_or_both(
    customer: str | None, key_hash: bytes | None, at: datetime, place: Place | Unplaced
) -> None:
    assert HIERARCHY.lookup(customer=customer, key_hash=key_hash, at=at) == place


@pytest.mark.parametrize("customer", [None, "acme"])
@pytest.mark.parametrize(
    ("at", "is_good"),
    [(FROM - INSTANT, False), (FROM, True), (TO - INSTANT, True), (TO, False)],
)
def test_a_key_is_good_within_its_life_alone(
    customer: str | None, at: datetime, is_good: bool
) -> None:
    expected = AGENT_KEY if is_good else Unplaced.KEY_UNKNOWN
    assert HIERARCHY.lookup(customer=customer, key_hash=OF_AGENT, at=at) == expected


def test_a_key_without_an_end_is_good_for_ever() -> None:
    at = FROM + timedelta(days=36_500)
    assert HIERARCHY.lookup(customer=None, key_hash=OF_GLOBEX, at=at) == OWN_KEY


def test_the_customers_are_those_that_are_named_and_those_that_keys_lead_to() -> None:
    assert HIERARCHY.customer_ids == {ACME, GLOBEX}
    assert Hierarchy(customers={}, keys=HIERARCHY.keys).customer_ids == {ACME, GLOBEX}


def test_the_hash_of_a_key_needs_the_key_and_the_pepper() -> None:
    stored = hash_customer_key("sk_live_0123456789", pepper=PEPPER)
    assert len(stored) == 32
    assert stored == hash_customer_key("sk_live_0123456789", pepper=PEPPER)
    assert stored != hash_customer_key("sk_live_0123456780", pepper=PEPPER)
    assert stored != hash_customer_key("sk_live_0123456789", pepper=PEPPER[::-1])


OLD_NAME = Hierarchy(
    customers={"acme": ACME},
    keys=HIERARCHY.keys,
    aliases={
        "acme-old": AliasLife(customer_id=ACME, valid_from=FROM, valid_to=TO),
        "acme": AliasLife(customer_id=GLOBEX, valid_from=FROM),
    },
)


@pytest.mark.parametrize(
    ("at", "stands"),
    [
        (FROM - timedelta(microseconds=1), False),
        (FROM, True),
        (TO - timedelta(microseconds=1), True),
        (TO, False),
    ],
)
def test_an_alias_stands_for_a_customer_within_its_life_alone(at: datetime, stands: bool) -> None:
    expected = Place(customer_id=ACME) if stands else Unplaced.UNKNOWN_CUSTOMER
    assert OLD_NAME.lookup(customer="acme-old", key_hash=None, at=at) == expected


def test_a_key_must_be_that_of_the_customer_behind_the_alias() -> None:
    assert OLD_NAME.lookup(customer="acme-old", key_hash=OF_AGENT, at=FROM) == AGENT_KEY
    foreign = OLD_NAME.lookup(customer="acme-old", key_hash=OF_GLOBEX, at=FROM)
    assert foreign == Unplaced.KEY_UNKNOWN


def test_an_id_of_its_own_goes_before_an_alias() -> None:
    assert OLD_NAME.lookup(customer="acme", key_hash=None, at=FROM) == Place(customer_id=ACME)
    assert Hierarchy(customers={}, keys={}, aliases=OLD_NAME.aliases).customer_ids == {ACME, GLOBEX}
