"""The form of API keys: what is a token, what is none, and what is stored of one."""

import pytest

from aforo.tenants.keys import make_token, parse_token
from aforo.tenants.models import Environment

PEPPER = "a pepper for tests, long enough to be one"


def test_a_token_is_read_back_as_it_was_made() -> None:
    token = make_token(Environment.TEST)
    assert str(token).startswith("afo_test_")
    assert parse_token(str(token)) == token


def test_every_typo_of_one_character_is_noticed_without_a_look_up() -> None:
    text = str(make_token(Environment.LIVE))
    for position, character in enumerate(text):
        other = "0" if character != "0" else "1"
        assert parse_token(text[:position] + other + text[position + 1 :]) is None


def test_every_pair_of_neighbours_that_changed_places_is_noticed() -> None:
    text = str(make_token(Environment.LIVE))
    for position in range(len(text) - 1):
        first, second = text[position : position + 2]
        swapped = text[:position] + second + first + text[position + 2 :]
        if swapped != text:
            assert parse_token(swapped) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "afo_live",
        "afo_live_____",
        str(make_token(Environment.LIVE)).upper(),
        str(make_token(Environment.LIVE)) + "\n",
        " " + str(make_token(Environment.LIVE)),
        str(make_token(Environment.LIVE)).replace("live", "prod"),
    ],
    ids=map(str, range(7)),
)
def test_what_has_another_shape_is_no_token(text: str) -> None:
    assert parse_token(text) is None


def test_the_hash_depends_on_every_part_and_on_the_pepper() -> None:
    token = make_token(Environment.LIVE)
    others = [
        type(token)(Environment.TEST, token.public_id, token.secret),
        type(token)(token.environment, "0" * 16, token.secret),
        type(token)(token.environment, token.public_id, "0" * 48),
    ]
    stored = token.hashed(PEPPER)
    assert len(stored) == 32
    assert token.matches(stored, PEPPER)
    assert not token.matches(stored, PEPPER + "!")
    assert not any(other.matches(stored, PEPPER) for other in others)


def test_a_token_does_not_print_its_secret_in_a_traceback() -> None:
    token = make_token(Environment.LIVE)
    assert token.secret not in repr(token)
