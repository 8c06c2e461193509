"""Tokens of people: for one purpose each, and of no use to whoever reads the database."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from aforo.tenants.tokens import PersonalToken, Purpose, SignedToken

PEPPER = "a pepper for tests, long enough to be one"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_a_token_is_read_back_for_its_own_purpose_alone() -> None:
    token = PersonalToken.new(Purpose.SESSION, uuid4())
    assert PersonalToken.read(Purpose.SESSION, str(token)) == token
    assert PersonalToken.read(Purpose.INVITATION, str(token)) is None
    other = str(token).replace("session", "invitation")
    found = PersonalToken.read(Purpose.INVITATION, other)
    assert found is not None
    assert found.hashed(PEPPER) != token.hashed(PEPPER)


@pytest.mark.parametrize("change", ["", " ", "\n", "A", "é"])
def test_what_has_another_shape_is_no_token(change: str) -> None:
    text = str(PersonalToken.new(Purpose.SESSION, uuid4()))
    for wrong in (change, text[:-1] + change, text.upper(), text + change * 1000):
        if wrong != text:
            assert PersonalToken.read(Purpose.SESSION, wrong) is None


def test_the_hash_and_the_proof_of_a_page_depend_on_token_and_pepper() -> None:
    token, other = (PersonalToken.new(Purpose.SESSION, uuid4()) for _ in range(2))
    seen = {
        token.hashed(PEPPER).hex(),
        token.hashed(f"{PEPPER}!").hex(),
        other.hashed(PEPPER).hex(),
        token.csrf(PEPPER),
        token.csrf(f"{PEPPER}!"),
        other.csrf(PEPPER),
    }
    assert len(seen) == 6
    assert str(token).rpartition("_")[2] not in repr(token)


def signed(**changes: object) -> SignedToken:
    given = {"purpose": Purpose.CHALLENGE, "account_id": uuid4(), "note": "0"}
    return SignedToken(**{**given, "expires_at": NOW + timedelta(minutes=5), **changes})  # type: ignore[arg-type]


def test_a_signed_token_is_genuine_until_it_expires_or_its_account_changes() -> None:
    text = signed().signed(state="1", pepper=PEPPER)
    read = SignedToken.read(Purpose.CHALLENGE, text)
    assert read is not None
    assert read.is_genuine(state="1", pepper=PEPPER, now=NOW)
    assert not read.is_genuine(state="2", pepper=PEPPER, now=NOW)
    assert not read.is_genuine(state="1", pepper=f"{PEPPER}!", now=NOW)
    assert not read.is_genuine(state="1", pepper=PEPPER, now=read.expires_at)


def test_no_part_of_a_signed_token_can_be_changed() -> None:
    text = signed().signed(state="1", pepper=PEPPER)
    later = str(int((NOW + timedelta(days=9)).timestamp()))
    until = str(int((NOW + timedelta(minutes=5)).timestamp()))
    for forged in (text.replace(until, later), text.replace(f"{until}_0_", f"{until}_1_")):
        assert forged != text
        read = SignedToken.read(Purpose.CHALLENGE, forged)
        assert read is not None
        assert not read.is_genuine(state="1", pepper=PEPPER, now=NOW)
    renamed = text.replace("challenge", "reset")
    read = SignedToken.read(Purpose.RESET, renamed)
    assert read is not None
    assert not read.is_genuine(state="1", pepper=PEPPER, now=NOW)
    assert SignedToken.read(Purpose.RESET, text) is None


def test_a_claim_beyond_all_time_is_no_fault_of_ours() -> None:
    text = f"afo_challenge_{uuid4().hex}_999999999999_0_{'0' * 64}"
    read = SignedToken.read(Purpose.CHALLENGE, text)
    assert read is not None
    assert not read.is_genuine(state="1", pepper=PEPPER, now=NOW)
