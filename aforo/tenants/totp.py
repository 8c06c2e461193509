"""Time-based one-time codes (RFC 6238) and the recovery codes for whoever lost the device."""

import base64
import hmac
import re
import secrets
import struct
from datetime import datetime
from hashlib import sha256
from urllib.parse import quote, urlencode

SECRET_BYTES = 20
"""What RFC 4226 recommends: as many as its hash has."""
STEP_SECONDS = 30
DIGITS = 6
DRIFT_STEPS = 1
"""A code is taken one step early or late, for clocks that are off."""
RECOVERY_CODES = 10
RECOVERY_CHARACTERS = 10
"""Of 32 different ones: 50 random bits, under the pepper and a count of tries."""

_ALPHABET = "abcdefghjkmnpqrstuvwxyz023456789"  # Without i, l, o and 1, which look alike.
_CODE = re.compile(rf"[0-9]{{{DIGITS}}}", re.ASCII)


def new_secret() -> bytes:
    """A new random secret, to share with one device."""
    return secrets.token_bytes(SECRET_BYTES)


def spelled(secret: bytes) -> str:
    """A secret as people type it into a device that cannot read a QR code."""
    return base64.b32encode(secret).decode().rstrip("=")


def enrolment_uri(secret: bytes, *, email: str, issuer: str) -> str:
    """What the QR code for a device says."""
    label = quote(f"{issuer}:{email}", safe=":@")
    parameters = {
        "secret": spelled(secret),
        "issuer": issuer,
        "algorithm": "SHA1",
        "digits": DIGITS,
        "period": STEP_SECONDS,
    }
    return f"otpauth://totp/{label}?{urlencode(parameters, quote_via=quote)}"


def step_at(moment: datetime) -> int:
    """The number of the half minute that a moment lies in."""
    return int(moment.timestamp()) // STEP_SECONDS


def code_at(secret: bytes, step: int, *, digits: int = DIGITS) -> str:
    """The code of a step (RFC 4226, 5.3)."""
    digest = hmac.digest(secret, struct.pack(">Q", step), "sha1")
    offset = digest[-1] & 0x0F
    (number,) = struct.unpack_from(">I", digest, offset)
    return f"{(number & 0x7FFFFFFF) % 10**digits:0{digits}}"


def step_of_code(secret: bytes, code: str, *, now: datetime, after: int) -> int | None:
    """The step whose code this is, if it is near and later than the step `after`, the last used.

    None for a wrong code and for one that was used already: the two are not told apart.
    """
    given = code.replace(" ", "")
    if not _CODE.fullmatch(given):
        return None
    middle = step_at(now)
    found = None
    for step in range(middle - DRIFT_STEPS, middle + DRIFT_STEPS + 1):
        if hmac.compare_digest(code_at(secret, step), given) and step > after:
            found = step
    return found


def new_recovery_codes() -> list[str]:
    """Ten new codes, each for one sign-in without the device."""
    return [
        f"{code[: RECOVERY_CHARACTERS // 2]}-{code[RECOVERY_CHARACTERS // 2 :]}"
        for code in (
            "".join(secrets.choice(_ALPHABET) for _ in range(RECOVERY_CHARACTERS))
            for _ in range(RECOVERY_CODES)
        )
    ]


def hashed_recovery_code(code: str, pepper: str) -> bytes:
    """What is stored of a recovery code, however its owner writes it."""
    plain = "".join(each for each in code.lower() if each.isalnum())
    return hmac.digest(pepper.encode(), b"recovery code|" + plain.encode(), sha256)
