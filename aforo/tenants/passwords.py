"""Passwords: which ones are taken, and how they are kept."""

import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from aforo.sdk.errors import Invalid

CHARACTERS_MIN = 12
CHARACTERS_MAX = 128
RAW_CHARACTERS_MAX = 4 * CHARACTERS_MAX
"""Before normalisation, which makes one character of up to 18 and costs time by the character."""
DIFFERENT_CHARACTERS_MIN = 5

# RFC 9106 and OWASP ask for at least 19 MiB and two passes; this is more than three times that.
_HASHER = PasswordHasher(time_cost=2, memory_cost=64 * 1024, parallelism=1, hash_len=32)

# The commonest of those that are long enough, by their letters and digits in lower case.
_COMMON_TEXT = """
000000000000 111111111111 112233445566 121212121212 123123123123 123321123321 1234567890123
12345678901234 123456789012345 1234567890123456 123456789012 1234567890qwerty 123456789abc
123456qwerty 1q2w3e4r5t6y 1q2w3e4r5t6y7u 1qaz2wsx3edc 1qaz2wsx3edc4rfv 1qazxsw23edc 987654321098
abc123456789 abcd12345678 abcdefghijkl abcdefghijklm adgjmptwadgjmptw adminadminadmin
admin1234567 admin12345678 administrator administrator1 asdfasdfasdf asdfghjkl123 asdfghjkl1234
asdfghjklqwerty babygirl1234 basketball12 bismillah123 changemechangeme changeme1234
changeme12345 chocolate123 correcthorsebatterystaple dragondragon footballfootball football1234
iloveyou1234 iloveyou12345 iloveyouiloveyou iloveyousomuch letmein12345 letmein123456
letmeinletmein liverpool123 manchester12 mypassword12 mypassword123 mypassword1234 neverforget1
p4ssw0rdp4ssw0rd passw0rd1234 passw0rd12345 passw0rdpassw0rd password0000 password1111
password1234 password12345 password123456 password1234567 password12345678 password123456789
password2024 password2025 password2026 passwordpassword princess1234 q1w2e3r4t5y6 q1w2e3r4t5y6u7
qazwsxedcrfv qazwsxedcrfvtgb qwer1234qwer qwerasdfzxcv qwert1234567 qwerty123456 qwerty1234567
qwerty12345678 qwertyqwerty qwertyuiop12 qwertyuiop123 qwertyuiop1234 qwertyuiopasdf
qwertyuiopasdfghjkl qwertyuiopasdfghjklzxcvbnm secretsecret spongebob123 starwars1234
summer202020 sunshine1234 superman1234 supersecret1 testtesttest thisismypassword
trustno1trustno1 unbelievable welcome12345 welcome123456 welcomewelcome whatever1234
zaq12wsxcde3 zaq1zaq1zaq1 zxcvbnm12345 zxcvbnm123456 zxcvbnmasdfghjkl zxcvbnmzxcvbnm
"""
_COMMON = frozenset(_COMMON_TEXT.split())


def normalised(password: str) -> str:
    """The password in the one form (NFKC) that every keyboard's way of typing it comes to.

    Raises `Invalid` where it is so long that it cannot be any account's.
    """
    if len(password) > RAW_CHARACTERS_MAX:
        raise _wrong_length()
    return unicodedata.normalize("NFKC", password)


def checked(password: str, *, email: str, field: str = "password") -> str:
    """A new password, normalised. Raises `Invalid` where it is too short, too long or well known.

    Nothing is asked about digits and signs: that makes passwords worse, not better (NIST SP
    800-63B, 3.1.1.2).
    """
    chosen = normalised(password)
    if not CHARACTERS_MIN <= len(chosen) <= CHARACTERS_MAX:
        raise _wrong_length(field)
    plain = "".join(each for each in chosen.lower() if each.isalnum())
    local_part = email.partition("@")[0]
    if plain in _COMMON or len(set(chosen)) < DIFFERENT_CHARACTERS_MIN:
        raise Invalid(
            "this password is among the first that anybody would try: choose another",
            code="PASSWORD_COMMON",
            field=field,
        )
    if chosen.lower() == email or (plain and plain.replace(_plain(local_part), "") == ""):
        raise Invalid(
            "a password is not the e-mail address: choose another",
            code="PASSWORD_COMMON",
            field=field,
        )
    return chosen


def hashed(password: str) -> str:
    """What is stored of a normalised password. Takes some 200 ms and 64 MiB: not in the loop."""
    return _HASHER.hash(password)


def matches(stored: str | None, password: str) -> bool:
    """Whether this is the password behind a hash; for None as slow as for any, and False.

    Takes as long as `hashed`.
    """
    try:
        _HASHER.verify(stored or _nobodys(), password)
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError) as error:
        raise AssertionError("what is stored of a password is no hash of one") from error
    return stored is not None


def is_outdated(stored: str) -> bool:
    """Whether a hash was made with other parameters than today's, and should be made anew."""
    return _HASHER.check_needs_rehash(stored)


@cache
def _nobodys() -> str:
    return _HASHER.hash("the password of nobody")


def _plain(text: str) -> str:
    return "".join(each for each in text.lower() if each.isalnum())


def _wrong_length(field: str = "password") -> Invalid:
    return Invalid(
        f"a password has {CHARACTERS_MIN} to {CHARACTERS_MAX} characters",
        code="PASSWORD_LENGTH",
        field=field,
    )
