"""One-time codes: the vectors of RFC 6238, drift, and that none is taken twice."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from aforo.tenants import totp

RFC_SECRET = b"12345678901234567890"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "code"),
    [  # RFC 6238, appendix B, the lines of SHA1.
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_the_vectors_of_the_rfc(seconds: int, code: str) -> None:
    step = totp.step_at(datetime.fromtimestamp(seconds, UTC))
    assert totp.code_at(RFC_SECRET, step, digits=8) == code


def test_a_code_is_taken_one_step_early_or_late_and_no_further() -> None:
    middle = totp.step_at(NOW)
    for drift in range(-3, 4):
        code = totp.code_at(RFC_SECRET, middle + drift)
        found = totp.step_of_code(RFC_SECRET, code, now=NOW, after=0)
        assert found == (middle + drift if abs(drift) <= 1 else None)


def test_a_code_counts_once_and_no_earlier_one_after_it() -> None:
    step = totp.step_at(NOW)
    for used in (step, step + 1):
        code = totp.code_at(RFC_SECRET, step)
        assert totp.step_of_code(RFC_SECRET, code, now=NOW, after=used) is None
    later = NOW + timedelta(seconds=30)
    code = totp.code_at(RFC_SECRET, step + 1)
    assert totp.step_of_code(RFC_SECRET, code, now=later, after=step) == step + 1


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345a", "١٢٣٤٥٦", "1" * 1000])
def test_what_has_another_shape_is_no_code(code: str) -> None:
    assert totp.step_of_code(RFC_SECRET, code, now=NOW, after=0) is None


def test_blanks_in_a_code_do_not_matter() -> None:
    code = totp.code_at(RFC_SECRET, totp.step_at(NOW))
    spaced = f"{code[:3]} {code[3:]}"
    assert totp.step_of_code(RFC_SECRET, spaced, now=NOW, after=0) == totp.step_at(NOW)


def test_the_uri_is_what_devices_read() -> None:
    secret = totp.new_secret()
    uri = urlsplit(totp.enrolment_uri(secret, email="ann+x@example.com", issuer="Aforo Ä & Co"))
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert unquote(uri.path) == "/Aforo Ä & Co:ann+x@example.com"
    assert "+" not in uri.query  # Devices read a plus as a plus.
    assert parse_qs(uri.query) == {
        "secret": [totp.spelled(secret)],
        "issuer": ["Aforo Ä & Co"],
        "algorithm": ["SHA1"],
        "digits": ["6"],
        "period": ["30"],
    }
    assert len(secret) == 20


def test_recovery_codes_differ_and_are_read_however_they_are_written() -> None:
    codes = totp.new_recovery_codes()
    assert len(set(codes)) == 10
    pepper = "p" * 32
    stored = totp.hashed_recovery_code(codes[0], pepper)
    for written in (codes[0].upper(), codes[0].replace("-", " "), codes[0].replace("-", "")):
        assert totp.hashed_recovery_code(written, pepper) == stored
    assert totp.hashed_recovery_code(codes[1], pepper) != stored
    assert totp.hashed_recovery_code(codes[0], "q" * 32) != stored
