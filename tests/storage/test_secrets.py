"""Secrets at rest: opened in their own place alone, and with the right master key alone."""

import asyncio
import dataclasses

import pytest
import sqlalchemy as sa

from aforo.sdk.ids import TenantId
from aforo.settings import Settings
from aforo.storage.scope import Runtime
from aforo.storage.secrets import DataKey, MasterKey, Place, SecretUnreadable, WrappedKey
from aforo.storage.tables import new_id

SECRET = "JBSWY3DPEHPK3PXP"
PLACE = Place("account", "totp_secret", new_id())


SETTINGS = Settings(
    database_url="", redis_url="", clickhouse_url="", key_pepper="p" * 32, master_key="k" * 32
)


@pytest.fixture
def master_key() -> MasterKey:
    return MasterKey.of(SETTINGS)


@pytest.fixture
def key(master_key: MasterKey) -> DataKey:
    owner = new_id()
    return master_key.unwrap(master_key.new_wrapped(owner), owner)


def test_what_was_sealed_is_opened_again_and_looks_different_each_time(key: DataKey) -> None:
    sealed = [key.seal(SECRET, PLACE) for _ in range(2)]
    assert sealed[0] != sealed[1]
    assert all(SECRET.encode() not in each for each in sealed)
    assert [key.unseal(each, PLACE) for each in sealed] == [SECRET.encode()] * 2


@pytest.mark.parametrize(
    "elsewhere",
    [
        dataclasses.replace(PLACE, table="member"),
        dataclasses.replace(PLACE, column="totp_secre"),
        dataclasses.replace(PLACE, row=new_id()),
        Place("accountt", "otp_secret", PLACE.row),
    ],
    ids=["table", "column", "row", "boundary"],
)
def test_a_secret_that_was_moved_cannot_be_opened(key: DataKey, elsewhere: Place) -> None:
    with pytest.raises(SecretUnreadable):
        key.unseal(key.seal(SECRET, PLACE), elsewhere)


def test_another_owners_key_does_not_open_it(master_key: MasterKey, key: DataKey) -> None:
    other = master_key.unwrap(master_key.new_wrapped(key.owner), key.owner)
    with pytest.raises(SecretUnreadable):
        other.unseal(key.seal(SECRET, PLACE), PLACE)
    with pytest.raises(SecretUnreadable):
        master_key.unwrap(master_key.new_wrapped(key.owner), new_id())


def test_no_bit_can_be_changed_and_no_byte_left_out(key: DataKey) -> None:
    sealed = key.seal(SECRET, PLACE)
    changed = [
        sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))
    ]
    shortened = [sealed[:length] for length in range(len(sealed))]
    for each in changed + shortened:
        with pytest.raises(SecretUnreadable):
            key.unseal(each, PLACE)


def test_another_master_key_is_said_to_be_another(master_key: MasterKey) -> None:
    owner = new_id()
    wrapped = master_key.new_wrapped(owner)
    for other in ({"master_key": "m" * 32}, {"master_key": ""}):
        with pytest.raises(SecretUnreadable, match="AFORO_MASTER_KEY"):
            MasterKey.of(dataclasses.replace(SETTINGS, **other)).unwrap(wrapped, owner)


def test_without_a_master_key_one_is_derived_from_the_pepper() -> None:
    owner = new_id()
    settings = dataclasses.replace(SETTINGS, master_key="")
    wrapped = MasterKey.of(settings).new_wrapped(owner)
    assert MasterKey.of(settings).unwrap(wrapped, owner).owner == owner
    with pytest.raises(SecretUnreadable, match="AFORO_KEY_PEPPER"):
        MasterKey.of(dataclasses.replace(settings, key_pepper="q" * 32)).unwrap(wrapped, owner)


def test_keys_do_not_print_themselves(master_key: MasterKey, key: DataKey) -> None:
    assert repr(master_key) == "MasterKey()"
    assert repr(key) == f"DataKey(owner={key.owner!r})"


@pytest.mark.anyio
async def test_scopes_that_first_ask_at_the_same_time_get_one_key(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async def sealed() -> bytes:
        async with runtime.scope(tenant_id) as scope:
            return (await scope.data_key()).seal(SECRET, PLACE)

    all_sealed = await asyncio.gather(*(sealed() for _ in range(5)))
    async with runtime.scope(tenant_id) as scope:
        key = await scope.data_key()
        stored = (await scope.db.scalars(sa.select(WrappedKey))).all()
    assert [key.unseal(each, PLACE).decode() for each in all_sealed] == [SECRET] * 5
    assert len(stored) == 1
    assert key.owner == tenant_id
