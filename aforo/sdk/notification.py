"""Notifiers: news in, a message out; the core sends it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from aforo.sdk.component import Component
from aforo.sdk.detection import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What the people of a tenant are to be told: a signal, in words and in numbers."""

    id: str
    """Of the signal: the same news told twice has the same id."""
    level: Level
    title: str
    text: str
    customer: str
    """The tenant's own id of the customer."""
    customer_name: str
    """Written by others, like `text`: escape it for where it goes."""
    at: datetime
    numbers: Mapping[str, Decimal | None] = field(default_factory=dict)
    """The signal's numbers; None where one is undefined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent: the body of a request to the address that the tenant gave for it."""

    content_type: str
    body: str


class Notifier(Component, ABC):
    """Puts news into the form that a receiver reads. Its fields are the settings of one tenant.

    It knows no address and opens no connection: the core sends, through its one way out.
    """

    @abstractmethod
    def compose(self, notification: Notification) -> Message:
        """The message that tells of it. Pure: the same news gives the same message."""
