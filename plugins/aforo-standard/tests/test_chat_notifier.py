"""Chat: what a message says, and that nothing in it is obeyed."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from aforo.sdk import Level, Notification, configure
from aforo_standard.chat_notifier import TEXT_CHARACTERS_MAX, ChatNotifier


def text_of(settings: dict[str, Any] | None = None, **changes: Any) -> str:
    news = {
        "id": "1",
        "level": Level.THROTTLE,
        "title": "L2 of margin guard",
        "text": "A margin of 8.00 % is below L2.",
        "customer": "acme-corp",
        "customer_name": "Acme",
        "at": datetime(2026, 11, 20, tzinfo=UTC),
        "numbers": {"cogs": Decimal("0.00000003"), "margin": None},
    }
    message = configure(ChatNotifier, settings or {}).compose(Notification(**news | changes))
    assert message.content_type == "application/json"
    body = json.loads(message.body)
    assert list(body) == ["text"]
    said: str = body["text"]
    return said


def test_a_message_names_what_happened_to_whom_with_the_numbers() -> None:
    assert text_of() == (
        "🐢 *L2 of margin guard* — Acme (acme-corp)\n"
        "A margin of 8.00 % is below L2.\n"
        "cogs 0.00000003, margin undefined"
    )


def test_a_prefix_comes_first_and_numbers_can_be_left_out() -> None:
    said = text_of({"prefix": "[billing]", "showNumbers": False})
    assert said.startswith("[billing] 🐢 ")
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize("level", Level)
def test_each_level_has_a_sign(level: Level) -> None:
    assert text_of(level=level)[0] in "⚠🐢⛔"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<!channel>", "&lt;!channel&gt;"),
        ("<https://evil.example|Acme>", "&lt;https://evil.example|Acme&gt;"),
        ("Sons & Co", "Sons &amp; Co"),
        ("@here", "@\u200bhere"),
        ("*bold*", "*\u200bbold*\u200b"),
    ],
)
def test_what_others_wrote_is_shown_and_not_obeyed(name: str, shown: str) -> None:
    assert shown in text_of(customer_name=name)
    assert shown in text_of(text=name)


def test_a_message_is_of_bounded_length() -> None:
    assert len(text_of(text="x" * 10_000)) == TEXT_CHARACTERS_MAX
