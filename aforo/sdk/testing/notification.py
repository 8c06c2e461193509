"""What every notifier promises: a message that can be sent, whatever the news says."""

import json
from datetime import UTC, datetime
from decimal import Decimal

from aforo.sdk.detection import Level
from aforo.sdk.notification import Message, Notification, Notifier
from aforo.sdk.testing.contract import Case, check, demand, is_text

CONTENT_TYPE_CHARACTERS_MAX = 100
BODY_BYTES_MAX = 64 * 1024
_HOSTILE = 'Ann "<!channel>" & <b>Sons</b>\u2028 {{x}} \\ @here ' + "🧾" * 100
_NEWS = tuple(
    Notification(
        id="0199f0c0-0000-7000-8000-000000000002",
        level=level,
        title="Margin below 10 %",
        text=text,
        customer="acme-corp",
        customer_name=name,
        at=datetime(2026, 11, 20, 12, tzinfo=UTC),
        numbers={"revenue": Decimal("29.00"), "margin": None, "cogs": Decimal("0.00000003")},
    )
    for level in Level
    for name, text in (("Acme", "A margin of 8.00 % is below L2."), (_HOSTILE, _HOSTILE))
)


@check(Notifier)
def it_composes_a_message_of_every_news(case: Case) -> None:
    for news in _NEWS:
        message = case.configured().compose(news)
        demand(isinstance(message, Message), f"{message!r} is no Message")
        demand(
            is_text(message.content_type, length_max=CONTENT_TYPE_CHARACTERS_MAX)
            and "/" in message.content_type,
            f"{message.content_type!r} is no content type, such as application/json",
        )
        demand(isinstance(message.body, str) and message.body, "its body is text, and not empty")
        demand(
            len(message.body.encode()) <= BODY_BYTES_MAX,
            f"its body is longer than {BODY_BYTES_MAX // 1024} KiB",
        )


@check(Notifier)
def what_it_calls_json_is_json(case: Case) -> None:
    for news in _NEWS:
        message = case.configured().compose(news)
        if "json" in message.content_type:
            try:
                json.loads(message.body)
            except ValueError as error:
                demand(False, f"its body is no JSON: {error}")  # noqa: FBT003


@check(Notifier)
def the_same_news_gives_the_same_message(case: Case) -> None:
    notifier = case.configured()
    there = [notifier.compose(news) for news in _NEWS]
    back = [notifier.compose(news) for news in reversed(_NEWS)][::-1]
    demand(there == back, "the same news is told in two ways: it keeps nothing, and has no clock")


@check(Notifier)
def different_news_gives_different_messages(case: Case) -> None:
    notifier = case.configured()
    bodies = {notifier.compose(news).body for news in _NEWS}
    demand(len(bodies) > 1, "whatever happened, it says the same")
