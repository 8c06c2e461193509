"""What Aforo tells the world: the types of domain events, and what each of them carries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from aforo.sdk.ids import global_id


class EventType(StrEnum):
    """What has happened, as `<object>.<what happened to it>`."""

    CUSTOMER_CREATED = "customer.created"
    SUBSCRIPTION_CREATED = "subscription.created"
    SUBSCRIPTION_ENDED = "subscription.ended"
    INVOICE_DRAFTED = "invoice.drafted"
    INVOICE_FINALIZED = "invoice.finalized"
    WALLET_CREDITED = "wallet.credited"
    BILL_RUN_COMPLETED = "bill_run.completed"
    BILL_RUN_FAILED = "bill_run.failed"
    ACCOUNT_PARKED = "account.parked"
    SIGNAL_FIRED = "signal.fired"
    ACTION_RECORDED = "action.recorded"
    API_KEY_CREATED = "api_key.created"
    API_KEY_ROTATED = "api_key.rotated"
    API_KEY_REVOKED = "api_key.revoked"
    WEBHOOK_TEST = "webhook.test"
    WEBHOOK_FAILING = "webhook.failing"
    WEBHOOK_DISABLED = "webhook.disabled"


MOVE_FIGURES = frozenset(
    {
        EventType.SUBSCRIPTION_CREATED,
        EventType.SUBSCRIPTION_ENDED,
        EventType.INVOICE_DRAFTED,
        EventType.INVOICE_FINALIZED,
        EventType.BILL_RUN_COMPLETED,
    }
)
"""After these the figures of the reports are others; a hint for whoever watches them live."""

Form = Literal["id", "text", "amount", "moment", "integer"]


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an event's data."""

    form: Form
    description: str
    kind: str | None = None
    """Of an id: the GraphQL type of the thing."""
    nullable: bool = False

    def rendered(self, value: Any) -> str | int | None:
        """The value as it is sent."""
        if value is None:
            assert self.nullable, f"{self.description} is never null"
            return None
        return _RENDERED[self.form](value, self.kind)


@dataclass(frozen=True, slots=True)
class Shape:
    """What an event of a type says. A change that could break a receiver is another version."""

    description: str
    object: str
    """Whose events arrive in order."""
    members: Mapping[str, Member]
    version: int = 1

    def rendered(self, data: Mapping[str, Any]) -> dict[str, str | int | None]:
        """The data as it is sent; it has exactly these members."""
        assert data.keys() == self.members.keys(), f"{self.description} {sorted(data)}"
        return {name: member.rendered(data[name]) for name, member in self.members.items()}


def _id(value: UUID, kind: str | None) -> str:
    assert kind is not None, "an id is of a thing"
    assert isinstance(value, UUID), "an id is one of ours"
    return global_id(kind, value)


def _text(value: str, _kind: str | None) -> str:
    return str(value)


def _amount(value: Decimal, _kind: str | None) -> str:
    assert isinstance(value, Decimal), "amounts are exact"
    return f"{value:f}"


def _moment(value: datetime, _kind: str | None) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _integer(value: int, _kind: str | None) -> int:
    return int(value)


_RENDERED: dict[Form, Callable[[Any, str | None], str | int]] = {
    "id": _id,
    "text": _text,
    "amount": _amount,
    "moment": _moment,
    "integer": _integer,
}


def _of(kind: str, description: str, *, nullable: bool = False) -> Member:
    return Member("id", description, kind=kind, nullable=nullable)


_CUSTOMER = _of("Customer", "The customer.")
_SUBSCRIPTION = _of("CustomerSubscription", "The subscription.")
_EXTERNAL_ID = Member("text", "Your own id of the customer.")
_CURRENCY = Member("text", "The currency of the amounts, by ISO 4217.")

_SUBSCRIBED = {
    "subscription": _SUBSCRIPTION,
    "customer": _CUSTOMER,
    "offering": _of("Offering", "What is subscribed to."),
    "billingMode": Member("text", "`POSTPAID`, `PREPAID` or `HYBRID`."),
    "startsAt": Member("moment", "From when on it runs."),
    "endsAt": Member("moment", "When it ends; null as long as no end is set.", nullable=True),
}
_INVOICED = {
    "invoice": _of("Invoice", "The invoice."),
    "customer": _CUSTOMER,
    "subscription": _SUBSCRIPTION,
    "billRun": _of("BillRun", "The bill run that wrote it."),
    "state": Member("text", "`DRAFT`, `PENDING_TAX` or `FINALIZED`."),
    "number": Member("text", "The number; null until it is final.", nullable=True),
    "currency": _CURRENCY,
    "periodStart": Member("moment", "Start of the billed period, which it includes."),
    "periodEnd": Member("moment", "End of the billed period, which it excludes."),
    "subtotal": Member("amount", "Sum of the fee and usage lines."),
    "discount": Member("amount", "Sum of the discounts."),
    "tax": Member("amount", "Tax that comes on top."),
    "total": Member("amount", "What the invoice comes to."),
    "fromWallet": Member("amount", "What the wallet pays of it; on a draft, what it would."),
    "amountDue": Member("amount", "What is left to pay."),
}
_RUN = {
    "billRun": _of("BillRun", "The bill run."),
    "until": Member("moment", "Periods that had ended by then were billed."),
}
_KEY = {
    "apiKey": _of("ApiKey", "The key; its secret is not part of this."),
    "publicId": Member("text", "The part of the key that may be shown."),
    "name": Member("text", "What it is for."),
}
_ENDPOINT = {
    "endpoint": _of("WebhookEndpoint", "The endpoint."),
    "url": Member("text", "Where it is, without the query."),
}
_WHY = Member("text", "Why, for a person.")

SHAPES: dict[EventType, Shape] = {
    EventType.CUSTOMER_CREATED: Shape(
        "A customer was created.",
        "the customer",
        {
            "customer": _CUSTOMER,
            "externalId": _EXTERNAL_ID,
            "name": Member("text", "The customer's name."),
            "currency": Member("text", "What the customer pays in, by ISO 4217."),
            "timeZone": Member("text", "The IANA zone whose midnights bound billing periods."),
        },
    ),
    EventType.SUBSCRIPTION_CREATED: Shape(
        "A customer was subscribed to an offering.", "the subscription", _SUBSCRIBED
    ),
    EventType.SUBSCRIPTION_ENDED: Shape(
        "The end of a subscription was set; it may be still to come.",
        "the subscription",
        _SUBSCRIBED,
    ),
    EventType.INVOICE_DRAFTED: Shape(
        "A draft was written for a period that had none; later runs may still change it.",
        "the invoice",
        _INVOICED,
    ),
    EventType.INVOICE_FINALIZED: Shape(
        "An invoice got its number and cannot change any more.", "the invoice", _INVOICED
    ),
    EventType.WALLET_CREDITED: Shape(
        "A wallet was credited with a grant.",
        "the wallet",
        {
            "wallet": _of("Wallet", "The wallet."),
            "grant": _of("WalletGrant", "The grant."),
            "customer": _CUSTOMER,
            "currency": _CURRENCY,
            "amount": Member("amount", "What was credited."),
            "expiresAt": Member("moment", "When the rest of it expires, if ever.", nullable=True),
            "reference": Member("text", "Your own name for the credit.", nullable=True),
        },
    ),
    EventType.BILL_RUN_COMPLETED: Shape(
        "A bill run is done.",
        "the bill run",
        {
            **_RUN,
            "invoices": Member("integer", "How many invoices it wrote, drafts included."),
            "parked": Member("integer", "How many accounts it refused to bill."),
        },
    ),
    EventType.BILL_RUN_FAILED: Shape(
        "A bill run was given up; another follows within the hour.",
        "the bill run",
        {**_RUN, "failure": _WHY},
    ),
    EventType.ACCOUNT_PARKED: Shape(
        "A bill run refused to bill an account, rather than to bill it wrong.",
        "the subscription",
        {
            "subscription": _SUBSCRIPTION,
            "billRun": _of("BillRun", "The bill run."),
            "reason": _WHY,
        },
    ),
    EventType.SIGNAL_FIRED: Shape(
        "A detector fired.",
        "the signal",
        {
            "signal": _of("Signal", "The signal."),
            "customer": _CUSTOMER,
            "detector": Member("text", "The detector."),
            "subject": Member("text", "What it is about: `product:<code>`, or `*` for all."),
            "threshold": Member("text", "The threshold that was crossed."),
            "level": Member("text", "How deep: `ALERT`, `THROTTLE` or `BLOCK`."),
            "value": Member("amount", "The value that crossed it.", nullable=True),
            "limit": Member("amount", "The limit that it crossed.", nullable=True),
            "periodStart": Member("moment", "Start of the period, which it includes."),
            "periodEnd": Member("moment", "End of the period, which it excludes."),
            "explanation": _WHY,
        },
    ),
    EventType.ACTION_RECORDED: Shape(
        "The ladder decided what follows from a signal, also where nothing does.",
        "the signal",
        {
            "action": _of("Action", "The decision."),
            "signal": _of("Signal", "The signal."),
            "customer": _CUSTOMER,
            "tier": Member("text", "The rung: `ALERT`, `THROTTLE` or `BLOCK`."),
            "mode": Member("text", "`SHADOW`: only recorded; `AUTO`: carried out."),
            "state": Member("text", "Where the action stands, such as `STANDBY`."),
            "result": Member("text", "What came of it, for a person."),
        },
    ),
    EventType.API_KEY_CREATED: Shape("A key for this API was created.", "the key", _KEY),
    EventType.API_KEY_ROTATED: Shape("A key for this API was given a new token.", "the key", _KEY),
    EventType.API_KEY_REVOKED: Shape("A key for this API was ended.", "the key", _KEY),
    EventType.WEBHOOK_TEST: Shape(
        "Somebody pressed the test button; sent to that endpoint alone, whatever it filters.",
        "the endpoint",
        _ENDPOINT,
    ),
    EventType.WEBHOOK_FAILING: Shape(
        "Deliveries to another endpoint were given up repeatedly: the warning before it is "
        "disabled.",
        "the endpoint",
        {**_ENDPOINT, "disabledFrom": Member("moment", "When it is disabled if nothing changes.")},
    ),
    EventType.WEBHOOK_DISABLED: Shape(
        "Another endpoint was disabled.",
        "the endpoint",
        {**_ENDPOINT, "reason": Member("text", "`OWNER`, `GONE` (status 410) or `FAILING`.")},
    ),
}
