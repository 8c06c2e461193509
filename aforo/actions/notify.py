"""Has notifiers compose what people are told of a signal, each inside a guard."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from aforo.plugins import FAILURES, Registry, bounded, is_printable, told
from aforo.plugins.chosen import restored
from aforo.sdk import Level, Message, Notification, PluginError

CONTENT_TYPE_CHARACTERS_MAX = 100
BODY_BYTES_MAX = 64 * 1024


class Chosen(Protocol):
    """A notifier that a tenant has turned on."""

    notifier: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What one notifier made of the news: a message, or why there is none."""

    notifier: str
    message: Message | None
    failure: str | None = None

    def as_json(self) -> dict[str, str]:
        """As an action records it."""
        if self.message is None:
            return {"notifier": self.notifier, "failure": self.failure or ""}
        return {
            "notifier": self.notifier,
            "contentType": self.message.content_type,
            "body": self.message.body,
        }


def tell(registry: Registry, chosen: Iterable[Chosen], news: Notification) -> list[Told]:
    """What each notifier makes of the news; one that fails says so and holds nobody else up."""
    outcomes = []
    for each in chosen:
        try:
            message = compose(registry, each.notifier, each.settings, news)
        except PluginError as error:
            outcomes.append(Told(each.notifier, None, error.message))
        else:
            outcomes.append(Told(each.notifier, message))
    return outcomes


def compose(
    registry: Registry, key: str, settings: Mapping[str, Any], news: Notification
) -> Message:
    """The message of one notifier, checked. Raises: `PluginError`, which names it."""
    what = f"the notifier {key!r}"
    notifier = restored(registry.notifiers.get(key), settings, what=what)
    try:
        message: object = bounded(notifier.compose, news, what=what)
    except FAILURES as error:  # A plugin may raise anything at all.
        raise PluginError(f"{what} failed: {told(error)}") from error
    if not isinstance(message, Message):
        raise PluginError(f"{what} gave a {type(message).__name__} instead of a Message")
    if fault := _fault(message):
        raise PluginError(f"{what} gave {fault}")
    return message


def sample(at: datetime) -> Notification:
    """News that did not happen, to try a notifier out."""
    return Notification(
        id="00000000-0000-7000-8000-000000000000",
        level=Level.ALERT,
        title="A test of this notifier",
        text="Nothing has happened: somebody wants to see how news would look here.",
        customer="example",
        customer_name="Example & Sons",
        at=at,
        numbers={"margin": Decimal("0.18"), "undefined": None},
    )


def _fault(message: Message) -> str:
    kind: object = message.content_type
    # It becomes a header: nothing of it may end a line.
    if (
        not is_printable(kind, length_max=CONTENT_TYPE_CHARACTERS_MAX)
        or not message.content_type.isascii()
        or "/" not in message.content_type
    ):
        return "no content type of printable ASCII, such as application/json"
    body: object = message.body
    if not isinstance(body, str) or not body:
        return "a body that is no text, or empty"
    try:
        size = len(body.encode())
    except UnicodeEncodeError:
        return "a body with half of a character"
    if size > BODY_BYTES_MAX or "\x00" in body:
        return f"a body of more than {BODY_BYTES_MAX // 1024} KiB, or with a NUL"
    return ""
