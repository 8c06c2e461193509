"""Chat: JSON that Slack's incoming webhooks take, and those of Mattermost and Rocket.Chat."""

import json
import re

from pydantic import Field, StrictBool

from aforo.sdk import Level, Message, Notification, Notifier

TEXT_CHARACTERS_MAX = 3_000
"""What Slack shows of a message without cutting it up."""

_SIGNS = {Level.ALERT: "⚠️", Level.THROTTLE: "🐢", Level.BLOCK: "⛔"}
# A name that says `<!channel>` would wake everybody, and `*` or `_` would change what stands there.
_ESCAPES = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
_MARKUP = re.compile(r"([*_~`@#])")


class ChatNotifier(Notifier):
    key = "standard.chat"
    summary = "A line for a chat: Slack, Mattermost, Rocket.Chat"

    show_numbers: StrictBool = Field(
        default=True, description="Whether the signal's numbers follow in a second line."
    )
    prefix: str | None = Field(
        default=None, max_length=80, description="What every message begins with, such as a team."
    )

    def compose(self, notification: Notification) -> Message:
        """One JSON object with the member `text`."""
        head = f"{_SIGNS[notification.level]} *{_plain(notification.title)}*"
        who = f"{_plain(notification.customer_name)} ({_plain(notification.customer)})"
        lines = [f"{head} — {who}", _plain(notification.text)]
        if self.prefix is not None:
            lines[0] = f"{_plain(self.prefix)} {lines[0]}"
        if self.show_numbers and notification.numbers:
            lines.append(
                ", ".join(
                    f"{_plain(name)} {'undefined' if number is None else f'{number:f}'}"
                    for name, number in notification.numbers.items()
                )
            )
        text = "\n".join(lines)[:TEXT_CHARACTERS_MAX]
        return Message(
            content_type="application/json", body=json.dumps({"text": text}, ensure_ascii=False)
        )


def _plain(text: str) -> str:
    """Text of others, so that the chat shows it and does not obey it."""
    # A zero-width space ends what the chat would take for markup or for a mention.
    return _MARKUP.sub("\\1\u200b", text.translate(_ESCAPES))
