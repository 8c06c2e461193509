"""Signatures, against the library of Standard Webhooks as an independent verifier."""

from base64 import b64decode
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from aforo.webhooks.signing import headers_of, make_secret

BODY = '{"id":"evt_1","name":"Zoë"}'.encode()


def signed(*secrets: str, at: datetime | None = None) -> dict[str, str]:
    now = at or datetime.now(UTC)
    return headers_of(message_id="evt_1", body=BODY, now=now, secrets_in_force=secrets)


def test_the_library_verifies_what_we_sign() -> None:
    secret = make_secret()
    assert Webhook(secret).verify(BODY, signed(secret)) == {"id": "evt_1", "name": "Zoë"}


def test_while_secrets_overlap_either_one_verifies() -> None:
    new, old, other = make_secret(), make_secret(), make_secret()
    for secret in (new, old):
        Webhook(secret).verify(BODY, signed(new, old))
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(BODY, signed(new, old))


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_no_header_can_be_changed(header: str) -> None:
    secret = make_secret()
    headers = signed(secret)
    changed = headers | {header: headers[header].replace("1", "2")}
    assert changed != headers or header == "webhook-signature"
    if changed == headers:
        changed[header] = "v1,AAAA"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, changed)


def test_neither_the_body_nor_an_old_call_passes() -> None:
    secret = make_secret()
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", signed(secret))
    with pytest.raises(WebhookVerificationError, match="old"):
        Webhook(secret).verify(BODY, signed(secret, at=datetime.now(UTC) - timedelta(minutes=6)))


def test_the_known_answer_of_the_specification() -> None:
    headers = headers_of(
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        body=b'{"test": 2432232314}',
        now=datetime.fromtimestamp(1614265330, UTC),
        secrets_in_force=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_are_long_and_no_two_are_alike() -> None:
    secrets = {make_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(b64decode(secret.removeprefix("whsec_"))) for secret in secrets} == {32}
