"""Opaque texts: bytes as base64url without padding, read back only as they were written."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode


def encoded(raw: bytes) -> str:
    """Bytes as text for clients."""
    return urlsafe_b64encode(raw).decode().rstrip("=")


def decoded(text: str, *, characters_max: int) -> bytes:
    """The bytes again. Raises ValueError for whatever `encoded` does not give."""
    if len(text) > characters_max:
        raise ValueError("too long")
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError("no base64url") from error
    if encoded(raw) != text:
        raise ValueError("not canonical")
    return raw
