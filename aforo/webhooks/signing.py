"""Signatures by Standard Webhooks: https://www.standardwebhooks.com, symmetric, version 1."""

import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

PREFIX = "whsec_"
SECRET_BYTES = 32


def make_secret() -> str:
    """A new secret, as its owner gets to see it once."""
    return PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def headers_of(
    *, message_id: str, body: bytes, now: datetime, secrets_in_force: Sequence[str]
) -> dict[str, str]:
    """The three headers of a call; one signature per secret, so that either one verifies it.

    The time is that of the call, not of the event: receivers refuse what is older than minutes.
    """
    timestamp = int(now.timestamp())
    signed = [_signature(each, message_id, timestamp, body) for each in secrets_in_force]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signed),
    }


def _signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    key = b64decode(secret.removeprefix(PREFIX))
    content = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{b64encode(hmac.digest(key, content, sha256)).decode()}"
