"""What the gateway is told: who a customer is, what a path needs, what happens without Aforo."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Any

RESERVED_SECONDS = 300
RESERVED_SECONDS_MAX = 86_400


class RulesError(Exception):
    """A file of rules is wrong, as the message says."""


class Fallback(StrEnum):
    """What is answered where Aforo cannot be asked and was never asked before."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"


class Take(StrEnum):
    """How the units of a request are held, where a remembered check is not enough."""

    CONSUME = "CONSUME"
    """For the event of the request, which has the same key."""
    RESERVE = "RESERVE"
    """Until the service behind says what was really used."""


@dataclass(frozen=True, slots=True)
class Metered:
    """The event that is sent for each request that is let through."""

    type: str
    properties: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """What requests under a path need."""

    prefix: str
    about: Mapping[str, str]
    """`{"feature": code}` or `{"meter": code}`, as the check takes it."""
    methods: frozenset[str] = frozenset()
    """Empty: any."""
    quantity: str = "1"
    event: Metered | None = None
    take: Take | None = None
    """None: it is only checked."""
    seconds: int = RESERVED_SECONDS
    """How long a reservation is kept."""

    def fits(self, method: str, path: str) -> bool:
        """Whether it is for this request: its path is the prefix, or goes on below it."""
        if self.methods and method not in self.methods:
            return False
        stem = self.prefix.rstrip("/")
        return path == stem or path.startswith(f"{stem}/")


@dataclass(frozen=True, slots=True)
class Rules:
    """The whole of a file of rules."""

    rules: tuple[Rule, ...]
    """The first that fits counts; a request that none fits is denied."""
    key_header: str | None = "authorization"
    """Where the customer's key stands, with or without `Bearer` before it."""
    customer_header: str | None = None
    """Or where an earlier filter has put your own id of the customer. Envoy must remove it from
    what comes in from outside."""
    when_unreachable: Fallback = Fallback.CLOSED

    def rule(self, method: str, path: str) -> Rule | None:
        """The rule for a request, if there is one."""
        return next((each for each in self.rules if each.fits(method, path)), None)


def read_rules(path: Path) -> Rules:
    """Read a file of rules. Raises RulesError, which names what is wrong, or OSError."""
    try:
        given = json.loads(path.read_text())
    except ValueError as error:
        raise RulesError(f"{path} is no JSON: {error}") from error
    members = _members(
        given, "the file", {"rules", "keyHeader", "customerHeader", "whenUnreachable"}
    )
    if not isinstance(members.get("rules"), list) or not members["rules"]:
        raise RulesError("rules is a list of at least one rule")
    key_header, customer_header = members.get("keyHeader"), members.get("customerHeader")
    if key_header is not None and customer_header is not None:
        raise RulesError("name one of keyHeader and customerHeader: who the customer is")
    if key_header is None and customer_header is None:
        key_header = "authorization"
    return Rules(
        rules=tuple(_rule(each, f"rules[{n}]") for n, each in enumerate(members["rules"])),
        key_header=_header(key_header, "keyHeader"),
        customer_header=_header(customer_header, "customerHeader"),
        when_unreachable=_fallback(members.get("whenUnreachable", "CLOSED")),
    )


def _rule(given: object, place: str) -> Rule:
    known = {"prefix", "methods", "feature", "meter", "quantity", "event", "take", "seconds"}
    members = _members(given, place, known)
    about = {name: members[name] for name in ("feature", "meter") if name in members}
    if len(about) != 1:
        raise RulesError(f"{place} names one of feature and meter")
    methods = members.get("methods", [])
    if not isinstance(methods, list):
        raise RulesError(f"{place}.methods is a list, such as ['POST']")
    prefix = _text(members.get("prefix"), f"{place}.prefix")
    if not prefix.startswith("/"):
        raise RulesError(f"{place}.prefix begins with /")
    take = _take(members.get("take"), f"{place}.take")
    if take is Take.RESERVE and "event" in members:
        raise RulesError(
            f"{place}.event knows nothing of what a reservation came to: have the service send it"
        )
    if take is not Take.RESERVE and "seconds" in members:
        raise RulesError(f"{place}.seconds is for take: RESERVE")
    return Rule(
        prefix=prefix,
        about={name: _text(value, f"{place}.{name}") for name, value in about.items()},
        methods=frozenset(_text(each, f"{place}.methods").upper() for each in methods),
        quantity=_quantity(members.get("quantity", "1"), f"{place}.quantity"),
        event=_metered(members["event"], f"{place}.event") if "event" in members else None,
        take=take,
        seconds=_seconds(members.get("seconds", RESERVED_SECONDS), f"{place}.seconds"),
    )


def _take(given: object, place: str) -> Take | None:
    try:
        return None if given is None else Take(str(given))
    except ValueError:
        raise RulesError(f"{place} is CONSUME or RESERVE, not {given!r}") from None


def _seconds(given: object, place: str) -> int:
    if type(given) is not int or not 1 <= given <= RESERVED_SECONDS_MAX:
        raise RulesError(f"{place} is 1 to {RESERVED_SECONDS_MAX:,} whole seconds")
    return given


def _metered(given: object, place: str) -> Metered:
    members = _members(given, place, {"type", "properties"})
    properties = members.get("properties", {})
    if not isinstance(properties, dict):
        raise RulesError(f"{place}.properties is an object")
    if any(isinstance(value, float) for value in properties.values()):
        raise RulesError(f"{place}.properties has a number with a point: write it as a text")
    return Metered(_text(members.get("type"), f"{place}.type"), properties)


def _members(given: object, place: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise RulesError(f"{place} is an object")
    if unknown := sorted(given.keys() - known):
        names = ", ".join(sorted(known))
        raise RulesError(f"{place} has no member {unknown[0]!r}; there are {names}")
    return given


def _text(given: object, place: str) -> str:
    if not isinstance(given, str) or not given:
        raise RulesError(f"{place} is a text that is not empty")
    return given


def _header(given: object, place: str) -> str | None:
    return None if given is None else _text(given, place).lower()


def _quantity(given: object, place: str) -> str:
    text = _text(given, place)
    try:
        is_good = Decimal(text).is_finite() and Decimal(text) > 0
    except InvalidOperation:
        is_good = False
    if not is_good:
        raise RulesError(f"{place} is a number above zero, as text")
    return text


def _fallback(given: object) -> Fallback:
    try:
        return Fallback(str(given))
    except ValueError:
        raise RulesError(f"whenUnreachable is OPEN or CLOSED, not {given!r}") from None
