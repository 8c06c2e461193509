"""Passwords: which are taken, and what is kept of them."""

import pytest

from aforo.sdk.errors import Invalid
from aforo.tenants import passwords

EMAIL = "ann.lee@example.com"


@pytest.mark.parametrize(
    "password",
    ["x7 Kq 2m zP 9w", "correct horse battery", "пароль для примера", "🦊🐻🐼🦁🐯🐨" * 2],
)
def test_a_password_of_any_letters_is_taken(password: str) -> None:
    assert passwords.checked(password, email=EMAIL) == password


@pytest.mark.parametrize("length", [0, 11, 129, 512, 513, 1_000_000])
def test_a_password_has_12_to_128_characters(length: int) -> None:
    with pytest.raises(Invalid) as refused:
        passwords.checked(("abcdefghijk1mn" * (length // 14 + 1))[:length], email=EMAIL)
    assert refused.value.code == "PASSWORD_LENGTH"


def test_both_bounds_are_taken() -> None:
    for length in (12, 128):
        chosen = ("kd83 hxw0 qpm5" * 10)[:length]
        assert passwords.checked(chosen, email=EMAIL) == chosen


def test_length_is_counted_after_composition() -> None:
    assert len(passwords.checked("\ufb03" * 4 + "abcde", email=EMAIL)) == 17  # ﬃ is three letters.
    with pytest.raises(Invalid):
        passwords.checked("Zu\u0308richer Se", email=EMAIL)  # Eleven, typed with twelve keys.


@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "PassWord1234",
        "pass-word-1234!",
        "qwertyuiop123",
        "aaaaaaaaaaaaaaaaaaaa",
        "121212121212121212",
        "ann.lee@example.com",
        "annleeannlee",
        "AnnLee.AnnLee.",
    ],
)
def test_what_anybody_would_try_first_is_refused(password: str) -> None:
    with pytest.raises(Invalid) as refused:
        passwords.checked(password, email=EMAIL)
    assert refused.value.code == "PASSWORD_COMMON"


def test_all_of_the_list_would_be_long_enough() -> None:
    assert len(passwords._COMMON) > 100
    assert [each for each in passwords._COMMON if len(each) < passwords.CHARACTERS_MIN] == []


def test_a_hash_is_argon2id_with_a_salt_of_its_own() -> None:
    first, second = passwords.hashed("a password"), passwords.hashed("a password")
    assert first != second
    assert first.startswith("$argon2id$v=19$m=65536,t=2,p=1$")
    assert passwords.matches(first, "a password")
    assert not passwords.matches(first, "a Password")
    assert not passwords.is_outdated(first)


def test_nobodys_password_is_never_right() -> None:
    assert not passwords.matches(None, "the password of nobody")
